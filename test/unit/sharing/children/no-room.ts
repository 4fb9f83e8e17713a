// Receives descriptors when the process has as many open as it may have.
import { readdirSync } from 'node:fs';
import { type Descriptor, UnixConnection } from '../../../../lib/index.ts';
import { loadNative } from '../../../../lib/raw.ts';

const native = loadNative();
if (!('calls' in native)) throw native.error;
const { calls } = native;
const [left, right] = UnixConnection.pair(calls);
const eventfd = calls.eventfd(0);
await left.send(Uint8Array.of(1), [eventfd, eventfd, eventfd]);
const taken: number[] = [];
for (let fd = calls.eventfd(0); fd >= 0; fd = calls.eventfd(0)) taken.push(fd);
// Room for two of the three.
for (const fd of taken.splice(-2)) calls.close(fd);
const descriptors: Descriptor[] = [];
const error = await right.receive(new Uint8Array(8), descriptors).catch((thrown: unknown) => thrown);
for (const fd of taken) calls.close(fd);
const open = readdirSync('/proc/self/fd').length;
[left, right].forEach((each) => {
  each.close();
});
calls.close(eventfd);
const left3 = open - readdirSync('/proc/self/fd').length;
console.log(
  `${(error as { code?: string }).code}, ${descriptors.length === 0 && left3 === 3 ? 'nothing left' : 'something left'}`,
);
