import { describe, expect, it } from 'vitest';
import { SlotDirty } from '../../../lib/emulated/slot-dirty.ts';

const pagesOf = (bits: Uint8Array): number[] =>
  [...bits].flatMap((byte, i) => [0, 1, 2, 3, 4, 5, 6, 7].filter((b) => byte & (1 << b)).map((b) => 8 * i + b));
const range = (first: number, end: number): number[] => Array.from({ length: end - first }, (_, i) => first + i);

describe('the bitmap of an emulated slot', () => {
  it.each([1, 7, 8, 9, 63, 64, 65, 200])('has whole words of 64 for %i pages, clear or all set', (npages) => {
    for (const initiallySet of [false, true]) {
      const dirty = new SlotDirty(npages);
      dirty.keepBitmap(initiallySet);
      expect(dirty.copy()).toHaveLength(Math.ceil(npages / 64) * 8);
      expect(pagesOf(dirty.copy())).toEqual(initiallySet ? range(0, npages) : []);
    }
  });

  it('keeps its bits where it is asked for again, and loses them where the log ends', () => {
    const dirty = new SlotDirty(100);
    dirty.mark(0, 5);
    dirty.keepBitmap(false);
    expect(pagesOf(dirty.copy())).toEqual([]);
    dirty.mark(60, 5);
    dirty.mark(99, 1);
    dirty.keepBitmap(true);
    expect(pagesOf(dirty.copy())).toEqual([60, 61, 62, 63, 64, 99]);
    dirty.drop();
    dirty.keepBitmap(false);
    expect(pagesOf(dirty.copy())).toEqual([]);
  });

  it('gives a copy, and is cleared as a whole or by bits from a page on', () => {
    const dirty = new SlotDirty(200);
    dirty.keepBitmap(true);
    const copy = dirty.copy();
    dirty.clearBits(64, Uint8Array.of(0xff, 0x01, 0xff), 2);
    expect(pagesOf(dirty.copy())).toEqual([...range(0, 64), ...range(73, 200)]);
    dirty.clear();
    expect(pagesOf(dirty.copy())).toEqual([]);
    expect(pagesOf(copy)).toEqual(range(0, 200));
  });
});

describe('the pages of an emulated slot with a ring', () => {
  it('are noticed once each, and again when they were reset', () => {
    const dirty = new SlotDirty(70);
    dirty.keepRing();
    expect([5, 5, 6, 69, 69].map((page) => dirty.claim(page))).toEqual([true, false, true, true, false]);
    // What is behind the slot's end is nobody's.
    dirty.protect(6, 1000);
    expect([5, 6, 69].map((page) => dirty.claim(page))).toEqual([false, true, true]);
    dirty.protect(5, 5);
    expect(dirty.claim(5)).toBe(false);
    dirty.keepRing();
    expect(dirty.claim(5)).toBe(false);
    dirty.drop();
    dirty.protect(0, 70);
    dirty.keepRing();
    expect(dirty.claim(5)).toBe(true);
  });
});
