import { checkU64, isExact } from '../base/arguments.ts';
import { invalidArgType, outOfRange } from '../base/errors.ts';
import type { U64 } from '../base/u64.ts';

// The comparison that a value in range passes is all that a write costs; the error is made elsewhere.

export function checkU8(value: number): void {
  if (typeof value !== 'number' || (value & 0xff) !== value) refuse(value, 0, 0xff);
}

export function checkI8(value: number): void {
  if (typeof value !== 'number' || (value << 24) >> 24 !== value) refuse(value, -0x80, 0x7f);
}

export function checkU16(value: number): void {
  if (typeof value !== 'number' || (value & 0xffff) !== value) refuse(value, 0, 0xffff);
}

export function checkI16(value: number): void {
  if (typeof value !== 'number' || (value << 16) >> 16 !== value) refuse(value, -0x8000, 0x7fff);
}

export function checkU32Value(value: number): void {
  if (typeof value !== 'number' || value >>> 0 !== value) refuse(value, 0, 0xffff_ffff);
}

export function checkI32(value: number): void {
  if (typeof value !== 'number' || (value | 0) !== value) refuse(value, -0x8000_0000, 0x7fff_ffff);
}

export function checkU64Value(value: U64): void {
  checkU64(value, 'value');
}

/** Says why a value that isn't a number in a range is none. */
function refuse(value: number, min: number, max: number): never {
  if (typeof value !== 'number') throw invalidArgType('value', 'a number', value);
  throw outOfRange('value', `an integer in [${min}, ${max}]`, value);
}

const MIN_I64 = -(1n << 63n);
const MAX_I64 = (1n << 63n) - 1n;

/** A signed 64-bit value as a bigint. */
export function checkI64(value: U64): bigint {
  if (typeof value === 'number' && !isExact(value)) {
    throw outOfRange('value', 'a safe integer, or a bigint in [-2^63, 2^63)', value);
  }
  if (typeof value !== 'number' && typeof value !== 'bigint')
    throw invalidArgType('value', 'a number or bigint', value);
  const wide = BigInt(value);
  if (wide < MIN_I64 || wide > MAX_I64) throw outOfRange('value', 'a bigint in [-2^63, 2^63)', value);
  return wide;
}
