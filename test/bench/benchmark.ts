import { type Kvm, Kvm as KvmHandle } from '../../lib/handles/kvm.ts';
import type { Comparators } from './comparators.ts';
import type { Case } from './measure.ts';

/** What a benchmark is given. */
export interface Bench {
  readonly comparators: Comparators;
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
export function requireEqual(ours: number, theirs: number, what: string): void {
  if (ours !== theirs) throw new Error(`${what}: ${ours} here, ${theirs} in C`);
}
