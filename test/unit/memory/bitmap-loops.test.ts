import { expect, it } from 'vitest';
import { countBits, forEachBitRun, newBatch, plainBitmapLoops } from '../../../lib/memory/bitmap-loops.ts';

it('runs are joined with those of the bitmap before only where it begins', () => {
  const words = Uint32Array.of(0xf1);
  // Four pages before frame 64.
  const into = Float64Array.of(60, 4, 0, 0, 0, 0);
  expect(plainBitmapLoops.listRuns(words, 64, 4, into, 2)).toBe(4);
  expect([...into.subarray(0, 4)]).toEqual([60, 4, 68, 4]);
  expect(plainBitmapLoops.listRuns(words, 64, 0, into, 2)).toBe(4);
  expect([...into.subarray(0, 4)]).toEqual([60, 5, 68, 4]);
  // What ends where the bitmap begins isn't joined with what is listed from a later word on.
  into.set([60, 4, 0, 0, 0, 0]);
  expect(plainBitmapLoops.listRuns(Uint32Array.of(0, 1), 64, 32, into, 2)).toBe(4);
  expect([...into.subarray(0, 4)]).toEqual([60, 4, 96, 1]);
});

it('of an array of odd length the last place is left alone: no run is half in it', () => {
  // Five runs in two words, the last of which goes on into the second.
  const words = Uint32Array.of(0x8000_0505, 1);
  for (const [length, listed] of [
    [10, [0, 1, 2, 1, 8, 1, 10, 1, 31, 2]],
    [9, [0, 1, 2, 1, 8, 1, 10, 1]],
    [3, [0, 1]],
    [1, []],
  ] as const) {
    const into = new Float64Array(length).fill(-7);
    expect(plainBitmapLoops.listRuns(words, 0, 0, into, 0)).toBe(listed.length);
    expect([...into.subarray(0, listed.length)]).toEqual(listed);
    if (length % 2 === 1) expect(into.at(-1)).toBe(-7);
  }
});

it('every run is told once, of as many as are listed at once and of one more', () => {
  const batch = newBatch();
  for (const runs of [0, 1, batch.length / 2 - 1, batch.length / 2, batch.length / 2 + 1, batch.length]) {
    // Every other page.
    const words = new Uint32Array(batch.length / 16 + 1);
    for (let run = 0; run < runs; run++) words[run >> 4]! |= 1 << ((2 * run) & 31);
    const told: number[] = [];
    forEachBitRun(plainBitmapLoops, words, 2 ** 40, batch, (first, count) => {
      expect(count).toBe(1);
      told.push(first - 2 ** 40);
    });
    expect(told).toEqual(Array.from({ length: runs }, (_, run) => 2 * run));
    expect(countBits(words)).toBe(runs);
  }
});
