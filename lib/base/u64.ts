/** A 64-bit unsigned value as callers may give it: a safe integer ≥ 0, or a bigint in [0, 2^64). Never rounded. */
export type U64 = number | bigint;

/** A user-space address: what `mmap` returned plus an offset, or any number a caller wants the kernel to refuse. */
export type Hva = U64;

/**
 * 64-bit values as the models and the books handle them: two unsigned 32-bit halves, so that hot paths need no
 * bigint; bigint is for the edges.
 */

// Through memory: shifts and masks of bigints make a new one each, and take ten times as long.
const wide = new BigUint64Array(1);
const halves = new Uint32Array(wide.buffer);
wide[0] = 1n;
/** Where the lower half is; the upper one is the other. */
const LOW = halves[0] === 1 ? 0 : 1;

/** The upper 32 bits of a u64. */
export function highHalf(value: bigint): number {
  wide[0] = value;
  return halves[1 - LOW]!;
}

/** The lower 32 bits of a u64. */
export function lowHalf(value: bigint): number {
  wide[0] = value;
  return halves[LOW]!;
}

/** The u64 made of two halves, which may be signed or unsigned. */
export function fromHalves(hi: number, lo: number): bigint {
  halves[1 - LOW] = hi;
  halves[LOW] = lo;
  return wide[0]!;
}

/** `0x` and 16 hex digits, as addresses and table entries are printed. */
export const hex64 = (value: bigint): string => `0x${value.toString(16).padStart(16, '0')}`;
