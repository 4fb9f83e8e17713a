import { types } from 'node:util';
import { checkBoolean, checkFunction, checkMethods, checkOptions, isBytes } from '../base/arguments.ts';
import { callBack } from '../base/callback.ts';
import type { SymbolSet } from '../uapi/symbols.ts';
import { formatBytes } from './format.ts';
import { hostOf, type KvmCalls } from './kvm-calls.ts';
import { hexText as hex, Names, type TraceObserver } from './names.ts';
import { type ParameterKind, type Signature, signaturesOf } from './signatures.ts';
import { EXIT_BYTES, exitText } from './structures.ts';
import { traceResult } from './trace-file.ts';
import { wrapCalls } from './wrapped.ts';

/** Gets one line for each call that was made, when it has returned. What it throws is thrown later, in a task of its own. */
export type TraceSink = (line: string) => void;

export interface TraceOptions {
  readonly observer?: TraceObserver;
  /** Capabilities, flags, operations, requests, their structures, and exits by name, for people; recordings keep the numbers. */
  readonly symbols?: boolean;
}

type AnyCall = (...args: readonly unknown[]) => unknown;

/**
 * The same calls, each noted as one line: the call, its result and the bytes it filled. Descriptors and host addresses
 * are named in the order of their appearance (`vm#1`, `map#2+0x1000`), so that two runs of one program compare equal
 * wherever the kernels answered the same. This is the recorder of the scenarios and, with `symbols`, the user's strace.
 *
 * @example
 * const calls = traced(new EmulatedKernel({ arch: 'x86_64' }), console.error);
 * calls.createVm(calls.openKvm(), 0);
 * // openKvm() = kvm#1
 * // createVm(kvm#1, 0) = vm#1
 */
export function traced(calls: KvmCalls, sink: TraceSink, options: TraceOptions = {}): KvmCalls {
  checkFunction(sink, 'sink');
  const { observer, symbols = false } = checkOptions(options, { observer: true, symbols: true });
  if (observer !== undefined) checkMethods(observer, 'options.observer', ['opened', 'closed', 'mapped', 'unmapped']);
  checkBoolean(symbols, 'options.symbols');
  const { arch } = hostOf(calls);
  const names = new Names(observer, symbols ? arch : undefined);
  const exits = symbols ? new RunAreas(calls) : undefined;
  return wrapCalls(calls, (target, group) => wrapGroup(target, group, names, sink, exits));
}

function wrapGroup(
  target: object,
  group: Parameters<typeof signaturesOf>[0],
  names: Names,
  sink: TraceSink,
  exits?: RunAreas,
): Record<string, AnyCall> {
  const methods = target as Record<string, AnyCall>;
  const wrapped: Record<string, AnyCall> = {};
  for (const [name, signature] of Object.entries(signaturesOf(group))) {
    wrapped[name] = (...args) => {
      const before = signature.parameters.map(([, kind, set], i) => formatArgument(kind, args[i], names, set, args[1]));
      const note = (result: unknown): void => {
        // What a call leaves in its buffers counts only where it says that it succeeded.
        const filled = typeof result === 'number' && result < 0 ? [] : formatFilled(signature, args, before, names);
        if (exits !== undefined) filled.push(...exits.after(name, args, result));
        const tail = filled.length === 0 ? '' : ` -> ${filled.join(', ')}`;
        callBack(sink, `${name}(${before.join(', ')}) = ${formatResult(signature, result, args, names)}${tail}`);
        if (name === 'close' && result === 0) names.closed(args[0] as number);
        if (name === 'munmap' && result === 0) names.unmapped(Number(args[0]), Number(args[1]));
      };
      const result = methods[name]!.apply(target, args as unknown[]);
      if (types.isPromise(result)) {
        return result.then((value: unknown) => {
          note(value);
          return value;
        });
      }
      note(result);
      return result;
    };
  }
  return wrapped;
}

