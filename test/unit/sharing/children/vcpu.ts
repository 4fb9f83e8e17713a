// Runs a vCPU of another thread, with its MMIO and port handlers here: tells what they were asked, and how the run ended.
import { parentPort, workerData } from 'node:worker_threads';
import { Vcpu } from '../../../../lib/index.ts';
import { loadNative } from '../../../../lib/raw.ts';

const native = loadNative();
if (!('calls' in native)) throw native.error;
const vcpu = await Vcpu.attach(native.calls, workerData.token);
const asked: string[] = [];
vcpu.vm.memory.addMmio(0xd000_0000, 0x1000, {
  read: (offset, size) => {
    asked.push(`read ${offset}, ${size}`);
    return 0x5a;
  },
  write: (offset, value) => asked.push(`write ${offset}, ${value}`),
});
vcpu.vm.io.ports.add(0x80, 8, { write: (offset, value) => asked.push(`out ${offset}, ${value}`) });

/** How a run ends, or with which error. */
async function outcome(how: string): Promise<string> {
  try {
    const exit = how === 'runSync' ? vcpu.runSync() : await vcpu.run();
    return exit.reason;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? String(error);
  }
}

parentPort!.on('message', async ({ how, store, close }) => {
  if (store !== undefined) vcpu.vm.memory.writeU32(store, 0xbeef);
  const ended = how === undefined ? undefined : await outcome(how);
  if (close === true) vcpu.close();
  parentPort!.postMessage({ ended, asked: asked.splice(0), rip: vcpu.closed ? 0n : vcpu.x86_64.getRegs().rip });
  if (close === true) parentPort!.close();
});
parentPort!.postMessage('attached');
