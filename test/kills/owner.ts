// Owns an address space, serves it at a socket's path, and moves, removes and adds regions until it is killed.
import { AddressSpace, Mapping, UnixListener } from '../../lib/index.ts';
import { loadNative } from '../../lib/raw.ts';

const MIB = 2 ** 20;
const native = loadNative();
if (!('calls' in native)) throw native.error;
const { calls } = native;
const space = new AddressSpace({ littleEndian: true, pageSize: 4096 });
const ram = Mapping.memfd(calls, 8 * MIB);
space.share({ calls });
// Every MiB of the memory begins with its offset.
const all = space.addRam(0, ram);
for (let i = 0; i < 8; i++) space.writeU32(i * MIB, i * MIB);
all.remove();
let regions = Array.from({ length: 8 }, (_, i) => space.addRam(i * MIB, ram, { offset: i * MIB, size: MIB }));
const listener = UnixListener.listen(calls, process.argv[2]!);
void (async () => {
  for await (const connection of listener) space.accept(connection);
})();
console.log('ready');
for (let round = 0; ; round++) {
  regions = regions.map((region, i) => {
    if ((round + i) % 3 !== 0) {
      region.move(((round % 2) * 16 + i) * MIB);
      return region;
    }
    region.remove();
    return space.addRam(((round % 2) * 16 + i) * MIB, ram, { offset: i * MIB, size: MIB });
  });
  await new Promise((resolve) => setImmediate(resolve));
}
