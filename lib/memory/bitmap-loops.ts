/**
 * Loops over bitmaps of pages, in KVM's layout: here in TypeScript, and the addon has the same in C++ (native/bitmap.cc).
 */
import { endianness } from 'node:os';

/** What is behind the places that were stored may be overwritten, up to the end of the array. */
export interface BitmapLoops {
  /**
   * Stores `base` plus the index of every bit from `from` on that is set in `into`, in ascending order, from index `at` on until
   * it is full.
   * @returns the index behind the last that was stored
   */
  list(words: Uint32Array, base: number, from: number, into: Float64Array, at: number): number;
  /**
   * Stores every run of set bits likewise, as two numbers: `base` plus the index of its first bit, and how many they are. A run
   * from bit 0 on continues the one before `at`, if that ends at `base`.
   * @param at even
   */
  listRuns(words: Uint32Array, base: number, from: number, into: Float64Array, at: number): number;
}

/** KVM's bitmaps are little-endian on every architecture; a big-endian host's words are turned round. */
const SWAP = endianness() === 'BE';

/** A word as a signed integer, which the engine keeps in a register; bit i is page i. */
function wordAt(words: Uint32Array, i: number): number {
  const word = words[i]! | 0;
  return SWAP ? (word << 24) | ((word & 0xff00) << 8) | ((word >>> 8) & 0xff00) | (word >>> 24) : word;
}

/** Words that are looked at together. */
const GROUP = 8;

/**
 * Which words of the group at `i` are not 0, as bits. There is no branch for each word: in a bitmap with a dirty page
 * here and there the processor would guess every other one wrong, which costs more than all the rest.
 */
function nonZero(words: Uint32Array, i: number): number {
  if (i + GROUP > words.length) {
    let mask = 0;
    for (let k = 0; i + k < words.length; k++) mask |= isNonZero(words[i + k]!) << k;
    return mask;
  }
  const a = words[i]!;
  const b = words[i + 1]!;
  const c = words[i + 2]!;
  const d = words[i + 3]!;
  const e = words[i + 4]!;
  const f = words[i + 5]!;
  const g = words[i + 6]!;
  const h = words[i + 7]!;
  if ((a | b | c | d | e | f | g | h) === 0) return 0;
  return (
    isNonZero(a) |
    (isNonZero(b) << 1) |
    (isNonZero(c) << 2) |
    (isNonZero(d) << 3) |
    (isNonZero(e) << 4) |
    (isNonZero(f) << 5) |
    (isNonZero(g) << 6) |
    (isNonZero(h) << 7)
  );
}

/** 0 or 1. */
function isNonZero(word: number): number {
  const signed = word | 0;
  return (signed | -signed) >>> 31;
}

/** Index of the lowest bit that is set; there is one. */
function lowestBit(bits: number): number {
  return 31 - Math.clz32(bits & -bits);
}

export const plainBitmapLoops: BitmapLoops = {
  list(words, base, from, into, at) {
    const { length } = into;
    const firstWord = from >>> 5;
    let next = at;
    for (let group = firstWord - (firstWord % GROUP); group < words.length && next < length; group += GROUP) {
      for (let mask = nonZero(words, group); mask !== 0; mask &= mask - 1) {
        const i = group + lowestBit(mask);
        if (i < firstWord) continue;
        const first = base + i * 32;
        const wanted = i === firstWord ? -1 << (from & 31) : -1;
        for (let bits = wordAt(words, i) & wanted; bits !== 0 && next < length; bits &= bits - 1) {
          into[next++] = first + lowestBit(bits);
        }
      }
    }
    return next;
  },

  listRuns(words, base, from, into, at) {
    const { length } = words;
    const room = into.length - (into.length % 2);
    const firstWord = from >>> 5;
    let next = at;
    // The run that goes on, −1 between runs; and the bit before the next word.
    let start = -1;
    let before = 0;
    if (at > 0 && from === 0 && into[at - 2]! + into[at - 1]! === base) {
      next = at - 2;
      start = into[next]!;
      before = 1;
    }
    for (let group = firstWord - (firstWord % GROUP); group < length; group += GROUP) {
      const all = (1 << Math.min(GROUP, length - group)) - 1;
      // Where a run goes on, the word after it counts too: it ends there at the latest.
      for (let mask = nonZero(words, group) | before; mask !== 0; ) {
        const k = lowestBit(mask);
        const i = group + k;
        mask &= mask - 1;
        if (i < firstWord) continue;
        const word = wordAt(words, i) & (i === firstWord ? -1 << (from & 31) : -1);
        const changes = word ^ ((word << 1) | before);
        before = word >>> 31;
        mask |= (before << (k + 1)) & all;
        for (let edges = changes; edges !== 0; edges &= edges - 1) {
          const edge = base + i * 32 + lowestBit(edges);
          if (start >= 0) {
            into[next] = start;
            into[next + 1] = edge - start;
            next += 2;
            start = -1;
          } else if (next < room) start = edge;
          else return next;
        }
      }
    }
    if (start < 0) return next;
    into[next] = start;
    into[next + 1] = base + length * 32 - start;
    return next + 2;
  },
};

/**
 * Calls back with `base` plus the index of every bit that is set, in ascending order. To list them first, and then to call,
 * takes longer.
 */
export function forEachBit(words: Uint32Array, base: number, callback: (bit: number) => void): void {
  for (let group = 0; group < words.length; group += GROUP) {
    for (let mask = nonZero(words, group); mask !== 0; mask &= mask - 1) {
      const i = group + lowestBit(mask);
      const first = base + i * 32;
      for (let bits = wordAt(words, i); bits !== 0; bits &= bits - 1) callback(first + lowestBit(bits));
    }
  }
}

/** Bitmaps of fewer words are gone through sooner in TypeScript than the addon is called. */
const FEW_WORDS = 32;

/** Those that take the least time for a bitmap. */
export const loopsFor = (words: Uint32Array, loops: BitmapLoops): BitmapLoops =>
  words.length < FEW_WORDS ? plainBitmapLoops : loops;

/** Room for numbers that are listed together: no more than a cache holds. */
export const newBatch = (): Float64Array => new Float64Array(2048);

/**
 * Calls back with the first bit (plus `base`) and the length of every run of set bits, in ascending order.
 * @param batch from {@link newBatch}, and nobody else's meanwhile
 */
export function forEachBitRun(
  loops: BitmapLoops,
  words: Uint32Array,
  base: number,
  batch: Float64Array,
  callback: (first: number, count: number) => void,
): void {
  for (let from = 0; ; ) {
    const length = loops.listRuns(words, 0, from, batch, 0);
    // As integers, which calls take as they are.
    for (let i = 0; i < length; i += 2) callback(base + (batch[i]! | 0), batch[i + 1]! | 0);
    if (length < batch.length) return;
    from = batch[length - 2]! + batch[length - 1]!;
  }
}

/** The number of bits that are set. */
export function countBits(words: Uint32Array): number {
  let count = 0;
  for (let group = 0; group < words.length; group += GROUP) {
    for (let mask = nonZero(words, group); mask !== 0; mask &= mask - 1) {
      let v = words[group + lowestBit(mask)]! | 0;
      v -= (v >>> 1) & 0x5555_5555;
      v = (v & 0x3333_3333) + ((v >>> 2) & 0x3333_3333);
      count += Math.imul((v + (v >>> 4)) & 0x0f0f_0f0f, 0x0101_0101) >>> 24;
    }
  }
  return count;
}
