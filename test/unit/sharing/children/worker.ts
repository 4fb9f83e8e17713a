// A consumer in a worker, by a token: answers what it is asked, and stores without end if that is asked.
import { parentPort, workerData } from 'node:worker_threads';
import { AddressSpace } from '../../../../lib/index.ts';
import { loadNative } from '../../../../lib/raw.ts';

const native = loadNative();
if (!('calls' in native)) throw native.error;
const binding = await AddressSpace.attach(native.calls, workerData, { name: 'worker' });
parentPort!.on('message', ({ write, read, storm, release }) => {
  if (write !== undefined) binding.writeU32(write, 0xbeef);
  if (storm !== undefined) for (let i = 0; ; i++) binding.writeU32(0x1000 * (i % storm), i);
  if (release === true) {
    binding.release();
    parentPort!.close();
    return;
  }
  parentPort!.postMessage(read === undefined ? 'done' : binding.readU32(read));
});
parentPort!.postMessage(binding.regions.map(String));
