import { checkInteger, checkU64, isExact } from '../base/arguments.ts';
import { outOfRange } from '../base/errors.ts';
import type { U64 } from '../base/u64.ts';

// The comparison that a value in range passes is all that a write costs; the error is made elsewhere.

export function checkU8(value: number): void {
  if ((value & 0xff) !== value) checkInteger(value, 'value', 0, 0xff);
}

export function checkI8(value: number): void {
  if ((value << 24) >> 24 !== value) checkInteger(value, 'value', -0x80, 0x7f);
}

export function checkU16(value: number): void {
  if ((value & 0xffff) !== value) checkInteger(value, 'value', 0, 0xffff);
}

export function checkI16(value: number): void {
  if ((value << 16) >> 16 !== value) checkInteger(value, 'value', -0x8000, 0x7fff);
}

export function checkU32Value(value: number): void {
  if (value >>> 0 !== value) checkInteger(value, 'value', 0, 0xffff_ffff);
}

export function checkI32(value: number): void {
  if ((value | 0) !== value) checkInteger(value, 'value', -0x8000_0000, 0x7fff_ffff);
}

export function checkU64Value(value: U64): void {
  checkU64(value, 'value');
}

const MIN_I64 = -(1n << 63n);
const MAX_I64 = (1n << 63n) - 1n;

/** A signed 64-bit value as a bigint. */
export function checkI64(value: U64): bigint {
  if (typeof value === 'number' && !isExact(value)) {
    throw outOfRange('value', 'a safe integer, or a bigint in [-2^63, 2^63)', value);
  }
  const wide = BigInt(value);
  if (wide < MIN_I64 || wide > MAX_I64) throw outOfRange('value', 'a bigint in [-2^63, 2^63)', value);
  return wide;
}
