/**
 * 64-bit values as the walk handles them: two unsigned 32-bit halves, and addresses as a page frame number with an
 * offset. A frame number of a 64-bit address is below 2^52 and so exact in a number; bigint is for the edges.
 */

import { outOfRange } from '../errors.ts';

/** Number of 4 KiB frames in a 64-bit address space. */
export const PFN_LIMIT = 2 ** 52;

/** The upper 32 bits of a u64. */
export const highHalf = (value: bigint): number => Number((value >> 32n) & 0xffff_ffffn);

/** The lower 32 bits of a u64. */
export const lowHalf = (value: bigint): number => Number(value & 0xffff_ffffn);

/** The u64 made of two halves, which may be signed or unsigned. */
export const fromHalves = (hi: number, lo: number): bigint => (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);

/** The page frame number of the address with these halves; its low 12 bits are dropped. */
export const pfnOf = (hi: number, lo: number): number => (hi >>> 0) * 0x10_0000 + (lo >>> 12);

/** The address of a byte of a frame. */
export const addressOf = (pfn: number, offset = 0): bigint => (BigInt(pfn) << 12n) | BigInt(offset);

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
