// A worker that waits for everything at once.
import { parentPort } from 'node:worker_threads';
import { EventFd, UnixConnection } from '../../../../lib/index.ts';
import { loadNative } from '../../../../lib/raw.ts';

const native = loadNative();
if (!('calls' in native)) throw native.error;
const [left, right] = UnixConnection.pair(native.calls);
const eventfd = new EventFd(native.calls);
const waits = [eventfd.wait(), right.receive(new Uint8Array(1), []), left.send(new Uint8Array(4 << 20))];
parentPort?.postMessage('waiting');
await Promise.all(waits);
