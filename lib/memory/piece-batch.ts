import { partOf } from '../base/part-of.ts';
import { callError } from '../calls/failure.ts';
import type { KvmCalls } from '../calls/kvm-calls.ts';
import { ERRNO } from '../uapi/errno.ts';
import type { Locator } from './locator.ts';
import type { MemoryRange } from './lookup.ts';
import type { MemoryWindow } from './memory-window.ts';

/** Pieces that are moved by one call. */
const BATCH = 1024;
// Used again by every batch: nothing else runs between filling and moving it.
const hvas = new Float64Array(BATCH);
const lengths = new Uint32Array(BATCH);
/** What all lengths are, or −1. */
let lengthOfAll = 0;

/** The first of an array; the array itself where that is all of it, since an object takes as long as some pieces. */
const firstOf = <T extends Float64Array | Uint32Array>(array: T, count: number): T =>
  count === array.length ? array : (array.subarray(0, count) as T);

/** Who filled them. A getter of the caller's can begin another batch before this one is moved. */
let filler: PieceBatch | undefined;

/**
 * Moves small pieces of mapped memory that stand back to back in an array, many in one call: the addon overlaps the
 * cache misses of many pieces, which a loop in JavaScript cannot.
 */
export class PieceBatch {
  readonly #bytes: Uint8Array;
  readonly #write: boolean;
  /** Whose memory the pieces are of. */
  #calls: KvmCalls | undefined;
  #count = 0;
  /** Where the pieces not yet moved begin in the array. */
  #start = 0;
  #end = 0;

  constructor(bytes: Uint8Array, write: boolean) {
    this.#bytes = bytes;
    this.#write = write;
  }

  /** Where the next piece goes. */
  get end(): number {
    return this.#end;
  }

  /** Adds the piece of `length` bytes at an offset of a window. */
  add(window: MemoryWindow, at: number, length: number): void {
    this.#fill();
    if (window.calls !== this.#calls) this.flush();
    this.#calls = window.calls;
    hvas[this.#count] = window.hva + at;
    lengths[this.#count] = length;
    lengthOfAll = -1;
    this.#end += length;
    if (++this.#count === BATCH) this.flush();
  }

  /**
   * Adds and moves pieces of `length` bytes at these addresses, from the first on, as long as each is in one window: how many. The
   * caller sees to it that there is room for all.
   */
  moveEqual<R extends MemoryRange>(place: Locator<R>, gpas: Float64Array, length: number): number {
    this.#fill();
    for (let first = 0; first < gpas.length; ) {
      const count = place.hvasAt(gpas, first, Math.min(BATCH, gpas.length - first), length, hvas);
      if (count === 0) return first;
      if (lengthOfAll !== length) lengths.fill(length);
      lengthOfAll = length;
      this.#calls = place.calls;
      this.#count = count;
      this.#end += count * length;
      this.flush();
      first += count;
    }
    return gpas.length;
  }

  /** Leaves out a piece that was moved otherwise. */
  skip(length: number): void {
    this.#end += length;
    this.#start = this.#end;
  }

  /** Moves what was added. @throws KvmError EFAULT when memory went away meanwhile */
  flush(): void {
    const count = this.#count;
    if (count === 0) return;
    this.#count = 0;
    const calls = this.#calls!;
    const bytes = this.#bytes;
    const isAll = this.#start === 0 && this.#end === bytes.length;
    const part = isAll ? bytes : partOf(bytes, this.#start, this.#end);
    const [at, ofPieces] = [firstOf(hvas, count), firstOf(lengths, count)];
    const moved = this.#write ? calls.scatter(at, ofPieces, part) : calls.gather(at, ofPieces, part);
    if (moved !== count) throw callError(this.#write ? 'scatter' : 'gather', moved < 0 ? moved : ERRNO.EFAULT);
    this.#start = this.#end;
  }

  #fill(): void {
    if (filler === this) return;
    filler?.flush();
    filler = this;
  }

  /** Forgets what was added and not moved. */
  drop(): void {
    this.#count = 0;
    if (filler === this) filler = undefined;
  }
}
