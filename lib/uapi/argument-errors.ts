/** Errors about arguments as Node's own functions throw them. They stand here for the functions of the ABI, which have none below them. */

import { inspect } from 'node:util';

/** A RangeError as Node's own functions throw it: `ERR_OUT_OF_RANGE`. */
export function outOfRange(name: string, range: string, actual: unknown): RangeError {
  const error = new RangeError(
    `The value of "${name}" is out of range. It must be ${range}. Received ${shown(actual)}`,
  );
  return Object.assign(error, { code: 'ERR_OUT_OF_RANGE' });
}

/** What a caller's own function gave back is of no use: `ERR_INVALID_RETURN_VALUE`, as Node's own functions throw it. */
export function invalidReturnValue(expected: string, of: string, actual: unknown): TypeError {
  const error = new TypeError(`Expected ${expected} to be returned from ${of} but got ${kindOf(actual)}`);
  return Object.assign(error, { code: 'ERR_INVALID_RETURN_VALUE' });
}

/**
 * A TypeError as Node's own functions throw it: `ERR_INVALID_ARG_TYPE`.
 * @param note what else is to be said of the value
 */
export function invalidArgType(name: string, expected: string, actual: unknown, note = ''): TypeError {
  const error = new TypeError(`The "${name}" argument must be ${expected}. Received ${kindOf(actual)}${note}`);
  return Object.assign(error, { code: 'ERR_INVALID_ARG_TYPE' });
}

/** A TypeError as Node's own functions throw it of options: `ERR_INVALID_ARG_VALUE`. */
export function unknownOption(name: string, option: string, known: readonly string[]): TypeError {
  const error = new TypeError(`The property "${name}.${option}" is unknown. It must be one of ${known.join(', ')}`);
  return Object.assign(error, { code: 'ERR_INVALID_ARG_VALUE' });
}

function kindOf(actual: unknown): string {
  if (actual === undefined || actual === null) return String(actual);
  return typeof actual === 'object'
    ? `an instance of ${className(actual)}`
    : `type ${typeof actual} (${shown(actual)})`;
}

/** The name of an object's class, whatever its getters do. */
function className(actual: object): string {
  try {
    return String(actual.constructor?.name ?? 'Object');
  } catch {
    return 'Object';
  }
}

/**
 * What is to be said of a value that is of a class of ours by its name, and yet no instance of it; nothing of others.
 * @param name the class that was expected
 */
export function ofOtherCopy(value: unknown, name: string): string {
  return hasClass(value, name)
    ? ', which is of another copy of kvm-bridge: one in another folder, or its CommonJS beside its ES module'
    : '';
}

/** Whether a value's class, or one that it extends, has a name. */
function hasClass(value: unknown, name: string): boolean {
  try {
    for (let at = Object.getPrototypeOf(value); at !== null; at = Object.getPrototypeOf(at))
      if (className(at) === name) return true;
  } catch {
    // No object, or one whose traps throw.
  }
  return false;
}

/** A value as it is printed, whatever its own way of printing itself does. */
function shown(actual: unknown): string {
  if (typeof actual === 'bigint' || typeof actual === 'number') return String(actual);
  return inspect(actual, { customInspect: false, depth: 1, maxArrayLength: 4, maxStringLength: 64 });
}

/** Checks a number of the ABI: one of 32 bits, signed or not. */
export function checkWord(value: number, name: string): number {
  if (typeof value !== 'number') throw invalidArgType(name, 'a number', value);
  if ((value | 0) !== value && value >>> 0 !== value) {
    throw outOfRange(name, 'an integer of 32 bits', value);
  }
  return value;
}

/** Checks that a name is one of those that there are. */
export function checkKnown<T extends string>(value: T, name: string, known: object): T {
  if (typeof value !== 'string') throw invalidArgType(name, 'a string', value);
  if (!Object.hasOwn(known, value)) throw outOfRange(name, `one of ${Object.keys(known).join(', ')}`, value);
  return value;
}

/** Checks a number of 64 bits, signed or not. */
export function checkWide(value: number | bigint, name: string): number | bigint {
  if (typeof value === 'bigint') {
    if (value >= -(1n << 63n) && value >> 64n <= 0n) return value;
  } else if (typeof value !== 'number') {
    throw invalidArgType(name, 'a number or bigint', value);
  } else if (Math.trunc(value) === value && Math.abs(value) < 2 ** 53) {
    return value;
  }
  throw outOfRange(name, 'an integer of 64 bits, as a number below 2^53', value);
}
