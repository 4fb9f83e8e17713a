import { inspect } from 'node:util';
import {
  isBigUint64Array,
  isFloat64Array,
  isInt32Array,
  isNativeError,
  isUint8Array,
  isUint32Array,
} from 'node:util/types';
import { invalidArgType, ofOtherCopy, outOfRange, unknownOption } from './errors.ts';
import type { U64 } from './u64.ts';

/** Whether a number is whole and in [min, max]. */
export const isIntegerIn = (value: number, min: number, max: number): boolean =>
  Number.isInteger(value) && value >= min && value <= max;

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

/** Checks a whole number in [min, max]. A bigint is none: it is only for what may have 64 bits. */
export function checkInteger(value: number, name: string, min: number, max: number): number {
  if (typeof value !== 'number') throw invalidArgType(name, 'a number', value);
  if (!isIntegerIn(value, min, max)) {
    throw outOfRange(name, `an integer in [${min}, ${max}]`, value);
  }
  return value;
}

/** Checks an array of at most `most` 64-bit values, and gives a copy of it: a getter may say something else the next time. */
export function checkU64s(values: readonly U64[], name: string, most: number): readonly U64[] {
  if (!Array.isArray(values)) throw invalidArgType(name, 'an array of numbers or bigints', values);
  if (values.length > most) throw outOfRange(`${name}.length`, `at most ${most}`, values.length);
  return Array.from(values as readonly U64[], (value, index) => checkU64(value, `${name}[${index}]`));
}

/** Checks a number that may have a fraction, or be without end. */
export function checkAtLeast(value: number, name: string, min: number): number {
  if (typeof value !== 'number') throw invalidArgType(name, 'a number', value);
  if (!(value >= min)) throw outOfRange(name, `at least ${min}`, value);
  return value;
}

/** Checks an unsigned 32-bit argument. */
export const checkU32 = (value: number, name: string): number => checkInteger(value, name, 0, 0xffff_ffff);

/** Checks half of a 64-bit value: 32 bits, signed or not, as operators give them. */
export const checkHalf = (value: number, name: string): number =>
  isHalf(value) ? value : checkInteger(value, name, -0x8000_0000, 0xffff_ffff);

/** Whether it is one; so short that the engine makes it a part of whoever asks. */
export const isHalf = (value: number): boolean =>
  typeof value === 'number' && ((value | 0) === value || value >>> 0 === value);

/** Checks a 64-bit value that must be a bigint. */
export function checkBigU64(value: bigint, name: string): bigint {
  if (typeof value !== 'bigint') throw invalidArgType(name, 'a bigint', value);
  checkU64(value, name);
  return value;
}

/** Checks a size in bytes that is held in memory: [0, 2^53). */
export const checkSize = (value: number, name: string): number => checkInteger(value, name, 0, Number.MAX_SAFE_INTEGER);

/**
 * Classes of the language, and whether a value is of one in any realm: a context of node:vm, or a test of jest, has classes of its
 * own, of which `instanceof` knows nothing.
 */
const IN_ANY_REALM: ReadonlyMap<unknown, (value: unknown) => boolean> = new Map<unknown, (value: unknown) => boolean>([
  [Uint8Array, isUint8Array],
  [Uint32Array, isUint32Array],
  [Int32Array, isInt32Array],
  [Float64Array, isFloat64Array],
  [BigUint64Array, isBigUint64Array],
  [Array, Array.isArray],
]);

/** Whether a value is a Uint8Array, of whatever realm. */
export const isBytes = (value: unknown): value is Uint8Array => value instanceof Uint8Array || isUint8Array(value);

/** Whether a value is an Error, of whatever realm. */
export const isError = (value: unknown): value is Error => value instanceof Error || isNativeError(value);

/** Checks that an argument is a Uint8Array (a Buffer is one), of memory that is still there. */
export function checkBytes(value: Uint8Array, name: string): Uint8Array {
  return checkThere(checkInstance(value, name, Uint8Array), name, 'a Uint8Array');
}

/** Checks that an argument is a Float64Array, of memory that is still there. */
export function checkDoubles(value: Float64Array, name: string): Float64Array {
  return checkThere(checkInstance(value, name, Float64Array), name, 'a Float64Array');
}

/**
 * Checks that a view's memory is there: that its buffer was not transferred, or made so short that the view fell out of it, and its mapping has
 * not gone. Such a view has no elements; its `length` isn't asked, since compiled code that has met views of resizable buffers takes that of before
 * for an array that was detached (V8 in Node 20 and 22), nor its `byteLength`, which is a call.
 */
export function checkThere<T extends NodeJS.TypedArray>(value: T, name: string, what: string): T {
  if (value[0] === undefined && isGone(value)) {
    throw invalidArgType(name, `${what} whose memory is still there`, value);
  }
  return value;
}

function isGone(view: NodeJS.TypedArray): boolean {
  try {
    Uint8Array.prototype.at.call(view as Uint8Array, 0);
    return false;
  } catch {
    return true;
  }
}

/** New bytes, all 0. @throws RangeError ERR_OUT_OF_RANGE for more than there can be, or than there is memory for */
export function newBytes(size: number, name: string): Uint8Array {
  checkSize(size, name);
  try {
    return new Uint8Array(size);
  } catch {
    throw outOfRange(name, 'a number of bytes that this process can allocate', size);
  }
}

