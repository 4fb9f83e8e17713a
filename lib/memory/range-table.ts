import { checkAtLeast, checkObject } from '../base/arguments.ts';
import { invalidArgType, outOfRange } from '../base/errors.ts';

/** What a {@link RangeTable} holds: [start, end), both exact as doubles (integers below 2^53, or whole pages). */
export interface Range {
  readonly start: number;
  readonly end: number;
}

/** No more than the type, which costs nothing where it is known. */
function checkNumber(value: number, name: string): number {
  if (typeof value !== 'number') throw invalidArgType(name, 'a number', value);
  return value;
}

function checkRange<T extends Range>(entry: T): T {
  const { start, end } = checkObject(entry, 'entry');
  checkAtLeast(start, 'entry.start', 0);
  checkAtLeast(end, 'entry.end', 0);
  if (end < start) throw outOfRange('entry.start', 'at most entry.end', start);
  return entry;
}

const FIRST_CAPACITY = 16;
/** Below this a search is as short as what a bucket leaves to be searched. */
const FIRST_BUCKETS = 8;

/**
 * Ranges that don't overlap, sorted by start. Their addresses stand in Float64Arrays beside the entries, so that a
 * lookup compares plain doubles and allocates nothing.
 *
 * A binary search mispredicts every other branch, so that lookups begin in an index: the span of the table is cut
 * into about as many buckets as there are entries, and each knows its first. Where ranges are spread evenly that leaves
 * one comparison, and at worst a binary search. The index is made anew after changes, once enough was looked up to
 * pay for it.
 */
export class RangeTable<T extends Range> {
  #starts = new Float64Array(FIRST_CAPACITY);
  #ends = new Float64Array(FIRST_CAPACITY);
  readonly #entries: T[] = [];
  /** Lookups since the last change, while there is no index. */
  #searches = 0;
  /** Entry b: how many entries start in buckets before b. Empty while there is no index. */
  #before = new Int32Array(0);
  #first = 0;
  #scale = 0;

  get length(): number {
    return this.#entries.length;
  }

  /** The entries in ascending order. */
  get entries(): readonly T[] {
    return this.#entries;
  }

  /** The entry that contains `at`. */
  find(at: number): T | undefined {
    return this.#entries[this.indexOf(at)];
  }

  /** Index of the entry that contains `at`, or −1. */
  indexOf(at: number): number {
    const index = this.lastAtOrBelow(at);
    return index >= 0 && at < this.#ends[index]! ? index : -1;
  }

  startAt(index: number): number {
    return this.#starts[checkNumber(index, 'index')]!;
  }

  endAt(index: number): number {
    return this.#ends[checkNumber(index, 'index')]!;
  }

  has(entry: T): boolean {
    return this.#entries[this.lastAtOrBelow(checkRange(entry).start)] === entry;
  }

  /** Index of the last entry whose start is ≤ `at`, or −1. */
  lastAtOrBelow(at: number): number {
    checkNumber(at, 'at');
    const before = this.#before;
    let low = -1;
    let high = this.#entries.length - 1;
    if (before.length !== 0) {
      if (!(at >= this.#first)) return -1;
      const bucket = Math.min((at - this.#first) * this.#scale, before.length - 2) | 0;
      low = before[bucket]! - 1;
      high = before[bucket + 1]! - 1;
    } else if (high >= FIRST_BUCKETS && ++this.#searches > high) this.#makeIndex();
    const starts = this.#starts;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (starts[middle]! <= at) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  /** An entry that has a part of [start, end), other than `except`. */
  overlapping(start: number, end: number, except?: T): T | undefined {
    checkNumber(start, 'start');
    checkNumber(end, 'end');
    for (let index = Math.max(0, this.lastAtOrBelow(start)); index < this.#entries.length; index++) {
      const entry = this.#entries[index]!;
      if (entry.start >= end) return undefined;
      if (entry.end > start && entry !== except) return entry;
    }
    return undefined;
  }

  /** Puts an entry in that overlaps none. */
  insert(entry: T): void {
    checkRange(entry);
    const { length } = this.#entries;
    if (length === this.#starts.length) {
      this.#starts = doubled(this.#starts);
      this.#ends = doubled(this.#ends);
    }
    const index = this.lastAtOrBelow(entry.start) + 1;
    for (const column of [this.#starts, this.#ends]) column.copyWithin(index + 1, index, length);
    this.#starts[index] = entry.start;
    this.#ends[index] = entry.end;
    this.#entries.splice(index, 0, entry);
    this.#dropIndex();
  }

  /** Takes an entry out; false when it isn't there. */
  remove(entry: T): boolean {
    const index = this.lastAtOrBelow(checkRange(entry).start);
    if (this.#entries[index] !== entry) return false;
    for (const column of [this.#starts, this.#ends]) column.copyWithin(index, index + 1);
    this.#entries.splice(index, 1);
    this.#dropIndex();
    return true;
  }

  #dropIndex(): void {
    if (this.#before.length !== 0) this.#before = new Int32Array(0);
    this.#searches = 0;
  }

  #makeIndex(): void {
    const count = this.#entries.length;
    const first = this.#starts[0]!;
    const span = this.#starts[count - 1]! - first;
    // Ranges are mostly spaced by a power of two: then each starts where a bucket does, and its comparison is foreseen.
    const scale = 2 ** -Math.floor(Math.log2(span / count));
    const buckets = Math.floor(span * scale) + 1;
    const before = new Int32Array(buckets + 1);
    for (let index = 0; index < count; index++) before[((this.#starts[index]! - first) * scale + 1) | 0]!++;
    for (let bucket = 1; bucket < before.length; bucket++) before[bucket]! += before[bucket - 1]!;
    this.#before = before;
    this.#first = first;
    this.#scale = scale;
  }
}

function doubled(values: Float64Array): Float64Array<ArrayBuffer> {
  const larger = new Float64Array(values.length * 2);
  larger.set(values);
  return larger;
}
