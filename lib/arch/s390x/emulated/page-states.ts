/** What KVM keeps beside each page: storage key and CMMA state. */

import { keepBits, nonZeroBytes, wordRange } from '../../../base/wide-bytes.ts';
import type { EmulatedHostMemory, MemoryObserver } from '../../../emulated/host-memory.ts';
import type { EmulatedMemslot } from '../../../emulated/memslots.ts';
import { SEGMENT_SIZE } from '../model/dat-entries.ts';
import { KEY_CHANGE, KEY_REFERENCE } from '../model/storage-key.ts';

/** A page's byte beside its key: it was changed since the dirty log was last brought up to date. Keys don't use the bit. */
export const USER_CHANGED = 1;
export const KEY_BITS = 0xfe;
/** Beside a CMMA value, as in the page tables (`_PGSTE_GPS_ZERO`): the page was given up. */
const DISCARDED = 0x80;

/** Pages of one chunk of the sparse array. */
const CHUNK = 32768;

/** A byte per page, of which nearly all are zero. */
class SparseBytes {
  readonly #chunks = new Map<number, Uint8Array>();

  get(page: number): number {
    return this.#chunks.get(Math.floor(page / CHUNK))?.[page % CHUNK] ?? 0;
  }

  set(page: number, value: number): void {
    const index = Math.floor(page / CHUNK);
    let chunk = this.#chunks.get(index);
    if (chunk === undefined) {
      if (value === 0) return;
      chunk = new Uint8Array(CHUNK);
      this.#chunks.set(index, chunk);
    }
    chunk[page % CHUNK] = value;
  }

  /** The bytes of a run of pages, as arrays one after the other; undefined for pages that are all zero. */
  *runs(
    page: number,
    length: number,
    create: boolean,
  ): Generator<{ bytes: Uint8Array | undefined; length: number }, void> {
    for (let at = page; at < page + length; ) {
      const index = Math.floor(at / CHUNK);
      const start = at % CHUNK;
      const size = Math.min(CHUNK - start, page + length - at);
      let chunk = this.#chunks.get(index);
      if (chunk === undefined && create) {
        chunk = new Uint8Array(CHUNK);
        this.#chunks.set(index, chunk);
      }
      yield { bytes: chunk?.subarray(start, start + size), length: size };
      at += size;
    }
  }

  clear(page: number, length: number): void {
    for (const { bytes } of this.runs(page, length, false)) bytes?.fill(0);
  }

  /** Keeps only some bits of every byte. */
  mask(bits: number): void {
    for (const chunk of this.#chunks.values()) keepBits(chunk, 0, chunk.length, bits);
  }

  /** Keeps only some bits of a run of pages. */
  maskRun(page: number, length: number, bits: number): void {
    for (const { bytes } of this.runs(page, length, false)) {
      if (bytes !== undefined) keepBits(bytes, 0, bytes.length, bits);
    }
  }
}

/** Has the bytes of a chunk's keys where the chunk has them: words are then at the same places. */
const scratch = new Uint8Array(CHUNK);

/** Sets keys; where one is another than the last that was set, its page is changed. The first two are the same part of two chunks. */
function storeKeys(states: Uint8Array, last: Uint8Array, keys: Uint8Array): void {
  const { length } = keys;
  const aligned = scratch.subarray(states.byteOffset, states.byteOffset + length);
  aligned.set(keys);
  const { first, end, words: keyWords } = wordRange(aligned, 0, length);
  const { words: stateWords } = wordRange(states, 0, length);
  const { words: lastWords } = wordRange(last, 0, length);
  for (let i = 0; i < keyWords.length; i++) {
    const key = keyWords[i]! | 0;
    stateWords[i] = key | nonZeroBytes(key ^ lastWords[i]!) | (stateWords[i]! & 0x0101_0101);
  }
  for (const [from, to] of [
    [0, first],
    [end, length],
  ] as const) {
    for (let i = from; i < to; i++) {
      states[i] = keys[i]! | (last[i] === keys[i] ? states[i]! & USER_CHANGED : USER_CHANGED);
    }
  }
  last.set(keys);
}

/**
 * Storage keys and CMMA values of the pages of a process. Up to 6.19 they are in its own page tables, and so belong to the
 * host page.
 */
export class PageStates implements MemoryObserver {
  /** Keys are maintained: a guest or SET_SKEYS used them. */
  keysEnabled = false;
  /** CMMA was used: the guest executed ESSA, or SET_CMMA_BITS was called. */
  cmmaUsed = false;
  protected readonly keys = new SparseBytes();
  /** Keys as they were set, without the R and C of accesses since. */
  protected readonly lastSet = new SparseBytes();
  protected readonly cmmaValues = new SparseBytes();
  /** Segments of user space that have a page table, as far as kernel calls made it; and the last of them. */
  readonly #pageTables = new Set<number>();
  #lastPageTable = -1;
  /** What guests and MEM_OP store is told to the dirty log when that is read, not at once. */
  readonly collectsStores: boolean = false;

  /** Where the arrays have a page. */
  page(slot: EmulatedMemslot, gfn: number): number {
    return Math.floor(slot.hostAddress / 4096) + (gfn - slot.baseGfn);
  }

  /** The first use of keys by SET_SKEYS or the guest. */
  enableKeys(): void {
    this.keysEnabled = true;
  }

  /** Whether loads make a difference to what is kept. */
  get notesLoads(): boolean {
    return this.keysEnabled;
  }

  key(slot: EmulatedMemslot, gfn: number): number {
    return this.keys.get(this.page(slot, gfn)) & KEY_BITS;
  }

