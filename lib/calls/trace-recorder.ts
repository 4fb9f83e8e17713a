import { types } from 'node:util';
import { callBack } from '../base/callback.ts';
import { ERRNO } from '../uapi/errno.ts';
import { requestName } from '../uapi/requests.ts';
import { memoryBefore, PlacedSlots, storesSince } from './guest-stores.ts';
import type { KvmCalls } from './kvm-calls.ts';
import { Names } from './names.ts';
import { SharedAreas } from './shared-areas.ts';
import { type CallGroup, type Signature, signaturesOf } from './signatures.ts';
import {
  isFilled,
  TRACE_VERSION,
  type TraceCall,
  type TraceHead,
  type TraceValue,
  traceResult,
  traceValue,
} from './trace-file.ts';
import { wrapCalls } from './wrapped.ts';

type AnyCall = (...args: readonly unknown[]) => unknown;

/** Memory that is looked at directly: what is done to it no call tells. */
const DIRECT = new Set(['view', 'window', 'vmap', 'vunmap']);

/**
 * The same calls, each written as a line of JSON that `kvm-bridge replay` reads: its arguments, its result, and the bytes that went
 * in and came out; for a run also what the guest changed. So that nothing is missed, memory is reached by calls alone: `view`,
 * `window` and `vmap` give −EACCES, but for what vCPUs share with user space. That costs time, and each run a comparison of
 * the guest's memory up to 64 MiB; in a larger guest what it stores is not looked for.
 *
 * @param sink what it throws for a call is thrown later, in a task of its own: the call was made, and its result is the caller's
 * @param emulate options of the emulated kernel that ought to answer the same
 */
export function recorded(
  calls: KvmCalls,
  sink: (line: string) => void,
  emulate: Readonly<Record<string, unknown>>,
): KvmCalls {
  const { backend, arch, release, pageSize } = calls;
  const head: TraceHead = { 'kvm-bridge-trace': TRACE_VERSION, backend, arch, release, pageSize, emulate };
  sink(JSON.stringify(head));
  const recorder = new TraceRecorder(calls, (event) => callBack(sink, JSON.stringify(event)));
  return wrapCalls(calls, (target, group) => recorder.wrap(target, group));
}

class TraceRecorder {
  readonly #calls: KvmCalls;
  readonly #sink: (event: TraceCall) => void;
  readonly #names = new Names(undefined, undefined);
  readonly #areas: SharedAreas;
  readonly #slots = new PlacedSlots();
  #begun = 0;

  constructor(calls: KvmCalls, sink: (event: TraceCall) => void) {
    this.#calls = calls;
    this.#sink = sink;
    this.#areas = new SharedAreas(calls);
  }

  wrap(target: object, group: CallGroup | undefined): object {
    const methods = target as Record<string, AnyCall>;
    const wrapped: Record<string, AnyCall> = {};
    for (const [name, signature] of Object.entries(signaturesOf(group))) {
      const call = (args: readonly unknown[]): unknown => methods[name]!.apply(target, args as unknown[]);
      wrapped[name] = DIRECT.has(name)
        ? (...args) => (this.#areas.has(Number(args[0])) ? call(args) : -ERRNO.EACCES)
        : (...args) => this.#record(name, signature, args, call);
    }
    return wrapped;
  }

  #record(
    name: string,
    signature: Signature,
    args: readonly unknown[],
    call: (args: readonly unknown[]) => unknown,
  ): unknown {
    const values = signature.parameters.map(
      ([, kind], i) => attempt(() => traceValue(kind, args[i], this.#names)) ?? null,
    );
    const runs = this.#isRun(name, args);
    const concerned = this.#concerned(name, args[0] as number, runs);
    const before = concerned === undefined ? {} : this.#areas.changes(concerned);
    const head = { call: name, args: values, ...some('before', before) };
    const memory = runs ? memoryBefore(this.#calls, this.#slots.of(args[0] as number)) : undefined;
    const result = call(args);
    const end = (value: number): Partial<TraceCall> => {
      const after = concerned === undefined ? {} : this.#areas.changes(concerned);
      const filled = value < 0 ? {} : this.#filled(signature, args, values);
      const outcome = {
        result: traceResult(signature, value, args, this.#names),
        ...some('filled', filled),
        ...some('after', after),
      };
      this.#heard(name, args, value);
      return runs ? { ...outcome, stores: storesSince(this.#calls, memory) } : outcome;
    };
    // The addon's are of the realm that loaded it, which in a context of node:vm is another.
    if (!types.isPromise(result)) {
      this.#sink({ ...head, ...end(result as number) });
      return result;
    }
    const number = ++this.#begun;
    this.#sink({ ...head, begins: number });
    return result.then((value: unknown) => {
      this.#sink({ call: name, args: values, ends: number, ...end(value as number) });
      return value;
    });
  }

  #isRun(name: string, args: readonly unknown[]): boolean {
    if (name === 'run' || name === 'runAsync') return true;
    return name === 'ioctlUnchecked' && requestName(args[1] as number, this.#calls.arch) === 'KVM_RUN';
  }

  /** Whose shared areas a call looks at. */
  #concerned(name: string, fd: number, runs: boolean): ((vcpu: number) => boolean) | undefined {
    if (runs) return (vcpu) => vcpu === fd;
    return name === 'resetDirtyRings' ? (vcpu) => this.#slots.vmOf(vcpu) === fd : undefined;
  }

  #filled(signature: Signature, args: readonly unknown[], before: readonly TraceValue[]): Record<string, TraceValue> {
    const filled: Record<string, TraceValue> = {};
    for (const [i, [name, kind]] of signature.parameters.entries()) {
      if (!isFilled(kind)) continue;
      if (kind === 'outfds') for (const fd of args[i] as Int32Array) if (fd >= 0) this.#names.opened(fd, 'fd');
      const after = traceValue(kind, args[i], this.#names);
      if (JSON.stringify(after) !== JSON.stringify(before[i])) filled[name] = after;
    }
    return filled;
  }

  /** What a call means for what is followed. */
  #heard(name: string, args: readonly unknown[], value: number): void {
    if (value < 0) return;
    const [first] = args;
    this.#slots.heard(name, args, value);
    if (name === 'mmap' && this.#slots.vmOf(args[3] as number) !== undefined) {
      this.#areas.mapped(this.#names.hva(value), args[3] as number, value, Number(args[0]));
    }
    if (name === 'munmap') {
      this.#areas.unmapped(Number(first));
      this.#names.unmapped(Number(first), Number(args[1]));
    }
    if (name === 'close') this.#names.closed(first as number);
  }
}

/** A field, unless there is nothing in it. */
const some = <T extends object>(name: string, value: T): Record<string, T> =>
  Object.keys(value).length === 0 ? {} : { [name]: value };

/** What is no value of its kind at all is refused by the call itself. */
function attempt<T>(work: () => T): T | undefined {
  try {
    return work();
  } catch {
    return undefined;
  }
}
