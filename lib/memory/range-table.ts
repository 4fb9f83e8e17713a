/** What a {@link RangeTable} holds: [start, end), both exact as doubles (integers below 2^53, or whole pages). */
export interface Range {
  readonly start: number;
  readonly end: number;
}

const FIRST_CAPACITY = 16;

/**
 * Ranges that don't overlap, sorted by start. Starts and ends stand in Float64Arrays beside the entries, so that a
 * lookup compares plain doubles and allocates nothing.
 */
export class RangeTable<T extends Range> {
  #starts = new Float64Array(FIRST_CAPACITY);
  #ends = new Float64Array(FIRST_CAPACITY);
  readonly #entries: T[] = [];

  get length(): number {
    return this.#entries.length;
  }

  /** The entries in ascending order. */
  get entries(): readonly T[] {
    return this.#entries;
  }

  /** The entry that contains `at`. */
  find(at: number): T | undefined {
    const index = this.lastAtOrBelow(at);
    return index >= 0 && at < this.#ends[index]! ? this.#entries[index] : undefined;
  }

  has(entry: T): boolean {
    return this.#entries[this.lastAtOrBelow(entry.start)] === entry;
  }

  /** Index of the last entry whose start is ≤ `at`, or −1. */
  lastAtOrBelow(at: number): number {
    const starts = this.#starts;
    let low = 0;
    let count = this.#entries.length;
    // Halves the count in every step whatever the comparison says, so that the loop's length is predictable.
    while (count > 1) {
      const half = count >>> 1;
      if (starts[low + half]! <= at) low += half;
      count -= half;
    }
    return count === 1 && starts[low]! <= at ? low : -1;
  }

  /** An entry that has a part of [start, end), other than `except`. */
  overlapping(start: number, end: number, except?: T): T | undefined {
    for (let index = Math.max(0, this.lastAtOrBelow(start)); index < this.#entries.length; index++) {
      const entry = this.#entries[index]!;
      if (entry.start >= end) return undefined;
      if (entry.end > start && entry !== except) return entry;
    }
    return undefined;
  }

  /** Puts an entry in that overlaps none. */
  insert(entry: T): void {
    const { length } = this.#entries;
    if (length === this.#starts.length) this.#grow();
    const index = this.lastAtOrBelow(entry.start) + 1;
    this.#starts.copyWithin(index + 1, index, length);
    this.#ends.copyWithin(index + 1, index, length);
    this.#starts[index] = entry.start;
    this.#ends[index] = entry.end;
    this.#entries.splice(index, 0, entry);
  }

  /** Takes an entry out; false when it isn't there. */
  remove(entry: T): boolean {
    const index = this.lastAtOrBelow(entry.start);
    if (this.#entries[index] !== entry) return false;
    this.#starts.copyWithin(index, index + 1);
    this.#ends.copyWithin(index, index + 1);
    this.#entries.splice(index, 1);
    return true;
  }

  #grow(): void {
    this.#starts = doubled(this.#starts);
    this.#ends = doubled(this.#ends);
  }
}

function doubled(values: Float64Array): Float64Array<ArrayBuffer> {
  const larger = new Float64Array(values.length * 2);
  larger.set(values);
  return larger;
}