  /** Sets a key. Another one than the key that was set before counts as a change of the page, whatever R and C are now. */
  setKey(slot: EmulatedMemslot, gfn: number, key: number): void {
    const page = this.page(slot, gfn);
    const changed = this.lastSet.get(page) === key ? this.keys.get(page) & USER_CHANGED : USER_CHANGED;
    this.lastSet.set(page, key);
    this.keys.set(page, key | changed);
  }

  /** Reads the keys of frames that follow one another into `keys` from `at` on, whatever stands there. */
  readKeys(slot: EmulatedMemslot, gfn: number, keys: Uint8Array, at: number, length: number): void {
    let to = at;
    for (const { bytes, length: size } of this.keys.runs(this.page(slot, gfn), length, false)) {
      if (bytes === undefined) keys.fill(0, to, to + size);
      else keys.set(bytes, to);
      to += size;
    }
    keepBits(keys, at, to, KEY_BITS);
  }

  /** Sets the keys of frames that follow one another, as {@link setKey} does. */
  writeKeys(slot: EmulatedMemslot, gfn: number, keys: Uint8Array, at: number, length: number): void {
    const page = this.page(slot, gfn);
    const before = this.lastSet.runs(page, length, true);
    let from = at;
    for (const { bytes: states } of this.keys.runs(page, length, true)) {
      const last = before.next().value!.bytes!;
      storeKeys(states!, last, keys.subarray(from, from + last.length));
      from += last.length;
    }
  }

  /** Notes an access: the machine sets R, and C for a store, in the key of the page. */
  accessed(slot: EmulatedMemslot, gfn: number, store: boolean): void {
    const bits = this.#bitsOf(store);
    // Most VMs have no keys, and each access comes here.
    if (bits !== 0) this.addBits(this.page(slot, gfn), bits);
  }

  /** Notes that a translation read an entry of the guest's tables. */
  walked(slot: EmulatedMemslot, gfn: number): void {
    this.accessed(slot, gfn, false);
  }

  #bitsOf(store: boolean): number {
    return (this.keysEnabled ? KEY_REFERENCE | (store ? KEY_CHANGE : 0) : 0) | (store ? USER_CHANGED : 0);
  }

  protected addBits(page: number, bits: number): void {
    const state = this.keys.get(page);
    if ((state & bits) !== bits) this.keys.set(page, state | bits);
  }

  /** Notes an access by user space itself: up to 6.19 the keys are those of its own pages, so R and C are set there too. */
  touched(hva: number, length: number, write: boolean): void {
    for (let at = hva; at < hva + length; at = (Math.floor(at / SEGMENT_SIZE) + 1) * SEGMENT_SIZE)
      this.makePageTable(at);
    const bits = this.#bitsOf(write);
    if (bits === 0) return;
    for (let page = Math.floor(hva / 4096); page * 4096 < hva + length; page++) this.addBits(page, bits);
  }

  /** Other pages are there now, or none. A page table whose segment was emptied has gone, with all that was in it. */
  unmapped(start: number, end: number): void {
    const first = Math.ceil(start / SEGMENT_SIZE);
    const last = Math.floor(end / SEGMENT_SIZE);
    if (first >= last) return;
    for (const segment of this.#pageTables) if (segment >= first && segment < last) this.#pageTables.delete(segment);
    this.#lastPageTable = -1;
    const [page, pages] = [(first * SEGMENT_SIZE) / 4096, ((last - first) * SEGMENT_SIZE) / 4096];
    for (const states of [this.keys, this.lastSet, this.cmmaValues]) states.clear(page, pages);
  }

  /** Whether the page was changed since this was last asked, by MEM_OP, SET_SKEYS or user space. */
  takeChanged(slot: EmulatedMemslot, gfn: number): boolean {
    const page = this.page(slot, gfn);
    const state = this.keys.get(page);
    if ((state & USER_CHANGED) === 0) return false;
    this.keys.set(page, state & KEY_BITS);
    return true;
  }

  /** Something at the host address was touched. */
  makePageTable(hva: number): void {
    const segment = Math.floor(hva / SEGMENT_SIZE);
    if (segment === this.#lastPageTable) return;
    this.#lastPageTable = segment;
    this.#pageTables.add(segment);
  }

  hasPageTable(hva: number): boolean {
    return this.#pageTables.has(Math.floor(hva / SEGMENT_SIZE));
  }

  /** Whether there is a place for the frame's CMMA value. Up to 6.19 KVM counts all pages as if there were. */
  keepsCmma(_gfn: number): boolean {
    return true;
  }

  cmma(slot: EmulatedMemslot, gfn: number): number {
    return this.cmmaValues.get(this.page(slot, gfn)) & ~DISCARDED;
  }

  setCmma(slot: EmulatedMemslot, gfn: number, value: number): void {
    const page = this.page(slot, gfn);
    this.cmmaValues.set(page, value | (this.cmmaValues.get(page) & DISCARDED));
  }

  /** Whether ESSA gave the page up while the host had none for it: it is zeros. */
  isDiscarded(slot: EmulatedMemslot, gfn: number): boolean {
    return (this.cmmaValues.get(this.page(slot, gfn)) & DISCARDED) !== 0;
  }

  setDiscarded(slot: EmulatedMemslot, gfn: number, isDiscarded: boolean): void {
    this.cmmaValues.set(this.page(slot, gfn), this.cmma(slot, gfn) | (isDiscarded ? DISCARDED : 0));
  }
}

const processes = new WeakMap<EmulatedHostMemory, PageStates>();

/** The one state of all VMs of a process, as it is up to 6.19. */
export function processPageStates(memory: EmulatedHostMemory): PageStates {
  let states = processes.get(memory);
  if (states === undefined) {
    states = new PageStates();
    memory.observe(states);
    processes.set(memory, states);
  }
  return states;
}
