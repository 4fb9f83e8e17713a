import { describe, expect, it } from 'vitest';
import { SlotSet } from '../../../../../lib/arch/ppc64/emulated/slot-set.ts';

/** All members, one after the other. */
function members(set: SlotSet): number[] {
  const found: number[] = [];
  for (let at = set.next(0); at !== -1; at = set.next(at + 1)) found.push(at);
  return found;
}

it('takes a bit for each slot, and little more', () => {
  const before = process.memoryUsage().arrayBuffers;
  const set = new SlotSet(2 ** 20);
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(2 ** 20);
  expect(set.next(0)).toBe(-1);
});

// One word, a word and a bit, one word of words, and more, up to three levels.
describe.each([1, 32, 33, 64, 1024, 1025, 32768, 32769, 100_000])('of %i slots', (size) => {
  const some = [...new Set([0, 1, 31, 32, 33, 63, 64, 1023, 1024, 1056, 32767, 32768, 65535, size - 1])].filter(
    (slot) => slot < size,
  );
  const ascending = some.toSorted((a, b) => a - b);

  it('nobody is a member at first', () => {
    expect(members(new SlotSet(size))).toEqual([]);
  });

  it('whoever was added is, in whatever order', () => {
    for (const order of [ascending, ascending.toReversed()]) {
      const set = new SlotSet(size);
      for (const slot of [...order, ...order]) set.add(slot);
      expect(members(set)).toEqual(ascending);
    }
  });

  it('the next one is that itself, or the first behind it', () => {
    const set = new SlotSet(size);
    for (const slot of some) set.add(slot);
    for (const from of new Set(some.flatMap((slot) => [slot - 1, slot, slot + 1]).filter((slot) => slot >= 0))) {
      expect([from, set.next(from)]).toEqual([from, ascending.find((slot) => slot >= from) ?? -1]);
    }
    expect(set.next(size * 40)).toBe(-1);
  });

  it('whoever was deleted is not, and the others are', () => {
    for (const gone of some) {
      const set = new SlotSet(size);
      for (const slot of some) set.add(slot);
      for (let i = 0; i < 2; i++) set.delete(gone);
      expect(members(set)).toEqual(ascending.filter((slot) => slot !== gone));
      set.add(gone);
      expect(members(set)).toEqual(ascending);
    }
    const set = new SlotSet(size);
    for (const slot of some) set.add(slot);
    for (const slot of some) set.delete(slot);
    expect(members(set)).toEqual([]);
  });
});
