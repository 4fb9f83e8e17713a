import { checkAtLeast, checkInteger, checkObject } from './arguments.ts';
import { invalidArgType, outOfRange } from './errors.ts';

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
/** So many ranges are moved in about the time in which the place of one is found. */
const PIECE = 512;
const NO_BUCKETS = new Int32Array(0);

/** Ranges of a table that follow each other. Their addresses stand beside them, so that a search compares plain doubles. */
interface Piece<T> {
  starts: Float64Array<ArrayBuffer>;
  readonly entries: T[];
}

/**
 * Ranges that don't overlap, sorted by start.
 *
 * While it changes, a table is in pieces, so that a change moves no more than one of them. Once enough was looked up to
 * pay for it they are put together, and stay as they are until the next change. A binary search mispredicts every other branch,
 * so that lookups begin in an index then: the span of the table is cut into about as many buckets as there are
 * entries, and each knows its first. Where ranges are spread evenly that leaves one comparison, and at worst a binary search.
 */
export class RangeTable<T extends Range> {
  #length = 0;
  /** In ascending order. There is one at least, and only that of an empty table has no ranges. */
  #pieces: Piece<T>[] = [{ starts: new Float64Array(FIRST_CAPACITY), entries: [] }];
  /** The only piece, where it isn't going to be changed: others may have its entries. */
  #whole: Piece<T> | undefined;
  /** Lookups since the last change, while there is no index. */
  #searches = 0;
  /** Entry b: how many entries start in buckets before b. Empty while there is no index. */
  #before = NO_BUCKETS;
  #first = 0;
  #scale = 0;

  get length(): number {
    return this.#length;
  }

  /** The entries in ascending order. What changes later doesn't change this array. */
  get entries(): readonly T[] {
    return this.#join().entries;
  }

  /** The entry that contains `at`. */
  find(at: number): T | undefined {
    const entry = this.atOrBelow(at);
    return entry !== undefined && at < entry.end ? entry : undefined;
  }

  /** The last entry whose start is ≤ `at`. */
  atOrBelow(at: number): T | undefined {
    checkNumber(at, 'at');
    if (this.#whole === undefined && ++this.#searches <= this.#length) {
      const { starts, entries } = this.#pieces[pieceOf(this.#pieces, at)]!;
      return entries[lastAtOrBelow(starts, -1, entries.length - 1, at)];
    }
    return this.#join().entries[this.#search(at)];
  }

  /** Index of the entry that contains `at`, or −1. */
  indexOf(at: number): number {
    const index = this.lastAtOrBelow(at);
    return index >= 0 && at < this.#join().entries[index]!.end ? index : -1;
  }

  startAt(index: number): number {
    return this.#join().starts[this.#checkIndex(index)]!;
  }

  endAt(index: number): number {
    return this.#join().entries[this.#checkIndex(index)]!.end;
  }

  has(entry: T): boolean {
    const { start } = checkRange(entry);
    const { starts, entries } = this.#pieces[pieceOf(this.#pieces, start)]!;
    return entries[lastAtOrBelow(starts, -1, entries.length - 1, start)] === entry;
  }

  /** Index of the last entry whose start is ≤ `at`, or −1. */
  lastAtOrBelow(at: number): number {
    return this.#search(checkNumber(at, 'at'));
  }

  /** An entry that has a part of [start, end), other than `except`. */
  overlapping(start: number, end: number, except?: T): T | undefined {
    checkNumber(start, 'start');
    checkNumber(end, 'end');
    const pieces = this.#pieces;
    let piece = pieceOf(pieces, start);
    let { starts, entries } = pieces[piece]!;
    let index = Math.max(0, lastAtOrBelow(starts, -1, entries.length - 1, start));
    for (; piece < pieces.length; piece++, index = 0) {
      ({ entries } = pieces[piece]!);
      for (; index < entries.length; index++) {
        const entry = entries[index]!;
        if (entry.start >= end) return undefined;
        if (entry.end > start && entry !== except) return entry;
      }
    }
    return undefined;
  }

  /** Puts an entry in that overlaps none. */
  insert(entry: T): void {
    const { start } = checkRange(entry);
    const pieces = this.#part();
    let number = pieceOf(pieces, start);
    if (pieces[number]!.entries.length === PIECE) number = splitPiece(pieces, number, start);
    const piece = pieces[number]!;
    const { entries } = piece;
    if (entries.length === piece.starts.length) piece.starts = doubled(piece.starts);
    const index = lastAtOrBelow(piece.starts, -1, entries.length - 1, start) + 1;
    piece.starts.copyWithin(index + 1, index, entries.length);
    piece.starts[index] = start;
    entries.splice(index, 0, entry);
    this.#length++;
  }