/** The bytes to read into: the caller's, or new ones of a length. */
export function bytesFor(lengthOrInto: number | Uint8Array, name: string): Uint8Array {
  if (typeof lengthOrInto === 'number') return newBytes(lengthOrInto, name);
  if (isBytes(lengthOrInto)) return checkBytes(lengthOrInto, name);
  throw invalidArgType(name, 'a number or an instance of Uint8Array', lengthOrInto);
}

/** Checks an object that has properties: options, a structure's fields, handlers. */
export function checkObject<T extends object>(value: T, name: string): T {
  if (typeof value !== 'object' || value === null) throw invalidArgType(name, 'an object', value);
  return value;
}

/** The names of all properties that an object may have. */
export type NamesOf<T> = { readonly [Name in keyof T]-?: true };

/**
 * Checks that there are no options but these: one that is misspelt would do nothing, and nobody would know. What an object
 * inherits may be more: an AbortController has a signal, too.
 */
export function checkOptions<T extends object>(options: T, names: NamesOf<T>, name = 'options'): T {
  for (const key in checkObject(options, name))
    if (names[key] !== true && Object.hasOwn(options, key)) throw unknownOption(name, key, Object.keys(names));
  return options;
}

/** The same as an object of ours, with what was not left out: each is read once, though it be inherited, or a class's getter. */
export function takeOptions<T extends object>(options: T, names: NamesOf<T>, name = 'options'): T {
  checkOptions(options, names, name);
  const taken: { -readonly [Name in keyof T]?: T[Name] } = {};
  for (const key in names) {
    const value = options[key];
    if (value !== undefined) taken[key] = value;
  }
  return taken as T;
}

/** Checks an object of somebody's that has methods. */
export function checkMethods<T extends object, K extends keyof T & (string | symbol)>(
  value: T,
  name: string,
  methods: readonly K[],
): T {
  checkObject(value, name);
  for (const method of methods)
    if (typeof value[method] !== 'function') throw notFunction(`${name}.${String(method)}`, value[method]);
  return value;
}

const notFunction = (name: string, value: unknown): TypeError => invalidArgType(name, 'a function', value);

/** A class, whoever may make instances of it. */
interface Class<T> {
  readonly name: string;
  readonly prototype: T;
  [Symbol.hasInstance](value: unknown): boolean;
}

export function checkInstance<T extends object>(value: T, name: string, of: Class<T>): T {
  if (value instanceof of) return value;
  const isOfRealm = IN_ANY_REALM.get(of);
  if (isOfRealm?.(value) === true) return value;
  const note = isOfRealm === undefined ? ofOtherCopy(value, of.name) : '';
  throw invalidArgType(name, `an instance of ${of.name}`, value, note);
}

/** Checks an array of instances of a class. */
export function checkInstances<T extends object>(values: readonly T[], name: string, of: Class<T>): readonly T[] {
  if (!Array.isArray(values)) throw invalidArgType(name, `an array of instances of ${of.name}`, values);
  for (const [index, value] of values.entries()) checkInstance(value as T, `${name}[${index}]`, of);
  return values;
}

export function checkBoolean(value: boolean, name: string): boolean {
  if (typeof value !== 'boolean') throw invalidArgType(name, 'true or false', value);
  return value;
}

export function checkText(value: string, name: string): string {
  if (typeof value !== 'string') throw invalidArgType(name, 'a string', value);
  return value;
}

/** Checks a name that may be left out. */
export const checkName = (value: string | undefined, name: string): string | undefined =>
  value === undefined ? undefined : checkText(value, name);

export function checkFunction<T extends (...args: never[]) => unknown>(value: T, name: string): T {
  if (typeof value !== 'function') throw notFunction(name, value);
  return value;
}

/** Checks a function that may be left out. */
export function checkCallback<T extends (...args: never[]) => unknown>(
  value: T | undefined,
  name: string,
): T | undefined {
  return value === undefined ? undefined : checkFunction(value, name);
}

export function checkOneOf<T>(value: T, name: string, known: readonly T[]): T {
  if (known.includes(value)) return value;
  throw outOfRange(name, `one of ${known.map((one) => inspect(one)).join(', ')}`, value);
}

/** Checks an AbortSignal that may be left out. */
export function checkSignal(value: AbortSignal | undefined, name: string): AbortSignal | undefined {
  if (value === undefined) return undefined;
  if (!(value instanceof AbortSignal || isSignal(value)))
    throw invalidArgType(name, 'an instance of AbortSignal', value);
  return value;
}

/** Whether something has all of a signal that is used: that of another realm's, or of a library's. */
function isSignal(value: Partial<AbortSignal> | null): boolean {
  return (
    typeof value === 'object' &&
    value !== null &&
    typeof value.aborted === 'boolean' &&
    typeof value.throwIfAborted === 'function' &&
    typeof value.addEventListener === 'function' &&
    typeof value.removeEventListener === 'function'
  );
}

/** A u64 as users get it: a number where it is exact, else a bigint. */
export function normalU64(value: U64): U64 {
  if (typeof value === 'bigint') return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value;
  return value <= Number.MAX_SAFE_INTEGER ? value : BigInt(value);
}
