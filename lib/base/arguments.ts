import { invalidArgType, outOfRange } from './errors.ts';
import type { U64 } from './u64.ts';

/** Whether a number is whole and in [min, max]. */
export const isIntegerIn = (value: number, min: number, max: number): boolean =>
  value >= min && value <= max && Number.isInteger(value);

/** Whether a number is 1, 2, 4, 8 … */
export const isPowerOfTwo = (value: number): boolean => Number.isInteger(Math.log2(value)) && value >= 1;

/** Whether a number is whole and was not rounded: one between −2^53 and 2^53. */
export const isExact = (value: number): boolean => Number.isSafeInteger(value);

const U64_RANGE = 'an integer in [0, 2^53) as a number, or in [0, 2^64) as a bigint';

/**
 * Checks a 64-bit unsigned argument and gives it back as it is.
 * @throws TypeError ERR_INVALID_ARG_TYPE unless it is a number or bigint
 * @throws RangeError ERR_OUT_OF_RANGE when it is negative, fractional, NaN, a number that may have been rounded
 *   (2^53 and above), or 2^64 and above
 */
export function checkU64(value: U64, name: string): U64 {
  if (typeof value === 'number') {
    if (!(value >= 0 && isExact(value))) throw outOfRange(name, U64_RANGE, value);
    return value;
  }
  if (typeof value !== 'bigint') throw invalidArgType(name, 'a number or bigint', value);
  if (value < 0n || value >> 64n !== 0n) throw outOfRange(name, U64_RANGE, value);
  return value;
}

/** The same as a bigint. */
export const toU64 = (value: U64, name: string): bigint => BigInt(checkU64(value, name));

/** Checks a whole number in [min, max]; a bigint in that range is taken for the number it is. */
export function checkInteger(value: U64, name: string, min: number, max: number): number {
  if (typeof value !== 'number' && typeof value !== 'bigint') throw invalidArgType(name, 'a number', value);
  if (typeof value === 'bigint' ? value < min || value > max : !isIntegerIn(value, min, max)) {
    throw outOfRange(name, `an integer in [${min}, ${max}]`, value);
  }
  return Number(value);
}

/** Checks an unsigned 32-bit argument. */
export const checkU32 = (value: U64, name: string): number => checkInteger(value, name, 0, 0xffff_ffff);

/** Checks a size in bytes that is held in memory: [0, 2^53). */
export const checkSize = (value: U64, name: string): number => checkInteger(value, name, 0, Number.MAX_SAFE_INTEGER);

/** Checks that an argument is a Uint8Array (a Buffer is one). */
export function checkBytes(value: Uint8Array, name: string): Uint8Array {
  if (!(value instanceof Uint8Array)) throw invalidArgType(name, 'an instance of Uint8Array', value);
  return value;
}

/** A u64 as users get it: a number where it is exact, else a bigint. */
export function normalU64(value: U64): U64 {
  if (typeof value === 'bigint') return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value;
  return value <= Number.MAX_SAFE_INTEGER ? value : BigInt(value);
}
