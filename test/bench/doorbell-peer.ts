// Answers each ring of the eventfd that it inherited as descriptor 3 by one of 4.
import { loadNative } from '../../lib/backends/native.ts';
import { Descriptor } from '../../lib/sharing/descriptor.ts';
import { EventFd } from '../../lib/sharing/eventfd.ts';

const native = loadNative();
if (!('calls' in native)) throw native.error;
const { calls } = native;
const [there, back] = [3, 4].map((fd) => new EventFd(calls, Descriptor.duplicate(calls, fd))) as [EventFd, EventFd];
for await (const _ of there) back.signal();
