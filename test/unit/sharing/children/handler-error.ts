// A handler that throws in a worker, which throws on what comes of it.
import { workerData } from 'node:worker_threads';
import { Kvm } from '../../../../lib/index.ts';

const fail = (): never => {
  throw new Error('no such register');
};

const kvm = Kvm.open({ backend: 'emulated' });
const { memory } = kvm.createVm();
memory.addMmio(0xd000_0000, 0x1000, { read: fail }, { name: 'timer' });
memory.addRam(0, kvm.mapAnonymous(kvm.pageSize), { name: 'flash', readOnly: true, onStore: fail });
memory.answerGuest(workerData.gpa, new Uint8Array(4), workerData.isStore);
