import { checkU64 } from '../base/arguments.ts';
import { outOfRange } from '../base/errors.ts';
import type { U64 } from '../base/u64.ts';

/** The smallest page of any architecture: what the `page` of a split address is a multiple of. */
export const MIN_PAGE = 4096;

/**
 * A guest physical address in two doubles that are exact over all 64 bits: a multiple of 4096, and the rest, which
 * may grow as a copy goes on.
 */
export interface SplitGpa {
  page: number;
  rest: number;
}

/** Splits an address. @throws RangeError, TypeError as {@link checkU64} does */
export function splitGpa(gpa: U64, name = 'gpa'): SplitGpa {
  checkU64(gpa, name);
  if (typeof gpa === 'number') {
    const rest = gpa % MIN_PAGE;
    return { page: gpa - rest, rest };
  }
  const rest = Number(gpa & 0xfffn);
  return { page: Number(gpa - BigInt(rest)), rest };
}

/** Moves an address on, keeping both parts exact. */
export function advance(gpa: SplitGpa, bytes: number): void {
  const rest = gpa.rest + bytes;
  const within = rest % MIN_PAGE;
  gpa.page += rest - within;
  gpa.rest = within;
}

/** The address of a split one: a number where that is exact. */
export function joinGpa({ page, rest }: SplitGpa): U64 {
  const sum = page + rest;
  return sum <= Number.MAX_SAFE_INTEGER ? sum : BigInt(page) + BigInt(rest);
}

/**
 * An address as a double: exact for every page boundary, and for every byte below 2^53.
 * @throws RangeError when it is neither
 */
export function exactGpa(gpa: U64, name = 'gpa'): number {
  const { page, rest } = splitGpa(gpa, name);
  const sum = page + rest;
  if (sum - page !== rest) throw outOfRange(name, 'a multiple of 4096 when it is 2^53 or more', gpa);
  return sum;
}

/**
 * The end of a range of bytes as a double, exact likewise.
 * @throws RangeError when it is not: beyond 2^53 a range is made of whole 4096-byte pages
 */
export function exactEnd(gpa: U64, size: number, name = 'gpa'): number {
  const start = exactGpa(gpa, name);
  const end = start + size;
  if (end > Number.MAX_SAFE_INTEGER && (start % MIN_PAGE !== 0 || size % MIN_PAGE !== 0)) {
    throw outOfRange('size', `a multiple of 4096, and so ${name}, when the range ends at 2^53 or beyond`, size);
  }
  return end;
}
