import { describe, expect, it } from 'vitest';
import { DirtyBitmap } from '../../../lib/memory/dirty-bitmap.ts';
import { EmulatedKernel, ERRNO } from '../../../lib/raw.ts';

const calls = new EmulatedKernel({ arch: 'x86_64' });

/** A bitmap with every page set. */
function full(npages: number): DirtyBitmap {
  const bitmap = new DirtyBitmap(calls, npages);
  for (let page = 0; page < npages; page++) bitmap.set(page);
  return bitmap;
}

const pagesOf = (bits: Uint8Array, first = 0): number[] =>
  [...bits].flatMap((byte, i) => [0, 1, 2, 3, 4, 5, 6, 7].filter((b) => byte & (1 << b)).map((b) => first + 8 * i + b));
const range = (first: number, end: number): number[] => Array.from({ length: end - first }, (_, i) => first + i);

describe('the bitmap of a slot', () => {
  it('has one bit for each page, the lowest first, in words of 64', () => {
    for (const [npages, bytes] of [
      [1, 8],
      [64, 8],
      [65, 16],
      [200, 32],
    ] as const) {
      const bitmap = new DirtyBitmap(calls, npages);
      expect(bitmap.words).toHaveLength(0);
      expect(bitmap.bytes).toEqual(new Uint8Array(bytes));
      bitmap.set(npages - 1);
      expect(pagesOf(bitmap.bytes)).toEqual([npages - 1]);
      expect(bitmap.words).toHaveLength(bytes / 4);
      bitmap.clear();
      expect(pagesOf(bitmap.bytes)).toEqual([]);
      bitmap.close();
      expect(bitmap.words).toHaveLength(0);
    }
  });

  it('tells of all pages of a range that are set, and of others only in the words at its ends', () => {
    const bitmap = new DirtyBitmap(calls, 300);
    const seenIn = (first: number, end: number): number[] => {
      const seen: number[] = [];
      bitmap.forEachIn(first, end, (page) => {
        seen.push(page);
      });
      return seen;
    };
    expect(seenIn(0, 300)).toEqual([]);
    for (const page of [0, 31, 32, 95, 96, 299]) bitmap.set(page);
    expect(seenIn(0, 300)).toEqual([0, 31, 32, 95, 96, 299]);
    expect(seenIn(32, 96)).toEqual([32, 95]);
    expect(seenIn(40, 97)).toEqual([32, 95, 96]);
    expect(seenIn(33, 34)).toEqual([32]);
  });

  it('has memory that ends with it when it is large', () => {
    // 2^19 pages are 64 KiB of bits; 64 more are 8 bytes more, and not a whole page.
    for (const npages of [2 ** 19, 2 ** 19 + 64]) {
      const bitmap = new DirtyBitmap(calls, npages);
      const { bytes } = bitmap;
      expect(bytes).toHaveLength(npages / 8);
      expect(bytes.byteOffset + bytes.length).toBe(bytes.buffer.byteLength);
      bitmap.set(0);
      bitmap.set(npages - 1);
      expect([bytes[0], bytes.at(-1)]).toEqual([1, 0x80]);
      bitmap.clear();
      expect([bytes[0], bytes.at(-1)]).toEqual([0, 0]);
      bitmap.close();
    }
  });

  it('has such memory from as many bytes on as it is told, gives it back when it is cleared only if it is large, and when it is closed', () => {
    const kernel = new EmulatedKernel({ arch: 'x86_64' });
    const asked: string[] = [];
    for (const name of ['mmap', 'madvise', 'munmap'] as const) {
      const real = kernel[name].bind(kernel) as (...args: never[]) => number;
      (kernel as unknown as Record<string, unknown>)[name] = (...args: never[]) => {
        asked.push(name);
        return real(...args);
      };
    }
    for (const [bytes, from, expected] of [
      [0xff8, 0x1000, []],
      [0x1000, 0x1000, ['mmap', 'munmap']],
      [0xfff8, undefined, []],
      [0x1_0000, 0x1000, ['mmap', 'madvise', 'munmap']],
    ] as const) {
      const bitmap = new DirtyBitmap(kernel, bytes * 8, from);
      bitmap.set(bytes * 8 - 1);
      expect(bitmap.bytes.at(-1)).toBe(0x80);
      bitmap.clear();
      expect(bitmap.bytes.at(-1)).toBe(0);
      bitmap.close();
      expect(asked.splice(0)).toEqual(expected);
    }
  });

  it('has other memory where the process gets no more mappings', () => {
    const kernel = new EmulatedKernel({ arch: 'x86_64' });
    kernel.mmap = () => -ERRNO.ENOMEM;
    const bitmap = new DirtyBitmap(kernel, 2 ** 19);
    bitmap.set(2 ** 19 - 1);
    expect(bitmap.bytes).toHaveLength(2 ** 16);
    expect(bitmap.bytes.at(-1)).toBe(0x80);
    bitmap.close();
  });

  it('has other memory where a kernel shows none directly, and keeps nothing of what it was refused', () => {
    const kernel = new EmulatedKernel({ arch: 'x86_64' });
    const mapped: number[] = [];
    const { munmap } = kernel;
    kernel.munmap = (hva, size) => {
      mapped.push(Number(size));
      return munmap.call(kernel, hva, size);
    };
    kernel.window = () => -ERRNO.EACCES;
    const bitmap = new DirtyBitmap(kernel, 2 ** 19);
    expect(bitmap.bytes).toHaveLength(2 ** 16);
    expect(mapped).toEqual([2 ** 16]);
    bitmap.set(2 ** 19 - 1);
    expect(bitmap.bytes.at(-1)).toBe(0x80);
    bitmap.clear();
    expect(bitmap.bytes.every((byte) => byte === 0)).toBe(true);
    bitmap.close();
    expect(mapped).toHaveLength(1);
  });

  // CLEAR_DIRTY_LOG: first_page a multiple of 64, num_pages too unless it reaches the end of the slot.
  it.each([
    [0, 200, 0, 200],
    [0, 64, 0, 64],
    [3, 5, 0, 64],
    [63, 65, 0, 128],
    [64, 128, 64, 64],
    [3, 127, 0, 128],
    [100, 140, 64, 128],
    [127, 128, 64, 64],
    [128, 129, 128, 64],
    [130, 200, 128, 72],
    [190, 200, 128, 72],
    [192, 200, 192, 8],
    [199, 200, 192, 8],
  ])('gives the bits of [%i, %i) alone, in groups of 64 pages', (first, end, firstPage, numPages) => {
    const part = full(200).part(first, end);
    expect(part).toMatchObject({ firstPage, numPages });
    expect(part.bits).toHaveLength(Math.ceil(numPages / 64) * 8);
    expect(pagesOf(part.bits, firstPage)).toEqual(range(first, end));
  });

  it('keeps its own bits when a part is taken', () => {
    const bitmap = full(100);
    bitmap.part(10, 20);
    expect(pagesOf(bitmap.bytes)).toEqual(range(0, 100));
  });
});
