// Waits for an eventfd and for both directions of a socket, until it is terminated.
import { parentPort } from 'node:worker_threads';
import { calls } from './addon.mjs';

const ends = new Int32Array(2);
calls.sharing.socketPair(1, ends);
while (calls.sharing.sendMessage(ends[0], new Uint8Array(1 << 16), new Int32Array(0)) > 0);
const waits = [calls.poll(calls.eventfd(0), 1), calls.poll(ends[0], 1), calls.poll(ends[0], 4)];
parentPort?.postMessage('waiting');
await Promise.all(waits);
