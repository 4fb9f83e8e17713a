import { endianness } from 'node:os';
import type { KvmCalls } from '../calls/kvm-calls.ts';
import { Mapping } from './mapping.ts';

/** KVM's bitmaps are little-endian on every architecture; a big-endian host's words are turned round. */
const SWAP = endianness() === 'BE';

/** A word as a signed integer, which the engine keeps in a register; bit i is page i. */
function wordAt(words: Uint32Array, i: number): number {
  const word = words[i]! | 0;
  return SWAP ? (word << 24) | ((word & 0xff00) << 8) | ((word >>> 8) & 0xff00) | (word >>> 24) : word;
}

const NO_WORDS = new Uint32Array(0);
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

/** Calls back with `base` plus the index of every bit that is set, in ascending order. */
export function forEachBit(words: Uint32Array, base: number, callback: (bit: number) => void): void {
  for (let group = 0; group < words.length; group += GROUP) {
    for (let mask = nonZero(words, group); mask !== 0; mask &= mask - 1) {
      const i = group + lowestBit(mask);
      const first = base + i * 32;
      for (let bits = wordAt(words, i); bits !== 0; bits &= bits - 1) callback(first + lowestBit(bits));
    }
  }
}

/**
 * Stores `base` plus the index of every bit from `from` on that is set in `into`, in ascending order, from index `at` on
 * until it is full: the index after the last one.
 */
export function listBits(words: Uint32Array, base: number, from: number, into: Float64Array, at: number): number {
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
}

/** Calls back with the first bit (plus `base`) and the length of every run of set bits, in ascending order. */
export function forEachBitRun(
  words: Uint32Array,
  base: number,
  callback: (first: number, count: number) => void,
): void {
  const { length } = words;
  // The run that goes on; −1 between runs.
  let start = -1;
  /** The bit before the next word. */
  let before = 0;
  for (let group = 0; group < length; group += GROUP) {
    const all = (1 << Math.min(GROUP, length - group)) - 1;
    // Where a run goes on, the word after it counts too: it ends there at the latest.
    for (let mask = nonZero(words, group) | before; mask !== 0; ) {
      const k = lowestBit(mask);
      const word = wordAt(words, group + k);
      const first = (group + k) * 32;
      const changes = word ^ ((word << 1) | before);
      before = word >>> 31;
      mask = (mask & (mask - 1)) | ((before << (k + 1)) & all);
      for (let edges = changes; edges !== 0; edges &= edges - 1) {
        const at = first + lowestBit(edges);
        if (start < 0) start = at;
        else {
          callback(base + start, at - start);
          start = -1;
        }
      }
    }
  }
  if (start >= 0) callback(base + start, length * 32 - start);
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

/** Bitmaps of this size and more get memory of their own that ends where they end: the kernel fills it without a detour. */
const OWN_MEMORY_FROM = 0x1_0000;

/** One bit per page of a memslot, in whole 8-byte words. Its memory is made when it is first needed. */
export class DirtyBitmap {
  readonly npages: number;
  readonly #calls: KvmCalls;
  #memory: Mapping | undefined;
  #bytes: Uint8Array | undefined;
  #words: Uint32Array | undefined;

  constructor(calls: KvmCalls, npages: number) {
    this.#calls = calls;
    this.npages = npages;
  }

  /** What the kernel fills. @throws KvmError ENOMEM when it is made */
  get bytes(): Uint8Array {
    this.#bytes ??= this.#allocate();
    return this.#bytes;
  }

  /** The same in words, for scanning; empty while nothing was collected. */
  get words(): Uint32Array {
    if (this.#words === undefined && this.#bytes !== undefined) {
      this.#words = new Uint32Array(this.#bytes.buffer, this.#bytes.byteOffset, this.#bytes.length / 4);
    }
    return this.#words ?? NO_WORDS;
  }

  set(page: number): void {
    this.bytes[page >> 3]! |= 1 << (page & 7);
  }

  clear(): void {
    if (this.#memory === undefined) this.#bytes?.fill(0);
    else this.#memory.discard();
  }

  /**
   * The bits of [first, end) alone, as CLEAR_DIRTY_LOG wants them: from a multiple of 64 pages, to another or to the
   * end of the slot.
   */
  part(
    first: number,
    end: number,
  ): { readonly firstPage: number; readonly numPages: number; readonly bits: Uint8Array } {
    const firstPage = Math.floor(first / 64) * 64;
    const numPages = Math.min(Math.ceil(end / 64) * 64, this.npages) - firstPage;
    const bits = this.bytes.slice(firstPage / 8, firstPage / 8 + Math.ceil(numPages / 64) * 8);
    const keep = (page: number): boolean => page >= first && page < end;
    // Only the 64-page groups at both ends can have pages that don't belong.
    for (const group of new Set([firstPage, Math.floor((end - 1) / 64) * 64])) {
      for (let page = group; page < group + 64; page++) {
        const bit = page - firstPage;
        if (!keep(page)) bits[bit >> 3]! &= ~(1 << (bit & 7));
      }
    }
    return { firstPage, numPages, bits };
  }

  close(): void {
    this.#memory?.close();
    this.#bytes = undefined;
    this.#words = undefined;
  }

  #allocate(): Uint8Array {
    const length = Math.ceil(this.npages / 64) * 8;
    if (length < OWN_MEMORY_FROM) return new Uint8Array(length);
    this.#memory = Mapping.anonymous(this.#calls, length, { align: 0 });
    return new Uint8Array(this.#memory.window(0)!.buffer, this.#memory.size - length, length);
  }
}
