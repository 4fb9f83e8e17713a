import { outOfRange } from './errors.ts';

/**
 * 64-bit values as the models and the books handle them: two unsigned 32-bit halves, so that hot paths need no
 * bigint; bigint is for the edges.
 */

/** The upper 32 bits of a u64. */
export const highHalf = (value: bigint): number => Number((value >> 32n) & 0xffff_ffffn);

/** The lower 32 bits of a u64. */
export const lowHalf = (value: bigint): number => Number(value & 0xffff_ffffn);

/** The u64 made of two halves, which may be signed or unsigned. */
export const fromHalves = (hi: number, lo: number): bigint => (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);

/** `0x` and 16 hex digits, as addresses and table entries are printed. */
export const hex64 = (value: bigint): string => `0x${value.toString(16).padStart(16, '0')}`;

/**
 * A u64 from what a user gave: a bigint of 0 to 2^64 − 1, or an integer number of 0 to 2^53 − 1 (larger numbers may
 * have been rounded already).
 * @throws RangeError ERR_OUT_OF_RANGE
 */
export function toU64(value: number | bigint, name: string): bigint {
  if (typeof value === 'number' && !Number.isSafeInteger(value)) {
    throw outOfRange(name, 'an integer of at most 2^53 - 1, or a bigint', value);
  }
  const wide = BigInt(value);
  if (wide < 0n || wide >> 64n !== 0n) throw outOfRange(name, '>= 0 and < 2^64', value);
  return wide;
}
