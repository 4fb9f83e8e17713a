import { describe, expect, it } from 'vitest';
import * as values from '../../../lib/memory/values.ts';

const CHECKS: readonly [name: string, check: (value: number) => void, min: number, max: number][] = [
  ['u8', values.checkU8, 0, 0xff],
  ['i8', values.checkI8, -0x80, 0x7f],
  ['u16', values.checkU16, 0, 0xffff],
  ['i16', values.checkI16, -0x8000, 0x7fff],
  ['u32', values.checkU32Value, 0, 0xffff_ffff],
  ['i32', values.checkI32, -0x8000_0000, 0x7fff_ffff],
];

describe.each(CHECKS)('%s', (_, check, min, max) => {
  it('is a whole number of its range', () => {
    for (const right of [min, 0, 1, max]) expect(check(right)).toBeUndefined();
    for (const wrong of [min - 1, max + 1, 0.5, Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(() => check(wrong)).toThrow(
        expect.objectContaining({
          code: 'ERR_OUT_OF_RANGE',
          message: `The value of "value" is out of range. It must be an integer in [${min}, ${max}]. Received ${wrong}`,
        }),
      );
    }
  });

  it('is a number', () => {
    for (const wrong of ['1', 1n, null, undefined, [1]]) {
      expect(() => check(wrong as never)).toThrow(
        expect.objectContaining({
          code: 'ERR_INVALID_ARG_TYPE',
          message: expect.stringMatching(/"value" argument must be a number/),
        }),
      );
    }
  });
});

it('a signed value of 64 bits is an exact number or a bigint of its range', () => {
  for (const right of [0, -1, -(2 ** 53) + 1, 2 ** 53 - 1, -(2n ** 63n), 2n ** 63n - 1n]) {
    expect(values.checkI64(right)).toBe(BigInt(right));
  }
  for (const wrong of [2 ** 53, 0.5, Number.NaN]) {
    expect(() => values.checkI64(wrong)).toThrow('"value" is out of range. It must be a safe integer');
  }
  for (const wrong of [2n ** 63n, -(2n ** 63n) - 1n]) {
    expect(() => values.checkI64(wrong)).toThrow('"value" is out of range. It must be a bigint in [-2^63, 2^63)');
  }
  expect(() => values.checkI64('1' as never)).toThrow(/"value" .*must be a number or bigint/);
});

it('an unsigned one likewise', () => {
  expect(values.checkU64Value(2n ** 64n - 1n)).toBeUndefined();
  for (const wrong of [-1, 2 ** 53, 2n ** 64n]) expect(() => values.checkU64Value(wrong)).toThrow('"value"');
});
