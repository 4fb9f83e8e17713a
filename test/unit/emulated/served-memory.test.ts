import { beforeEach, describe, expect, it } from 'vitest';
import { type Backing, MemoryBacking } from '../../../lib/emulated/backing.ts';
import { type FaultReceiver, ServedMemory } from '../../../lib/emulated/served-memory.ts';
import { UFFDIO_REGISTER_MODE } from '../../../lib/uapi/userfaultfd.ts';

const PAGE = 4096;
const HUGE = 4 * PAGE;
const BASE = 0x7000_0000_0000;
/** Where pages are huge, and where there is nothing. */
const HUGE_BASE = BASE + 0x10_0000;
const NOWHERE = BASE + 0x20_0000;
const { MISSING, WP } = UFFDIO_REGISTER_MODE;

const WAITS = { resolvesStores: false, protectsMissing: false };
const WAITS_FOR_MISSING = { resolvesStores: false, protectsMissing: true };
const TRACKS = { resolvesStores: true, protectsMissing: true };

let memory: MemoryBacking;
let huge: MemoryBacking;
let served: ServedMemory;
let told: unknown[];
const owner = (name: string): FaultReceiver => ({ faulted: (...fault) => void told.push([name, ...fault]) });
let mine: FaultReceiver;
let other: FaultReceiver;

const at = (page: number): number => BASE + page * PAGE;

beforeEach(() => {
  memory = new MemoryBacking(16 * PAGE);
  huge = new MemoryBacking(4 * HUGE, HUGE);
  told = [];
  [mine, other] = [owner('mine'), owner('other')];
  served = new ServedMemory(PAGE, (hva) => {
    if (hva >= BASE && hva < at(16)) return { backing: memory, offset: hva - BASE };
    if (hva >= HUGE_BASE && hva < HUGE_BASE + 4 * HUGE) return { backing: huge, offset: hva - HUGE_BASE };
    return undefined;
  });
});

/** Bytes that come to be there without that anybody hears of it, as through a view. */
const put = (page: number, value: number, byte = 0): void => {
  new Uint8Array(memory.window(0))[page * PAGE + byte] = value;
};
const pages = [0, 1, 2, 3, 4, 5, 6, 7];
const modes = (): (number | undefined)[] => pages.map((page) => served.modeAt(at(page)));
const writtenIn = (first: number, end: number, { protect = false, check = false } = {}): number[] | 'refused' => {
  const found: number[] = [];
  const isDone = served.written(at(first), at(end), protect, check, (page) => found.push((page - BASE) / PAGE));
  return isDone ? found : 'refused';
};
const none = undefined;

