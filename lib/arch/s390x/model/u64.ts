/**
 * 64-bit values as the walk handles them: two unsigned 32-bit halves, and addresses as a page frame number with an
 * offset. A frame number of a 64-bit address is below 2^52 and so exact in a number; bigint is for the edges.
 */

import { highHalf, lowHalf, type U64 } from '../../../base/u64.ts';

export { fromHalves, hex64, highHalf, lowHalf } from '../../../base/u64.ts';

/** Number of 4 KiB frames in a 64-bit address space. */
export const PFN_LIMIT = 2 ** 52;

/** The page frame number of the address with these halves; its low 12 bits are dropped. */
export const pfnOf = (hi: number, lo: number): number => (hi >>> 0) * 0x10_0000 + (lo >>> 12);

/** The address of a byte of a frame. */
export const addressOf = (pfn: number, offset = 0): bigint => (BigInt(pfn) << 12n) | BigInt(offset);

/** The halves of an address however it is given; a number costs no bigint. */
export const highHalfOf = (address: U64): number =>
  typeof address === 'number' ? Math.floor(address / 2 ** 32) : highHalf(address);
export const lowHalfOf = (address: U64): number => (typeof address === 'number' ? address >>> 0 : lowHalf(address));
