import { loadNative } from '../../lib/backends/native.ts';
import { checked } from '../../lib/calls/checked.ts';
import type { KvmCalls } from '../../lib/calls/kvm-calls.ts';
import { type Kvm, Kvm as KvmHandle } from '../../lib/handles/kvm.ts';
import type { Comparators } from './comparators.ts';
import type { Case } from './measure.ts';
import type { VmMemory } from './vm-memory.ts';

/** What a benchmark is given. */
export interface Bench {
  readonly comparators: Comparators;
  /** rust-vmm's crate, where it could be built. */
  readonly vmMemory?: VmMemory | undefined;
  /** The sizes to measure: all of them, or only the first where nothing but running counts. */
  sizes<T>(all: readonly T[]): readonly T[];
}

export interface Benchmark {
  readonly name: string;
  /** Whether it needs the real kernel. */
  readonly needsKvm: boolean;
  /** Its cases, one after the other: what one needs is made before it is yielded, and given back after. */
  cases(bench: Bench): Iterable<Case>;
}

/** The real kernel. */
export function openReal(): Kvm {
  return KvmHandle.open({ backend: 'native' });
}

/** The machine's own memory, for which no /dev/kvm is needed. @throws Error without the addon */
export function nativeCalls(): KvmCalls {
  const loaded = loadNative();
  if (!('calls' in loaded)) throw new Error(loaded.reason);
  return checked(loaded.calls);
}

/** A stream of whole numbers in [0, 2^32) that is the same every time (xorshift32). */
export function randomU32(seed = 0x9e37_79b9): () => number {
  let state = seed;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

/** Fails loudly where two ways of doing the same thing disagree: a fast wrong answer is no result. */
export function requireEqual(ours: number | bigint, theirs: number | bigint, what: string): void {
  if (ours !== theirs) throw new Error(`${what}: ${ours} here, ${theirs} in C`);
}
