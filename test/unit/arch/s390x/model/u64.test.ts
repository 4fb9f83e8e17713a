import { expect, it } from 'vitest';
import { addressOf, highHalfOf, lowHalfOf, pfnOf } from '../../../../../lib/arch/s390x/model/u64.ts';

it.each([
  [0, 0, 0],
  [0xffff_ffff, 0, 0xffff_ffff],
  [0x1_0000_0000, 1, 0],
  [Number.MAX_SAFE_INTEGER, 0x1f_ffff, 0xffff_ffff],
  [0x8765_4321_89ab_cdefn, 0x8765_4321, 0x89ab_cdef],
  [(1n << 64n) - 1n, 0xffff_ffff, 0xffff_ffff],
])('the halves of %s', (address, hi, lo) => {
  expect([highHalfOf(address), lowHalfOf(address)]).toEqual([hi, lo]);
});

it('an address is a frame and an offset', () => {
  expect(pfnOf(0x8765_4321, 0x89ab_cdef)).toBe(0x8_7654_3218_9abc);
  expect(pfnOf(-1, -1)).toBe(2 ** 52 - 1);
  expect(addressOf(0x8_7654_3218_9abc, 0xdef)).toBe(0x8765_4321_89ab_cdefn);
});
