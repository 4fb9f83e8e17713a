/** A 64-bit unsigned value as callers may give it: a safe integer ≥ 0, or a bigint in [0, 2^64). Never rounded. */
export type U64 = number | bigint;

/** A user-space address: what `mmap` returned plus an offset, or any number a caller wants the kernel to refuse. */
export type Hva = U64;

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
