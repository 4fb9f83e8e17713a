import { describe, expect, it } from 'vitest';
import { advance, exactEnd, exactGpa, joinGpa, splitGpa } from '../../../lib/memory/gpa.ts';

const TOP = 2n ** 64n;

describe('a guest physical address in two doubles', () => {
  it.each<[number | bigint, page: number, rest: number]>([
    [0, 0, 0],
    [4095, 0, 4095],
    [4096, 4096, 0],
    [0x1_2345_6789, 0x1_2345_6000, 0x789],
    [2 ** 53 - 1, 2 ** 53 - 4096, 4095],
    [0x1_2345_6789n, 0x1_2345_6000, 0x789],
    [2n ** 53n + 1n, 2 ** 53, 1],
    [TOP - 1n, 2 ** 64 - 4096, 4095],
  ])('%s', (gpa, page, rest) => {
    expect(splitGpa(gpa)).toEqual({ page, rest });
    expect(BigInt(joinGpa({ page, rest }))).toBe(BigInt(gpa));
    expect(typeof joinGpa({ page, rest })).toBe(gpa <= Number.MAX_SAFE_INTEGER ? 'number' : 'bigint');
  });

  it.each([
    [0, 4095, 0, 4095],
    [4095, 1, 4096, 0],
    [4000, 8288, 8192 + 4096, 0],
    [2n ** 60n + 4095n, 2, 2 ** 60 + 4096, 1],
  ])('%s and %i bytes more', (gpa, bytes, page, rest) => {
    const split = splitGpa(gpa);
    advance(split, bytes);
    expect(split).toEqual({ page, rest });
  });

  it('names what is none', () => {
    expect(() => splitGpa(-1)).toThrow('"gpa"');
    expect(() => splitGpa(-1, 'at')).toThrow('"at"');
  });
});

describe('as one double', () => {
  it('is exact below 2^53, and for whole pages', () => {
    expect([0, 2 ** 53 - 1, 2n ** 53n, TOP - 4096n].map((gpa) => exactGpa(gpa))).toEqual([
      0,
      2 ** 53 - 1,
      2 ** 53,
      2 ** 64 - 4096,
    ]);
    expect(() => exactGpa(2n ** 53n + 1n)).toThrow(
      '"gpa" is out of range. It must be a multiple of 4096 when it is 2^53 or more',
    );
    expect(() => exactGpa(TOP - 1n, 'at')).toThrow('"at"');
  });

  it('ends where it is exact, too', () => {
    expect(exactEnd(1, 2)).toBe(3);
    expect(exactEnd(2 ** 53 - 2, 1)).toBe(2 ** 53 - 1);
    expect(exactEnd(2n ** 53n, 4096)).toBe(2 ** 53 + 4096);
    for (const [gpa, size] of [
      [2 ** 53 - 4096, 4097],
      [2 ** 53 - 1, 1],
      [2 ** 53 - 1, 4096],
    ] as const) {
      expect(() => exactEnd(gpa, size, 'at')).toThrow(
        '"size" is out of range. It must be a multiple of 4096, and so at, when the range ends at 2^53 or beyond',
      );
    }
    expect(() => exactEnd(2n ** 53n + 1n, 1)).toThrow('"gpa"');
  });
});
