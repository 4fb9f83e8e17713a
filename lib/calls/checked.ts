import { checkInstance, checkInteger, checkU64, isBytes, isIntegerIn } from '../base/arguments.ts';
import { invalidArgType, outOfRange } from '../base/errors.ts';
import type { U64 } from '../base/u64.ts';
import type { KvmCalls } from './kvm-calls.ts';
import { type ParameterKind, signaturesOf } from './signatures.ts';
import { wrapCalls } from './wrapped.ts';

type AnyCall = (...args: readonly unknown[]) => unknown;

const MIN_I32 = -0x8000_0000;
const MAX_I32 = 0x7fff_ffff;
const MAX_U32 = 0xffff_ffff;

/**
 * The same calls with their argument types checked first: what isn't a value of the parameter's type at all throws
 * `ERR_INVALID_ARG_TYPE` or `ERR_OUT_OF_RANGE`, as Node's own functions do. Everything the structure can hold goes to
 * the kernel, which knows better. This stands in front of the emulated kernel alone: the addon, which must not crash
 * whatever it gets, looks at its arguments itself (native/arguments.cc), and with this in front of it the cheapest ioctl
 * took 490 ns where it takes 200. One test gives both the same wrong arguments: test/unit/calls/checked.test.ts.
 */
export function checked(calls: KvmCalls): KvmCalls {
  return wrapCalls(calls, checkGroup);
}

/** What a parameter takes that is not told by how it is recorded. */
type Particular = 'word' | 'bytes' | 'milliseconds';

const PARTICULAR: Readonly<Record<string, Particular | undefined>> = {
  // A descriptor inside a structure: any 32 bits.
  'setUserMemoryRegion2.guestMemfd': 'word',
  'ioeventfd.fd': 'word',
  'irqfd.fd': 'word',
  'irqfd.resamplefd': 'word',
  // No pointer, but memory that must be there.
  'read.into': 'bytes',
  'write.from': 'bytes',
  'readMemory.into': 'bytes',
  'writeMemory.from': 'bytes',
  'gather.into': 'bytes',
  'scatter.from': 'bytes',
  'uffdCopy.from': 'bytes',
  'pagemapScan.bitmap': 'bytes',
  'keyOp.key': 'bytes',
  'run.timeoutMs': 'milliseconds',
};

function checkGroup(target: object, group: Parameters<typeof signaturesOf>[0]): Record<string, AnyCall> {
  const methods = target as Record<string, AnyCall>;
  const wrapped: Record<string, AnyCall> = {};
  for (const [name, { parameters }] of Object.entries(signaturesOf(group))) {
    const names = parameters.map(([parameter]) => parameter);
    const kinds = parameters.map(([parameter, kind]) => PARTICULAR[`${name}.${parameter}`] ?? kind);
    const ranges = kinds.map(rangeOf);
    wrapped[name] = (...args) => {
      for (let i = 0; i < kinds.length; i++) {
        const value = args[i];
        const { min, max } = ranges[i]!;
        // What almost all are, without a look at the kind.
        if (typeof value === 'number' && isIntegerIn(value, min, max)) continue;
        checkArgument(names[i]!, kinds[i]!, value);
      }
      return methods[name]!.apply(target, args as unknown[]);
    };
  }
  return wrapped;
}

/** The numbers that a kind takes, ends included. */
interface NumberRange {
  readonly min: number;
  readonly max: number;
}

const NO_NUMBERS: NumberRange = { min: Number.NaN, max: Number.NaN };

const RANGES: Readonly<Partial<Record<ParameterKind | Particular, NumberRange>>> = {
  word: { min: MIN_I32, max: MAX_U32 },
  fd: { min: MIN_I32, max: MAX_I32 },
  i32: { min: MIN_I32, max: MAX_I32 },
  u32: { min: 0, max: MAX_U32 },
  x32: { min: 0, max: MAX_U32 },
  u64: { min: 0, max: Number.MAX_SAFE_INTEGER },
  x64: { min: 0, max: Number.MAX_SAFE_INTEGER },
  hva: { min: 0, max: Number.MAX_SAFE_INTEGER },
};

const rangeOf = (kind: ParameterKind | Particular): NumberRange => RANGES[kind] ?? NO_NUMBERS;

function checkArgument(name: string, kind: ParameterKind | Particular, value: unknown): void {
  switch (kind) {
    case 'bytes':
      checkInstance(value as Uint8Array, name, Uint8Array);
      return;
    case 'view':
      checkInstance(value as Uint8Array, name, Uint8Array);
      return;
    case 'milliseconds':
      if (typeof value !== 'number') throw invalidArgType(name, 'of type number', value);
      if (!(value >= 0)) throw outOfRange(name, '>= 0', value);
      return;
    case 'word':
    case 'fd':
    case 'i32':
    case 'u32':
    case 'x32':
      checkNumber(name, value, rangeOf(kind));
      return;
    case 'u64':
    case 'x64':
    case 'hva':
      checkU64(value as U64, name);
      return;
    case 'u64s':
      if (!Array.isArray(value)) throw invalidArgType(name, 'an array of numbers or bigints', value);
      if (value.length > 4) throw outOfRange(`${name}.length`, '>= 0 && <= 4', value.length);
      for (const [i, word] of value.entries()) checkU64(word as U64, `${name}[${i}]`);
      return;
    case 'in':
    case 'out':
    case 'inout':
      if (value !== null && !isBytes(value)) {
        throw invalidArgType(name, 'an instance of Uint8Array, or null', value);
      }
      return;
    case 'inout64':
      checkInstance(value as BigUint64Array, name, BigUint64Array);
      return;
    case 'hvas':
      checkInstance(value as Float64Array, name, Float64Array);
      return;
    case 'u32s':
      checkInstance(value as Uint32Array, name, Uint32Array);
      return;
    case 'fds':
    case 'outfds':
      checkInstance(value as Int32Array, name, Int32Array);
      return;
    case 'text':
      if (typeof value !== 'string') throw invalidArgType(name, 'of type string', value);
      return;
    case 'arg':
      if (!isBytes(value)) checkU64(value as U64, name);
  }
}

/** An integer as the call takes it: a bigint is none. */
function checkNumber(name: string, value: unknown, { min, max }: NumberRange): void {
  if (typeof value !== 'number') throw invalidArgType(name, 'of type number', value);
  checkInteger(value, name, min, max);
}
