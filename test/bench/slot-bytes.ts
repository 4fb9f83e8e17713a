import type { KvmCalls } from '../../lib/calls/kvm-calls.ts';
import { Mapping } from '../../lib/memory/mapping.ts';
import { Memslots } from '../../lib/memory/memslots.ts';
import { SpaceSlots } from '../../lib/memory/space-slots.ts';
import { AddressSpace } from '../../lib/sharing/address-space.ts';
import { nativeCalls } from './benchmark.ts';

// node --expose-gc slot-bytes.js COUNT: bytes of memory that one slot costs in JavaScript, in a VM that has so many of them. What the
// kernel has is not in it: it says yes to all.

const count = Number(process.argv[2]);
const calls: KvmCalls = { ...nativeCalls(), setUserMemoryRegion: () => 0 };
const ram = Mapping.anonymous(calls, 4096);

function used(): number {
  globalThis.gc!();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

function makeSpace() {
  const space = new AddressSpace({ littleEndian: true, pageSize: 4096 });
  const memslots = new Memslots({ calls, fd: 0, closed: false, noun: 'VM' }, () => {
    throw new Error('limits are asked for where a call is refused, and none is');
  });
  const slots = new SpaceSlots(memslots, 0, () => {});
  space.addUser(slots);
  return { space, slots };
}

function fill(space: AddressSpace, regions: number): void {
  for (let i = 0; i < regions; i++) space.addRam(i * 8192, ram);
  space.readU32(0);
}

// What is made once is there before it is counted.
fill(makeSpace().space, 10);
const { space, slots } = makeSpace();
const before = used();
fill(space, count);
console.log((used() - before) / count);
if (slots.memslots.size !== count) throw new Error(`${slots.memslots.size} slots`);
