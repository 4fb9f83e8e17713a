// Uses an address space by its token, as it is told: attaches, writes bytes, lets go.
import { parentPort } from 'node:worker_threads';
import { AddressSpace, type Binding } from '../../lib/index.ts';
import { loadNative } from '../../lib/raw.ts';

const native = loadNative();
if (!('calls' in native)) throw native.error;
const { calls } = native;
let binding: Binding | undefined;
parentPort!.on('message', async ({ attach, gpa, value, release }) => {
  if (attach !== undefined) binding = await AddressSpace.attach(calls, attach, { name: 'worker' });
  else if (release === true) binding!.release();
  else binding!.writeU8(gpa, value);
  parentPort!.postMessage(true);
});
parentPort!.postMessage('ready');
