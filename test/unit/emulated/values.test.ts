import { expect, it } from 'vitest';
import { bytesOf, integerOf } from '../../../lib/emulated/values.ts';

it('a value has its bytes in the order of the host', () => {
  const value = 0x0102_0304_0506_0708n;
  for (const [size, little, big] of [
    [1, [8], [8]],
    [2, [8, 7], [7, 8]],
    [4, [8, 7, 6, 5], [5, 6, 7, 8]],
    [8, [8, 7, 6, 5, 4, 3, 2, 1], [1, 2, 3, 4, 5, 6, 7, 8]],
  ] as const) {
    expect([[...bytesOf(value, size, true)], [...bytesOf(value, size, false)]]).toEqual([little, big]);
    const low = BigInt.asUintN(8 * size, value);
    expect([integerOf(Uint8Array.from(little), true), integerOf(Uint8Array.from(big), false)]).toEqual([low, low]);
  }
  expect([...bytesOf(-2n, 8, false)]).toEqual([255, 255, 255, 255, 255, 255, 255, 254]);
  expect(integerOf(Uint8Array.of(1, 2, 3), false)).toBe(0x0001_0203n);
});
