import { describe, expect, it } from 'vitest';
import { checkInteger, checkU64, isExact, isIntegerIn, isPowerOfTwo, normalU64 } from '../../../lib/base/arguments.ts';

const wrongType = expect.objectContaining({ code: 'ERR_INVALID_ARG_TYPE', message: expect.stringContaining('"n"') });
const outOfRange = expect.objectContaining({ code: 'ERR_OUT_OF_RANGE', message: expect.stringContaining('"n"') });

describe('checkU64', () => {
  it.each([0, 1, Number.MAX_SAFE_INTEGER, 0n, 1n << 53n, (1n << 64n) - 1n])('takes %s as it is', (value) => {
    expect(checkU64(value, 'n')).toBe(value);
  });

  it.each([-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53, -1n, 1n << 64n])('refuses %s', (value) => {
    expect(() => checkU64(value, 'n')).toThrow(outOfRange);
  });

  it.each([undefined, null, '1', {}, true])('refuses %s for what it is', (value) => {
    expect(() => checkU64(value as unknown as number, 'n')).toThrow(wrongType);
  });
});

describe('checkInteger', () => {
  it.each([
    [-3, -3],
    [0, 0],
    [7, 7],
  ])('takes %s in [-3, 7]', (value, number) => {
    expect(checkInteger(value, 'n', -3, 7)).toBe(number);
  });

  it.each([-4, 8, 0.5, Number.NaN])('refuses %s in [-3, 7]', (value) => {
    expect(() => checkInteger(value, 'n', -3, 7)).toThrow(outOfRange);
  });

  it.each([7n, '7', null, undefined])('refuses %s for what it is: code that goes on with it would fail', (value) => {
    expect(() => checkInteger(value as unknown as number, 'n', -3, 7)).toThrow(wrongType);
  });

  it('says the range and what it got', () => {
    expect(() => checkInteger(8, 'n', -3, 7)).toThrow('It must be an integer in [-3, 7]. Received 8');
  });
});

it('numbers are whole and in range, exact, or a power of two', () => {
  expect([-1, 0, 0.5, 15, 16, Number.NaN].filter((n) => isIntegerIn(n, 0, 15))).toEqual([0, 15]);
  expect([-(2 ** 53) + 1, 2 ** 53, 1.5, Number.NaN].filter(isExact)).toEqual([-(2 ** 53) + 1]);
  expect([0, 0.5, 1, 2, 3, 2 ** 40, -2, Number.NaN, Number.POSITIVE_INFINITY].filter(isPowerOfTwo)).toEqual([
    1,
    2,
    2 ** 40,
  ]);
});

it('a u64 is a number where that is exact, else a bigint', () => {
  expect(normalU64(7n)).toBe(7);
  expect(normalU64((1n << 53n) - 1n)).toBe(Number.MAX_SAFE_INTEGER);
  expect(normalU64(1n << 53n)).toBe(1n << 53n);
  expect(normalU64(2 ** 53)).toBe(1n << 53n);
});