describe('registrations', () => {
  it('are of a range, up to its last page', () => {
    expect([served.isIdle, served.isServing]).toEqual([true, false]);
    served.register(mine, at(2), at(4), WP, TRACKS);
    expect([served.isIdle, served.isServing, modes()]).toEqual([
      false,
      false,
      [none, none, WP, WP, none, none, none, none],
    ]);
    served.register(other, at(5), at(6), MISSING, TRACKS);
    expect(served.isServing).toBe(true);
    const ranges = [
      [0, 2],
      [1, 3],
      [3, 4],
      [3, 5],
      [4, 5],
      [4, 6],
      [5, 6],
      [6, 8],
      [0, 8],
    ].map(([first = 0, end = 0]) => [at(first), at(end)] as const);
    expect(ranges.map((range) => served.ownersIn(...range))).toEqual([
      [],
      [mine],
      [mine],
      [mine],
      [],
      [other],
      [other],
      [],
      [mine, other],
    ]);
    // Nobody waits for what is only tracked.
    expect(ranges.map((range) => served.serves(...range))).toEqual([
      ...[false, false, false, false, false],
      ...[true, true, false, true],
    ]);
    expect(ranges.map((range) => served.servesFor(...range))).toEqual([
      ...[none, none, none, none, none],
      ...[other, other, none, other],
    ]);
  });

  it('are for what was asked for last, unless they are for that and more already', () => {
    served.register(mine, at(2), at(4), MISSING | WP, WAITS);
    served.register(mine, at(1), at(3), MISSING, WAITS);
    expect(modes().slice(0, 5)).toEqual([none, MISSING, MISSING | WP, MISSING | WP, none]);
    served.register(mine, at(0), at(2), WP, WAITS);
    expect(modes().slice(0, 5)).toEqual([WP, WP, MISSING | WP, MISSING | WP, none]);
    served.register(mine, at(1), at(6), MISSING | WP, WAITS);
    expect(modes()).toEqual([WP, ...Array(5).fill(MISSING | WP), none, none]);
    // Side by side they are one, if they are for the same and one's own.
    const isOne = (first: number, end: number): boolean => served.isOne(at(first), at(end));
    expect([isOne(0, 1), isOne(0, 2), isOne(1, 6), isOne(2, 3), isOne(1, 7), isOne(6, 7)]).toEqual([
      ...[true, false, true, true, false, false],
    ]);
    served.register(other, at(6), at(8), MISSING | WP, WAITS);
    expect([isOne(5, 7), isOne(6, 8)]).toEqual([false, true]);
  });

  it('end for their owner, in a range or everywhere, and leave what is beside it', () => {
    served.register(mine, at(1), at(5), WP, TRACKS);
    served.register(other, at(5), at(7), MISSING, TRACKS);
    served.unregister(mine, at(2), at(3));
    expect(modes()).toEqual([none, WP, none, WP, WP, MISSING, MISSING, none]);
    served.unregister(other, at(0), at(5));
    served.unregister(mine, at(5), at(8));
    expect(modes()).toEqual([none, WP, none, WP, WP, MISSING, MISSING, none]);
    served.unregister(mine, at(4), at(6));
    expect(modes()).toEqual([none, WP, none, WP, none, MISSING, MISSING, none]);
    // What is unmapped ends for all.
    served.unmapped(at(3), at(6));
    expect(modes()).toEqual([none, WP, none, none, none, none, MISSING, none]);
    served.unregister(mine);
    expect([modes().filter(Boolean), served.isIdle]).toEqual([[MISSING], false]);
    served.unregister(other);
    expect([modes().filter(Boolean), served.isIdle]).toEqual([[], true]);
    // Nothing is left of those that were registered again, in part or for more.
    for (const [first, end] of [
      [1, 5],
      [0, 3],
      [3, 8],
      [2, 4],
      [1, 5],
    ] as const)
      served.register(mine, at(first), at(end), MISSING, TRACKS);
    served.unregister(mine, at(0), at(8));
    expect([served.isIdle, served.isServing]).toEqual([true, false]);
    for (const mode of [MISSING, MISSING, MISSING | WP]) served.register(mine, at(2), at(4), mode, WAITS);
    served.unregister(mine, at(2), at(4));
    expect([served.isIdle, served.isServing]).toEqual([true, false]);
  });
});

