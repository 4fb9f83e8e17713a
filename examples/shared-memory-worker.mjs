// A worker uses a guest's memory by a token, while regions come, move and go.
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { AddressSpace, Mapping } from 'kvm-bridge';
import { openKvm } from './support/guest.mjs';
import { addonCalls, report } from './support/sharing.mjs';

const MIB = 1 << 20;
const calls = addonCalls();

if (isMainThread) await own();
else await consume();

/** In the worker: the same memory, wherever it is at the moment. */
async function consume() {
  const changes = [];
  const binding = await AddressSpace.attach(calls, workerData, {
    name: 'network',
    onChange: (generation) => changes.push(generation),
  });
  const revoked = [];
  parentPort.on('message', ({ gpa, value, view, end }) => {
    if (view !== undefined) binding.vmap(view, 64, { write: true, onRevoke: ({ reason }) => revoked.push(reason) });
    else if (!end) binding.writeU32(gpa, value);
    parentPort.postMessage({ changes, revoked });
    if (!end) return;
    binding.release();
    parentPort.close();
  });
  parentPort.postMessage('ready');
}

async function own() {
  const kvm = openKvm();
  const vm = kvm.createVm();
  const space = new AddressSpace({ littleEndian: true, pageSize: kvm.pageSize });
  vm.bind(space);
  const ram = Mapping.memfd(calls, 2 * MIB);
  const low = space.addRam(0, ram, { size: MIB });
  space.share();
  const dirty = vm.dirtyPages.start();

  const worker = new Worker(fileURLToPath(import.meta.url), { workerData: space.token });
  await once(worker, 'message');
  const ask = async (message) => {
    worker.postMessage(message);
    return (await once(worker, 'message'))[0];
  };

  await ask({ gpa: 0x3000, value: 1 });
  report('written by the worker', space.readU32(0x3000), 1);
  report('dirty pages', dirty.collect().count, 1);

  await ask({ view: 0x5000 });
  low.move(16 * MIB);
  await space.settled();
  report('dirty pages of a view whose region has moved', dirty.collect().count, 1);
  space.addRam(0, ram, { offset: MIB });
  await ask({ gpa: 0x3000, value: 2 });
  const { changes, revoked } = await ask({ gpa: 16 * MIB + 0x3000, value: 3 });
  report('at the old address', space.readU32(0x3000), 2);
  report('at the new address', space.readU32(16 * MIB + 0x3000), 3);
  report('changes that the worker saw', changes.at(-1), space.generation);
  report('its view was', revoked.join(), 'moved');

  await ask({ end: true });
  await once(worker, 'exit');
  report('consumers left', space.consumers.length, 0);
  vm.close();
  space.close();
  ram.close();
  kvm.close();
}
