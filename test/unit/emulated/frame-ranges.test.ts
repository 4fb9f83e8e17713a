import fc from 'fast-check';
import { expect, it } from 'vitest';
import { FrameRanges } from '../../../lib/emulated/frame-ranges.ts';

const FRAMES = 24;

it('holds what a set of single frames would', () => {
  const change = fc.record({
    first: fc.integer({ min: 0, max: FRAMES }),
    count: fc.integer({ min: 1, max: FRAMES }),
    isIn: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(change, { maxLength: 20 }), (changes) => {
      const ranges = new FrameRanges();
      const frames = new Set<number>();
      for (const { first, count, isIn } of changes) {
        ranges.set(first, first + count, isIn);
        for (let gfn = first; gfn < first + count; gfn++) isIn ? frames.add(gfn) : frames.delete(gfn);
      }
      const all = Array.from({ length: 2 * FRAMES }, (_, gfn) => gfn);
      expect(all.filter((gfn) => ranges.has(gfn))).toEqual(all.filter((gfn) => frames.has(gfn)));
    }),
  );
});

it('holds all frames that there can be', () => {
  const ranges = new FrameRanges();
  ranges.set(0, 2 ** 52, true);
  ranges.set(5, 6, false);
  expect([4, 5, 6, 2 ** 52 - 1, 2 ** 52].map((gfn) => ranges.has(gfn))).toEqual([true, false, true, true, false]);
});