describe('a page', () => {
  it('is there when it was brought, has bytes, or is nobody’s', () => {
    expect([served.isPresent(at(1)), served.isPresent(NOWHERE)]).toEqual([false, true]);
    served.brought(at(1));
    served.brought(NOWHERE);
    put(2, 7, PAGE - 1);
    put(3, 0);
    expect(pages.map((page) => served.isPresent(at(page)))).toEqual([
      ...[false, true, true, false],
      ...[false, false, false, false],
    ]);
    expect([served.unitAt(at(1)), served.unitAt(HUGE_BASE), served.unitAt(NOWHERE)]).toEqual([PAGE, HUGE, PAGE]);
    new Uint8Array(huge.window(0))[2 * HUGE - 1] = 1;
    expect([0, 1, 2].map((page) => served.isPresent(HUGE_BASE + page * HUGE))).toEqual([false, true, false]);
    new Uint8Array(huge.window(0))[3 * HUGE] = 1;
    expect([0, PAGE, HUGE - PAGE].map((at) => served.isPresent(HUGE_BASE + 3 * HUGE + at))).toEqual([true, true, true]);
    // Its bytes are all of a huge page's, wherever in it somebody looks.
    expect([0, 1, 2].map((page) => served.isPresent(HUGE_BASE + page * HUGE + PAGE))).toEqual([false, true, false]);
  });

  it('of a file is always there', () => {
    const file = { backing: { kind: 'file', size: () => PAGE } as unknown as Backing, offset: 0 };
    expect(new ServedMemory(PAGE, () => file).isPresent(BASE)).toBe(true);
  });

  it('is waited for where it is missing, or protected and stored to', () => {
    served.register(mine, at(1), at(3), MISSING, WAITS);
    served.register(mine, at(4), at(6), WP, WAITS);
    served.brought(at(5));
    served.protect(at(5), at(6), true);
    const fault = (page: number): unknown => {
      const waits = [false, true].map((write) => served.fault(at(page), write));
      return [...waits, ...told.splice(0)];
    };
    expect([0, 1, 3, 4, 5].map(fault)).toEqual([
      [false, false],
      [true, true, ['mine', at(1), false, false], ['mine', at(1), true, false]],
      [false, false],
      [false, false],
      [false, true, ['mine', at(5), true, true]],
    ]);
    served.brought(at(1));
    served.protect(at(5), at(6), false);
    expect([1, 5].map(fault)).toEqual([
      [false, false],
      [false, false],
    ]);
  });

  it('ends what can be accessed without waiting', () => {
    const reach = (hva: number, length: number, write = false): number => served.reachable(hva, length, write);
    expect(reach(at(1) + 5, 3 * PAGE)).toBe(3 * PAGE);
    served.register(mine, at(2), at(4), MISSING | WP, WAITS);
    expect([reach(at(1) + 5, 3 * PAGE), reach(at(1), PAGE), reach(at(2) + 5, 1), reach(at(4), PAGE)]).toEqual([
      PAGE - 5,
      PAGE,
      0,
      PAGE,
    ]);
    served.brought(at(2));
    expect([reach(at(2) + 5, 3 * PAGE), reach(at(1), PAGE + 1)]).toEqual([PAGE - 5, PAGE + 1]);
    served.protect(at(2), at(3), true);
    expect([reach(at(1) + 8, 2 * PAGE, true), reach(at(1) + 8, 2 * PAGE - 8), reach(at(2) + 8, 1, true)]).toEqual([
      PAGE - 8,
      2 * PAGE - 8,
      0,
    ]);
  });

  it('wakes those who wait for it, once', () => {
    const woken: number[] = [];
    for (const page of [1, 2, 3]) served.whenWoken(at(page), () => void woken.push(page));
    served.wake(at(0), at(1));
    served.wake(at(2), at(3));
    expect(woken).toEqual([2]);
    served.wake(at(1), at(3) + 1);
    expect(woken).toEqual([2, 1, 3]);
    served.wake(at(0), at(8));
    expect(woken).toEqual([2, 1, 3]);
    // Where nobody serves it any more nobody waits; to ask for more wakes nobody.
    served.register(mine, at(4), at(6), MISSING, WAITS);
    served.whenWoken(at(5), () => void woken.push(5));
    served.register(mine, at(4), at(6), MISSING | WP, WAITS);
    expect(woken).toEqual([2, 1, 3]);
    served.unregister(mine, at(5), at(6));
    expect(woken).toEqual([2, 1, 3, 5]);
  });
});