  /** Takes an entry out; false when it isn't there. */
  remove(entry: T): boolean {
    if (!this.has(entry)) return false;
    const pieces = this.#part();
    const number = pieceOf(pieces, entry.start);
    const { starts, entries } = pieces[number]!;
    const index = lastAtOrBelow(starts, -1, entries.length - 1, entry.start);
    starts.copyWithin(index, index + 1);
    entries.splice(index, 1);
    if (entries.length === 0 && pieces.length > 1) pieces.splice(number, 1);
    this.#length--;
    return true;
  }

  #checkIndex(index: number): number {
    return checkInteger(index, 'index', 0, this.#length - 1);
  }

  /** Pieces that can be changed. */
  #part(): Piece<T>[] {
    this.#searches = 0;
    const whole = this.#whole;
    if (whole === undefined) return this.#pieces;
    this.#whole = undefined;
    this.#before = NO_BUCKETS;
    this.#pieces = [];
    for (let first = 0; first === 0 || first < this.#length; first += PIECE) {
      const end = first + PIECE;
      this.#pieces.push({ starts: whole.starts.slice(first, end), entries: whole.entries.slice(first, end) });
    }
    return this.#pieces;
  }

  /** All of them as one piece. */
  #join(): Piece<T> {
    if (this.#whole !== undefined) return this.#whole;
    const [only, ...others] = this.#pieces as [Piece<T>, ...Piece<T>[]];
    if (others.length === 0) this.#whole = only;
    else {
      const starts = new Float64Array(this.#length);
      let next = 0;
      for (const piece of this.#pieces) {
        starts.set(piece.starts.subarray(0, piece.entries.length), next);
        next += piece.entries.length;
      }
      this.#whole = { starts, entries: this.#pieces.flatMap(({ entries }) => entries) };
      this.#pieces = [this.#whole];
    }
    return this.#whole;
  }

  /** Index in the whole of the last entry whose start is ≤ `at`, or −1. */
  #search(at: number): number {
    const { starts } = this.#join();
    const before = this.#before;
    if (before.length === 0) {
      if (this.#length > FIRST_BUCKETS && ++this.#searches > this.#length) this.#makeIndex(starts);
      return lastAtOrBelow(starts, -1, this.#length - 1, at);
    }
    if (!(at >= this.#first)) return -1;
    const bucket = Math.min((at - this.#first) * this.#scale, before.length - 2) | 0;
    return lastAtOrBelow(starts, before[bucket]! - 1, before[bucket + 1]! - 1, at);
  }

  #makeIndex(starts: Float64Array): void {
    const count = this.#length;
    const first = starts[0]!;
    const span = starts[count - 1]! - first;
    // Ranges are mostly spaced by a power of two: then each starts where a bucket does, and its comparison is foreseen.
    const scale = 2 ** -Math.floor(Math.log2(span / count));
    const buckets = Math.floor(span * scale) + 1;
    const before = new Int32Array(buckets + 1);
    for (let index = 0; index < count; index++) before[((starts[index]! - first) * scale + 1) | 0]!++;
    for (let bucket = 1; bucket < before.length; bucket++) before[bucket]! += before[bucket - 1]!;
    this.#before = before;
    this.#first = first;
    this.#scale = scale;
  }
}

/** The last index of those from `low` to `high` whose start is ≤ `at`; `low` if there is none above it. */
function lastAtOrBelow(starts: Float64Array, low: number, high: number, at: number): number {
  let last = low;
  let end = high;
  while (last < end) {
    const middle = (last + end + 1) >> 1;
    if (starts[middle]! <= at) last = middle;
    else end = middle - 1;
  }
  return last;
}

/** Number of the piece that has the last entry whose start is ≤ `at`; the first piece if there is none. */
function pieceOf(pieces: readonly Piece<unknown>[], at: number): number {
  let last = 0;
  let end = pieces.length - 1;
  while (last < end) {
    const middle = (last + end + 1) >> 1;
    if (pieces[middle]!.starts[0]! <= at) last = middle;
    else end = middle - 1;
  }
  return last;
}

/** Makes two pieces of a full one: the number of that which an entry belongs in. */
function splitPiece<T>(pieces: Piece<T>[], number: number, start: number): number {
  const { starts, entries } = pieces[number]!;
  // What comes in ascending order leaves full pieces behind.
  const isNext = number === pieces.length - 1 && start >= starts[PIECE - 1]!;
  const half = isNext ? PIECE : PIECE / 2;
  pieces.splice(number + 1, 0, { starts: starts.slice(half), entries: entries.splice(half) });
  return isNext || start >= starts[half]! ? number + 1 : number;
}

function doubled(values: Float64Array): Float64Array<ArrayBuffer> {
  const larger = new Float64Array(Math.max(FIRST_CAPACITY, values.length * 2));
  larger.set(values);
  return larger;
}
