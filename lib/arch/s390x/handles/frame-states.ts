import { partOf } from '../../../base/part-of.ts';

/** Frames that are compared, and set where they differ, at once: those of a page table. */
const TOGETHER = 256;
/** Frames that are read at once. */
const AT_ONCE = 2 ** 20;

/** A byte for each of a VM's frames: their storage keys, or their CMMA values. */
export interface FrameStates {
  readonly memslots: Iterable<{ readonly baseGfn: number; readonly npages: number }>;
  /** null when nobody has ever set any. */
  read(startGfn: number, count: number): Uint8Array | null;
  set(startGfn: number, states: Uint8Array): void;
}

/** Gives the frames of one VM's memslots the states that they have in another VM; to how many it set them, as they differed. */
export function copyStates(from: Omit<FrameStates, 'set'>, to: Omit<FrameStates, 'memslots'>): number {
  let set = 0;
  for (const { baseGfn, npages } of from.memslots) {
    for (let gfn = baseGfn; gfn < baseGfn + npages; gfn += AT_ONCE) {
      const count = Math.min(AT_ONCE, baseGfn + npages - gfn);
      const states = from.read(gfn, count);
      if (states === null) return set;
      for (const [at, end] of differingRuns(states, to.read(gfn, count) ?? new Uint8Array(count))) {
        to.set(gfn + at, partOf(states, at, end));
        set += end - at;
      }
    }
  }
  return set;
}

function* differingRuns(
  states: Uint8Array,
  others: Uint8Array,
): Generator<readonly [start: number, end: number], void> {
  let start = -1;
  for (let at = 0; at < states.length; at += TOGETHER) {
    const end = Math.min(states.length, at + TOGETHER);
    const differs = Buffer.compare(partOf(states, at, end), partOf(others, at, end)) !== 0;
    if (differs && start < 0) start = at;
    if (!differs && start >= 0) {
      yield [start, at];
      start = -1;
    }
  }
  if (start >= 0) yield [start, states.length];
}