describe('protected pages', () => {
  const protectedOf = (): number[] => pages.filter((page) => served.isProtected(at(page)));

  it('are those that are there where others would be waited for, unless their absence is protected as well', () => {
    for (const [mode, agreed, expected] of [
      [WP | MISSING, WAITS, [3]],
      [WP | MISSING, WAITS_FOR_MISSING, [2, 3, 4]],
      [WP, WAITS, [2, 3, 4]],
      [WP, TRACKS, [2, 3, 4]],
    ] as const) {
      served.unregister(mine);
      served.register(mine, at(2), at(5), mode, agreed);
      served.brought(at(3));
      served.protect(at(0), at(8), true);
      expect(protectedOf()).toEqual(expected);
      served.protect(at(3), at(4), false);
      expect(protectedOf()).toEqual(expected.filter((page) => page !== 3));
    }
  });

  it('stay so when their range is registered again, and until it no longer is', () => {
    served.register(mine, at(1), at(4), WP, TRACKS);
    served.protect(at(1), at(4), true);
    served.register(mine, at(0), at(3), MISSING | WP, TRACKS);
    expect(protectedOf()).toEqual([1, 2, 3]);
    served.unregister(mine, at(2), at(3));
    expect(protectedOf()).toEqual([1, 3]);
    served.register(mine, at(2), at(3), WP, TRACKS);
    expect(protectedOf()).toEqual([1, 3]);
  });

  it('are waited for by nobody while nobody asks for stores, and protected as they are then when somebody does again', () => {
    served.register(mine, at(1), at(4), WP, TRACKS);
    served.protect(at(1), at(4), true);
    served.register(mine, at(1), at(3), MISSING, TRACKS);
    served.touched(at(1), 2 * PAGE, true);
    put(1, 5);
    put(3, 5);
    expect([protectedOf(), served.fault(at(1), true)]).toEqual([[1, 2, 3], false]);
    served.register(mine, at(1), at(4), WP, TRACKS);
    // What was stored to a page that stayed protected is told.
    expect(writtenIn(1, 4)).toEqual([3]);
    served.register(mine, at(1), at(4), MISSING, WAITS);
    served.brought(at(2));
    expect(served.fault(at(2), true)).toBe(false);
  });

  it('that nobody asks for any more in a part, and then does again, are protected anew in that part alone', () => {
    served.register(mine, at(0), at(8), WP, TRACKS);
    served.protect(at(0), at(8), true);
    served.register(mine, at(2), at(5), MISSING, TRACKS);
    for (const page of [1, 2, 4, 5]) put(page, 5);
    served.register(mine, at(2), at(5), WP, TRACKS);
    // What was stored beside it is told.
    expect(writtenIn(0, 8)).toEqual([1, 5]);
  });

  it('are no longer so once somebody stored to them, whatever part', () => {
    served.register(mine, at(0), at(8), WP, TRACKS);
    served.protect(at(0), at(8), true);
    served.touched(at(1) + 8, PAGE, false);
    expect(protectedOf()).toEqual(pages);
    served.touched(at(1) + PAGE - 1, 2, true);
    served.touched(at(4) - 1, 1, true);
    served.touched(at(5), PAGE, true);
    expect(protectedOf()).toEqual([0, 4, 6, 7]);
    // Nobody has registered what is elsewhere.
    served.touched(NOWHERE, 2 * PAGE, true);
    expect(protectedOf()).toEqual([0, 4, 6, 7]);
  });

  it('that are given back stay so where that is not private memory', () => {
    served.discarded(at(0), at(8), true);
    served.register(mine, at(1), at(6), WP, TRACKS);
    put(1, 5);
    put(4, 5);
    served.protect(at(1), at(5), true);
    memory.discard(PAGE, 2 * PAGE);
    served.discarded(at(1), at(3), true);
    expect([protectedOf(), writtenIn(1, 5)]).toEqual([[1, 2, 3, 4], []]);
    memory.discard(4 * PAGE, 2 * PAGE);
    served.discarded(at(4), at(6), false);
    expect([protectedOf(), writtenIn(1, 5)]).toEqual([[1, 2, 3], [4]]);
  });

  it('that are huge and given back in part are as they are then', () => {
    served.register(mine, HUGE_BASE, HUGE_BASE + 2 * HUGE, WP, TRACKS);
    const bytes = new Uint8Array(huge.window(0));
    bytes.fill(7, 0, 2 * HUGE);
    served.protect(HUGE_BASE, HUGE_BASE + 2 * HUGE, true);
    bytes.fill(0, PAGE, 2 * HUGE - PAGE);
    const written: number[] = [];
    const tell = (page: number): void => void written.push(page);
    served.discarded(HUGE_BASE + PAGE, HUGE_BASE + 2 * HUGE - PAGE, true);
    served.written(HUGE_BASE, HUGE_BASE + 2 * HUGE, false, false, tell);
    expect(written).toEqual([]);
  });

  it('make nothing of memory that nobody has touched', () => {
    served.register(mine, at(0), at(8), MISSING | WP, TRACKS);
    served.protect(at(0), at(8), true);
    expect([served.isPresent(at(1)), writtenIn(0, 8), memory.hasBytes(0)]).toEqual([false, [], false]);
  });
});

