import { isBytes } from '../base/arguments.ts';
import { errnoName } from '../uapi/errno.ts';
import { textOfBytes } from './format.ts';
import type { KvmCalls } from './kvm-calls.ts';
import type { Names } from './names.ts';
import type { ParameterKind, Signature } from './signatures.ts';

/*
 * A trace file has a line of JSON for each call, behind a head. Numbers above 2^53 are text in hexadecimal, bytes are text as
 * `41 00*4095`, descriptors and mappings are named as in a trace that is printed: `vm#1`, `map#2+0x1000`.
 */

/** The version of the format, in the head of each file. */
export const TRACE_VERSION = 1;

/** The first line: which kernel answered. */
export interface TraceHead {
  readonly 'kvm-bridge-trace': number;
  readonly backend: KvmCalls['backend'];
  readonly arch: string;
  readonly release: string;
  readonly pageSize: number;
  /** Options of the emulated kernel that ought to answer the same. */
  readonly emulate: Readonly<Record<string, unknown>>;
}

export type TraceScalar = number | string | null;
export type TraceValue = TraceScalar | readonly TraceScalar[];

/** Pieces of memory: where each begins, and its bytes. */
export type TracePieces = readonly (readonly [offset: number, bytes: string])[];

/** A call. One that resolves later has two lines: its beginning, and its end with what came of it. */
export interface TraceCall {
  readonly call: string;
  readonly args: readonly TraceValue[];
  /** The number of a call that resolves later, in the line in which it begins, */
  readonly begins?: number;
  /** and in the line in which it ends. */
  readonly ends?: number;
  /** `0`, `-EINVAL`, or the name of what was opened or mapped. */
  readonly result?: string;
  /** What came back in the arguments that are memory, by the parameter's name. */
  readonly filled?: Readonly<Record<string, TraceValue>>;
  /** What user space had changed in memory that it shares with the kernel (kvm_run, a dirty ring), by mapping. */
  readonly before?: Readonly<Record<string, TracePieces>>;
  /** What the kernel changed there. */
  readonly after?: Readonly<Record<string, TracePieces>>;
  /** What the guest changed in its memory, by guest physical address; null where that was too much to be looked at. */
  readonly stores?: TracePieces | null;
}

const number = (value: unknown): TraceScalar =>
  typeof value === 'bigint' && value <= BigInt(Number.MAX_SAFE_INTEGER) && value >= 0n
    ? Number(value)
    : typeof value === 'number'
      ? value
      : `0x${BigInt(value as bigint).toString(16)}`;

/** An argument as a trace file has it. */
export function traceValue(kind: ParameterKind, value: unknown, names: Names): TraceValue {
  switch (kind) {
    case 'fd':
      return (value as number) < 0 ? (value as number) : names.fd(value);
    case 'hva':
      return names.hva(value);
    case 'u64s':
      return (value as readonly unknown[]).map(number);
    case 'inout64':
      return Array.from(value as BigUint64Array, number);
    case 'hvas':
      return Array.from(value as Float64Array, (hva) => names.hva(hva));
    case 'u32s':
      return [...(value as Uint32Array)];
    case 'fds':
    case 'outfds':
      return Array.from(value as Int32Array, (fd) => (fd < 0 ? fd : names.fd(fd)));
    case 'view':
      return (value as Uint8Array).length;
    case 'text':
      return value as string;
    case 'in':
    case 'out':
    case 'inout':
      return value === null ? null : textOfBytes(value as Uint8Array);
    case 'arg':
      return isBytes(value) ? textOfBytes(value) : number(value);
    default:
      return number(value);
  }
}

const FILLED_KINDS: ReadonlySet<ParameterKind> = new Set<ParameterKind>(['out', 'inout', 'inout64', 'arg', 'outfds']);

/** Whether a call may change what an argument of that kind holds. */
export const isFilled = (kind: ParameterKind): boolean => FILLED_KINDS.has(kind);

/** What a call gave: what it opened and mapped gets its name here. */
export function traceResult({ result }: Signature, value: number, args: readonly unknown[], names: Names): string {
  if (value < 0) return `-${errnoName(value)}`;
  if (result === 'hva') return names.mapped(value, Number(args[0]));
  return typeof result === 'object' ? names.opened(value, result.fd) : String(value);
}
