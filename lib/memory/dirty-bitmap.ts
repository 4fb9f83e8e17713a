import { KvmError } from '../base/errors.ts';
import type { KvmCalls } from '../calls/kvm-calls.ts';
import { forEachBit } from './bitmap-loops.ts';
import { Mapping } from './mapping.ts';

const NO_WORDS = new Uint32Array(0);

/** What is that large is sparse, and takes less time to give back than to fill with zeros. */
const LARGE = 0x1_0000;

/** One bit per page of a memslot, in whole 8-byte words. Its memory is made when it is first needed. */
export class DirtyBitmap {
  readonly npages: number;
  readonly #calls: KvmCalls;
  readonly #ownMemoryFrom: number;
  #memory: Mapping | undefined;
  #bytes: Uint8Array | undefined;
  #words: Uint32Array | undefined;

  /**
   * @param ownMemoryFrom bitmaps of so many bytes and more get memory of their own that ends where they end, where there
   * is some: the kernel fills it without a detour. That takes two of the process's mappings, and some time to make.
   */
  constructor(calls: KvmCalls, npages: number, ownMemoryFrom = LARGE) {
    this.#calls = calls;
    this.npages = npages;
    this.#ownMemoryFrom = ownMemoryFrom;
  }

  /** What the kernel fills. */
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

  /** Calls back for every page of [first, end) that is set, in ascending order, and maybe for some beside them. */
  forEachIn(first: number, end: number, callback: (page: number) => void): void {
    forEachBit(this.words.subarray(first >>> 5, (end + 31) >>> 5), first & ~31, callback);
  }

  clear(): void {
    if (this.#memory === undefined || this.#memory.size < LARGE) this.#bytes?.fill(0);
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
    if (length < this.#ownMemoryFrom) return new Uint8Array(length);
    const memory = this.#map(length);
    const window = memory?.window(0);
    if (memory === undefined || window === undefined) {
      // Calls that are recorded show no memory directly.
      memory?.close();
      return new Uint8Array(length);
    }
    this.#memory = memory;
    return new Uint8Array(window.buffer, memory.size - length, length);
  }

  /** None where the process has no more memory, as many mappings as it may have, or has locked as much as it may. */
  #map(length: number): Mapping | undefined {
    try {
      return Mapping.anonymous(this.#calls, length, { align: 0 });
    } catch (error) {
      if (error instanceof KvmError) return undefined;
      throw error;
    }
  }
}