/** Where the vCPUs' kvm_run areas are mapped, to see what a run ended with. */
class RunAreas {
  readonly #calls: KvmCalls;
  readonly #hvas = new Map<number, number>();

  constructor(calls: KvmCalls) {
    this.#calls = calls;
  }

  /** Notes what a call means for the areas; after a run, what its exit was. */
  after(name: string, args: readonly unknown[], result: unknown): string[] {
    if (typeof result !== 'number') return [];
    if (name === 'mmap' && result >= 0 && Number(args[4]) === 0) this.#hvas.set(args[3] as number, result);
    if (name === 'munmap' || name === 'close') this.#forget(name, args[0] as number);
    if ((name !== 'run' && name !== 'runAsync') || result < 0) return [];
    const hva = this.#hvas.get(args[0] as number);
    const area = new Uint8Array(EXIT_BYTES);
    if (hva === undefined || this.#calls.readMemory(hva, area) !== area.length) return [];
    return [`exit ${exitText(area, this.#calls.arch)}`];
  }

  #forget(name: 'munmap' | 'close', what: number): void {
    for (const [fd, hva] of this.#hvas) if (what === (name === 'close' ? fd : hva)) this.#hvas.delete(fd);
  }
}

function formatArgument(
  kind: ParameterKind,
  value: unknown,
  names: Names,
  set: SymbolSet | undefined,
  request: unknown,
): string {
  const named = set === undefined ? undefined : names.symbolic(set, value);
  if (named !== undefined) return named;
  switch (kind) {
    case 'fd':
      return names.fd(value);
    case 'x32':
    case 'x64':
      return hex(value);
    case 'hva':
      return names.hva(value);
    case 'u64s':
      return `[${(value as readonly unknown[]).map(hex).join(', ')}]`;
    case 'inout64':
      return `[${Array.from(value as BigUint64Array, hex).join(', ')}]`;
    case 'hvas':
      return `[${Array.from(value as Float64Array, (hva) => names.hva(hva)).join(', ')}]`;
    case 'u32s':
      return `[${(value as Uint32Array).join(', ')}]`;
    case 'fds':
      return `[${Array.from(value as Int32Array, (fd) => names.fd(fd)).join(', ')}]`;
    case 'view':
      return `${(value as Uint8Array).length} bytes of memory`;
    case 'outfds':
      return `${(value as Int32Array).length} descriptors`;
    case 'text':
      return JSON.stringify(value);
    case 'in':
    case 'inout':
      return value === null ? 'NULL' : formatBytes(value as Uint8Array);
    case 'out':
      return value === null ? 'NULL' : `${(value as Uint8Array).length} bytes`;
    case 'arg':
      return isBytes(value) ? (names.structure(request, value) ?? formatBytes(value)) : hex(value);
    default:
      return String(value);
  }
}

function formatFilled(
  signature: Signature,
  args: readonly unknown[],
  before: readonly string[],
  names: Names,
): string[] {
  return signature.parameters.flatMap(([name, kind], i) => {
    const value = args[i];
    if (kind === 'inout64') {
      const after = `[${Array.from(value as BigUint64Array, hex).join(', ')}]`;
      return after === before[i] ? [] : [`${name} ${after}`];
    }
    if (kind === 'outfds') {
      const fds = Array.from(value as Int32Array).filter((fd) => fd >= 0);
      return fds.length === 0 ? [] : [`${name} [${fds.map((fd) => names.opened(fd, 'fd')).join(', ')}]`];
    }
    if (!isBytes(value) || (kind !== 'out' && kind !== 'inout' && kind !== 'arg')) return [];
    const after = (kind === 'arg' ? names.structure(args[1], value) : undefined) ?? formatBytes(value);
    return after === before[i] ? [] : [`${name} ${after}`];
  });
}

function formatResult(signature: Signature, result: unknown, args: readonly unknown[], names: Names): string {
  return typeof result === 'number'
    ? traceResult(signature, result, args, names)
    : `${(result as ArrayBufferLike).byteLength} bytes of memory`;
}
