import { describe, expect, it } from 'vitest';
import { CmmaDirty } from '../../../../../lib/arch/s390x/emulated/cmma-dirty.ts';
import { EmulatedMemslot } from '../../../../../lib/emulated/memslots.ts';

const all = (): boolean => true;

/** A slot, by its first frame and how many it has. */
const slotOf = (baseGfn: number, npages: number): EmulatedMemslot => new EmulatedMemslot(0, 0, 0n, npages, baseGfn, 0);

const dirtyIn = (dirty: CmmaDirty, { baseGfn, npages }: EmulatedMemslot, slot: EmulatedMemslot): number[] =>
  Array.from({ length: npages }, (_, i) => baseGfn + i).filter((gfn) => dirty.isDirty(slot, gfn));

describe('all pages at first', () => {
  it('of all slots', () => {
    const dirty = new CmmaDirty();
    const slots = [slotOf(0, 256), slotOf(1000, 3)];
    dirty.fill(slots, all);
    expect(dirty.count).toBe(259);
    expect(slots.map((slot) => dirtyIn(dirty, slot, slot).length)).toEqual([256, 3]);
    // Others are not.
    expect(dirty.isDirty(slotOf(0, 256), 0)).toBe(false);
    dirty.clear();
    expect(dirty.count).toBe(0);
    expect(dirtyIn(dirty, slots[0]!, slots[0]!)).toEqual([]);
  });

  it('as far as there is a place for their values, which is asked of each segment', () => {
    const dirty = new CmmaDirty();
    // Frames 250 to 1029: the end of one segment, three whole ones, and the beginning of another.
    const slot = slotOf(250, 780);
    const asked: number[] = [];
    dirty.fill([slot], (gfn) => {
      asked.push(gfn);
      return [250, 512, 1024].includes(gfn);
    });
    expect(asked).toEqual([250, 256, 512, 768, 1024]);
    const ranges = [
      [250, 256],
      [512, 768],
      [1024, 1030],
    ] as const;
    const expected = ranges.flatMap(([from, end]) => Array.from({ length: end - from }, (_, i) => from + i));
    expect(dirtyIn(dirty, slot, slot)).toEqual(expected);
    expect(dirty.count).toBe(6 + 256 + 6);
  });

  it('and no more when it is done once more', () => {
    const dirty = new CmmaDirty();
    const [first, second] = [slotOf(0, 8), slotOf(16, 8)];
    dirty.fill([first, second], all);
    dirty.fill([second], all);
    expect([dirty.count, dirty.isDirty(first, 0), dirty.isDirty(second, 16)]).toEqual([8, false, true]);
  });
});

it('each page is counted once, and taken once', () => {
  const dirty = new CmmaDirty();
  const slot = slotOf(100, 8);
  for (const gfn of [103, 103, 107]) dirty.mark(slot, gfn);
  expect([dirty.count, dirtyIn(dirty, slot, slot)]).toEqual([2, [103, 107]]);
  for (const gfn of [103, 103, 104]) dirty.take(slot, gfn);
  expect([dirty.count, dirtyIn(dirty, slot, slot)]).toEqual([1, [107]]);
  dirty.take(slotOf(100, 8), 107);
  expect(dirty.count).toBe(1);
  dirty.mark(slot, 103);
  expect([dirty.count, dirtyIn(dirty, slot, slot)]).toEqual([2, [103, 107]]);
});

it('those of a slot that goes are no longer counted', () => {
  const dirty = new CmmaDirty();
  const [first, second] = [slotOf(0, 8), slotOf(16, 8)];
  dirty.fill([first, second], all);
  dirty.take(first, 3);
  dirty.forget(first);
  expect([dirty.count, dirty.isDirty(first, 0), dirty.isDirty(second, 16)]).toEqual([8, false, true]);
  dirty.forget(first);
  dirty.forget(slotOf(50, 1));
  expect(dirty.count).toBe(8);
});

describe('the next one', () => {
  const slots = [slotOf(10, 10), slotOf(30, 10), slotOf(40, 10)];
  const dirty = new CmmaDirty();
  for (const [slot, gfn] of [
    [slots[0]!, 12],
    [slots[0]!, 19],
    [slots[2]!, 45],
  ] as const)
    dirty.mark(slot, gfn);

  it.each([
    ['before all slots', 0, 12],
    ['at a dirty page', 12, 12],
    ['behind one', 13, 19],
    ['at the last of a slot', 19, 19],
    ['at the end of a slot, in a hole', 20, 45],
    ['in a slot without any', 35, 45],
    ['behind the last one: the end of memory', 46, 50],
    ['at the last page', 49, 50],
    ['at the end of memory: from the beginning', 50, 12],
    ['far behind it', 5000, 12],
  ])('from %s', (_, from, expected) => {
    expect(dirty.next(slots, from)).toBe(expected);
  });
});