describe('pages that were written', () => {
  it('are all that are not protected, and those with other bytes than they had', () => {
    put(2, 7);
    expect(writtenIn(1, 4)).toEqual([1, 2, 3]);
    served.register(mine, at(1), at(6), WP, TRACKS);
    expect(writtenIn(0, 8)).toEqual(pages);
    served.protect(at(1), at(5), true);
    expect(writtenIn(0, 8)).toEqual([0, 5, 6, 7]);
    // Zeros that become something, bytes that become zeros, and bytes that become others; not the same bytes.
    put(1, 1, 9);
    put(2, 0);
    put(3, 0);
    expect(writtenIn(0, 6)).toEqual([0, 1, 2, 5]);
    expect(writtenIn(1, 3, { protect: true })).toEqual([1, 2]);
    expect(writtenIn(1, 5)).toEqual([]);
    put(1, 2, 9);
    expect([writtenIn(1, 5), writtenIn(2, 5)]).toEqual([[1], []]);
  });

  it('are told and protected again only where the kernel resolves stores', () => {
    served.register(mine, at(2), at(4), WP, TRACKS);
    served.register(other, at(4), at(5), WP, WAITS);
    served.register(mine, at(5), at(6), MISSING, TRACKS);
    expect(writtenIn(1, 7, { protect: true })).toEqual([2, 3]);
    expect(writtenIn(1, 7)).toEqual([1, 4, 5, 6]);
    expect([writtenIn(2, 4, { check: true }), writtenIn(1, 4, { check: true })]).toEqual([[], 'refused']);
    for (const [first, end] of [
      [3, 5],
      [5, 6],
      [6, 7],
    ] as const)
      expect(writtenIn(first, end, { check: true })).toBe('refused');
    // What comes before is protected all the same.
    served.protect(at(2), at(4), false);
    expect(writtenIn(2, 5, { protect: true, check: true })).toBe('refused');
    expect(writtenIn(1, 5)).toEqual([1, 4]);
    // A page whose store would wait hasn't been written while it is protected.
    served.protect(at(4), at(5), true);
    put(4, 1);
    expect(writtenIn(4, 5)).toEqual([]);
  });

  it('are whole huge pages that are there, of which the range may have a part', () => {
    const written = (first: number, end: number, protect = false): number[] => {
      const found: number[] = [];
      const range = [HUGE_BASE + first * PAGE, HUGE_BASE + end * PAGE] as const;
      served.written(...range, protect, false, (page) => found.push((page - HUGE_BASE) / PAGE));
      return found;
    };
    served.register(mine, HUGE_BASE, HUGE_BASE + 4 * HUGE, WP, TRACKS);
    expect(written(0, 16)).toEqual([]);
    served.brought(HUGE_BASE + HUGE);
    served.brought(HUGE_BASE + 2 * HUGE);
    expect(written(6, 9)).toEqual([6, 7, 8]);
    expect(written(6, 12, true)).toEqual([8, 9, 10, 11]);
    expect(written(0, 16)).toEqual([4, 5, 6, 7]);
    expect(written(4, 11, true)).toEqual([4, 5, 6, 7]);
    expect(written(0, 16)).toEqual([]);
    new Uint8Array(huge.window(0))[2 * HUGE + PAGE] = 1;
    expect(written(9, 10)).toEqual([9]);
    served.touched(HUGE_BASE + 2 * HUGE - 1, 1, true);
    expect(written(0, 16)).toEqual([4, 5, 6, 7, 8, 9, 10, 11]);
    // One of which the end is not in the range isn't told, and stays as it is.
    expect(written(4, 11, true)).toEqual([4, 5, 6, 7]);
    expect(written(0, 16)).toEqual([8, 9, 10, 11]);
  });
});
