// Owns an address space, and serves it at a socket's path until it is killed.
import { AddressSpace, Mapping, UnixListener } from '../../../../lib/index.ts';
import { loadNative } from '../../../../lib/raw.ts';

const native = loadNative();
if (!('calls' in native)) throw native.error;
const { calls } = native;
const space = new AddressSpace({ littleEndian: true, pageSize: 4096 });
space.addRam(0, Mapping.memfd(calls, 0x10_0000));
space.share();
space.writeU32(0x100, 4711);
using listener = UnixListener.listen(calls, process.argv[2]!);
console.log('ready');
for await (const connection of listener) space.accept(connection);
