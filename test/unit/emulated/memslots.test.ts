import fc from 'fast-check';
import { expect, it } from 'vitest';
import { EmulatedMemslot, MemslotSet } from '../../../lib/emulated/memslots.ts';

const slotOf = (id: number, baseGfn: number, npages: number) =>
  new EmulatedMemslot(id, 0, BigInt(0x7000_0000 + id * 0x10_0000), npages, baseGfn, 0);

it('a set of memslots finds what a plain search finds, through additions, moves and deletions', () => {
  const step = fc.record({ gfn: fc.nat(60), npages: fc.integer({ min: 1, max: 8 }), what: fc.nat(2), which: fc.nat() });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 24 }), (steps) => {
      const set = new MemslotSet();
      const plain: EmulatedMemslot[] = [];
      const overlaps = (first: number, count: number, except = -1) =>
        plain
          .filter((slot) => slot.id !== except && slot.baseGfn < first + count && slot.baseGfn + slot.npages > first)
          .sort((a, b) => a.baseGfn - b.baseGfn)[0];
      for (const [id, { gfn, npages, what, which }] of steps.entries()) {
        const slot = plain[which % (plain.length || 1)];
        if (what === 0 || slot === undefined) {
          if (overlaps(gfn, npages) !== undefined) continue;
          const made = slotOf(id, gfn, npages);
          set.add(made);
          plain.push(made);
        } else if (what === 1) {
          if (overlaps(gfn, slot.npages, slot.id) === undefined) set.move(slot, gfn);
        } else {
          set.delete(slot);
          plain.splice(plain.indexOf(slot), 1);
        }
        expect([...set]).toEqual([...plain].sort((a, b) => a.baseGfn - b.baseGfn));
        expect(set.size).toBe(plain.length);
        const wrong: unknown[] = [];
        for (let at = 0; at < 70; at++) {
          if (set.find(at) !== plain.find((one) => one.baseGfn <= at && at < one.baseGfn + one.npages)) wrong.push(at);
          for (const except of [-1, slot?.id ?? -1]) {
            if (set.overlapping(at, 5, except) !== overlaps(at, 5, except)) wrong.push([at, except]);
          }
          if (set.overlapping(at, 1, -1) !== overlaps(at, 1)) wrong.push([at, 1]);
        }
        expect(wrong).toEqual([]);
        for (let one = 0; one <= id; one++) expect(set.get(one)).toBe(plain.find((each) => each.id === one));
      }
    }),
    { numRuns: 40 },
  );
});
