import { Kvm } from '../../lib/handles/kvm.ts';
import type { Vm } from '../../lib/handles/vm.ts';
import { Reservation } from '../../lib/memory/reservation.ts';
import { type Bench, type Benchmark, nativeCalls, randomU32 } from './benchmark.ts';
import { type Case, repeat } from './measure.ts';

const PAGE = 4096;
/** Regions lie two pages apart, so that there is room for one more between any two. */
const DISTANCE = 2 * PAGE;
/** So many things are few, and so many are more. */
const FEW = 16;
const SOME = 512;
/** A VM has 32,764 slots, and one is added. */
const MOST_SLOTS = 32_763;
/** Each is a mapping, as is the rest before it, and a process has 65,530 (vm.max_map_count). */
const MOST_PIECES = 16_384;

/** One operation where there are so many things. */
interface Operation extends Disposable {
  run(): void;
}

/** A VM of the emulated kernel with slots of a page each, whose own work is a search and a splice. */
function vmWith(count: number): { readonly kvm: Kvm; readonly vm: Vm; readonly close: () => void } {
  const kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
  const vm = kvm.createVm();
  const ram = kvm.mapAnonymous(PAGE);
  for (let index = 0; index < count; index++) vm.memory.addRam(index * DISTANCE, ram);
  return { kvm, vm, close: () => kvm.close() };
}

function lookup(count: number): Operation {
  const { vm, close } = vmWith(count);
  const random = randomU32();
  return { run: () => void vm.memory.readU32((random() % count) * DISTANCE), [Symbol.dispose]: close };
}

function addAndRemove(count: number): Operation {
  const { kvm, vm, close } = vmWith(count);
  const ram = kvm.mapAnonymous(PAGE);
  const random = randomU32();
  return {
    run: () => vm.memory.addRam((random() % count) * DISTANCE + PAGE, ram).remove(),
    [Symbol.dispose]: close,
  };
}

function move(count: number): Operation {
  const { kvm, vm, close } = vmWith(count);
  const region = vm.memory.addRam(PAGE, kvm.mapAnonymous(PAGE));
  const random = randomU32();
  return { run: () => region.move((random() % count) * DISTANCE + PAGE), [Symbol.dispose]: close };
}

function collect(count: number): Operation {
  const { vm, close } = vmWith(count);
  const dirty = vm.dirtyPages.start();
  return { run: () => void dirty.collect(), [Symbol.dispose]: close };
}

/** Memory that is put over a piece of a reservation, of which each other page is one. */
function putPiece(count: number): Operation {
  const place = Reservation.make(nativeCalls(), count * DISTANCE, {});
  for (let index = 0; index < count; index++) place.mapAnonymous(index * DISTANCE, PAGE);
  const random = randomU32();
  return {
    run: () => place.mapAnonymous((random() % count) * DISTANCE, PAGE),
    [Symbol.dispose]: () => place.close(),
  };
}

const OPERATIONS: readonly (readonly [string, string, (count: number) => Operation, most: number])[] = [
  ['a lookup, readU32 in any of the regions', 'lookup', lookup, MOST_SLOTS],
  ['a region added anywhere and removed', 'pair', addAndRemove, MOST_SLOTS],
  ['a region moved anywhere', 'move', move, MOST_SLOTS],
  ['collect, which asks for each slot: n^1 is the least', 'collect', collect, MOST_SLOTS],
  ['a piece mapped over one of a reservation', 'piece', putPiece, MOST_PIECES],
];

/** What operations cost where there is more: the exponent is that of one of them, so 0 is as much as with few. */
export const growth: Benchmark = {
  name: 'growth',
  needsKvm: false,
  *cases({ sizes }: Bench): Generator<Case> {
    for (const [what, per, make, most] of sizes(OPERATIONS)) {
      for (const [few, many] of sizes([
        [FEW, SOME],
        [SOME, most],
      ] as const)) {
        using less = make(few);
        using more = make(many);
        yield {
          title: `${what}: ${few} and ${many}`,
          meter: 'cpu',
          per,
          contenders: [
            { name: `${few}`, run: (n) => repeat(n, () => less.run()) },
            { name: `${many}`, run: (n) => repeat(n, () => more.run()) },
          ],
          comparisons: [{ of: `${many}`, to: `${few}`, times: many / few }],
        };
      }
    }
  },
};
