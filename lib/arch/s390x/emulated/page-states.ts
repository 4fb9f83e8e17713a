/** What KVM keeps beside each page: storage key and CMMA state. */

import { copyBytes } from '../../../base/copy-bytes.ts';
import { keepBits } from '../../../base/wide-bytes.ts';
import type { EmulatedHostMemory, MemoryObserver } from '../../../emulated/host-memory.ts';
import type { EmulatedMemslot } from '../../../emulated/memslots.ts';
import { SEGMENT_SIZE } from '../model/dat-entries.ts';
import { KEY_CHANGE, KEY_REFERENCE } from '../model/storage-key.ts';
import { KEY_BITS, noted, noteKeys, USER_CHANGED } from './key-loops.ts';

/** Beside a CMMA value, as in the page tables (`_PGSTE_GPS_ZERO`): the page was given up. */
const DISCARDED = 0x80;

/** Pages of one chunk of the sparse array. */
const CHUNK = 32768;

/** A byte per page, of which nearly all are zero. */
class SparseBytes {
  readonly #chunks = new Map<number, Uint8Array>();
  /** The chunk that was looked at last. */
  #lastIndex = -1;
  #lastChunk: Uint8Array | undefined;

  get(page: number): number {
    const index = Math.floor(page / CHUNK);
    return this.#chunk(index, false)?.[page - index * CHUNK] ?? 0;
  }

  set(page: number, value: number): void {
    const index = Math.floor(page / CHUNK);
    const chunk = this.#chunk(index, value !== 0);
    if (chunk !== undefined) chunk[page - index * CHUNK] = value;
  }

  /** Sets bits of a page's byte. */
  add(page: number, bits: number): void {
    const index = Math.floor(page / CHUNK);
    this.#chunk(index, true)![page - index * CHUNK]! |= bits;
  }

  /** The bytes of a run of pages, as arrays one after the other; undefined for pages that are all zero. */
  *runs(
    page: number,
    length: number,
    create: boolean,
  ): Generator<{ bytes: Uint8Array | undefined; length: number }, void> {
    for (let at = page; at < page + length; ) {
      const index = Math.floor(at / CHUNK);
      const start = at - index * CHUNK;
      const size = Math.min(CHUNK - start, page + length - at);
      yield { bytes: this.#chunk(index, create)?.subarray(start, start + size), length: size };
      at += size;
    }
  }

  #chunk(index: number, create: boolean): Uint8Array | undefined {
    if (index === this.#lastIndex) return this.#lastChunk;
    let chunk = this.#chunks.get(index);
    if (chunk === undefined && create) {
      chunk = new Uint8Array(CHUNK);
      this.#chunks.set(index, chunk);
    }
    if (chunk !== undefined) {
      this.#lastIndex = index;
      this.#lastChunk = chunk;
    }
    return chunk;
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
  /** Keys as they were set, without the R and C of accesses since; and {@link USER_CHANGED}. */
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
    return this.keys.get(this.page(slot, gfn));
  }

  /** Sets a key. Another one than the key that was set before counts as a change of the page, whatever R and C are now. */
  setKey(slot: EmulatedMemslot, gfn: number, key: number): void {
    const page = this.page(slot, gfn);
    this.keys.set(page, key);
    this.lastSet.set(page, noted(this.lastSet.get(page), key));
  }

  /** Reads the keys of frames that follow one another into `keys` from `at` on, whatever stands there. */
  readKeys(slot: EmulatedMemslot, gfn: number, keys: Uint8Array, at: number, length: number): void {
    let to = at;
    for (const { bytes, length: size } of this.keys.runs(this.page(slot, gfn), length, false)) {
      if (bytes === undefined) keys.fill(0, to, to + size);
      else keys.set(bytes, to);
      to += size;
    }
  }

  /** Sets the keys of frames that follow one another, as {@link setKey} does. */
  writeKeys(slot: EmulatedMemslot, gfn: number, keys: Uint8Array, at: number, length: number): void {
    const page = this.page(slot, gfn);
    const last = this.lastSet.runs(page, length, true);
    let from = at;
    for (const { bytes } of this.keys.runs(page, length, true)) {
      copyBytes(keys, from, bytes!, 0, bytes!.length);
      noteKeys(last.next().value!.bytes!, bytes!);
      from += bytes!.length;
    }
  }

  /** Notes an access: the machine sets R, and C for a store, in the key of the page. */
  accessed(slot: EmulatedMemslot, gfn: number, store: boolean): void {
    // Most VMs have no keys, and each access comes here.
    if (store || this.keysEnabled) this.#noteAccess(this.page(slot, gfn), store);
  }

  /** Notes that a translation read an entry of the guest's tables. */
  walked(slot: EmulatedMemslot, gfn: number): void {
    this.accessed(slot, gfn, false);
  }

  #noteAccess(page: number, store: boolean): void {
    if (this.keysEnabled) this.keys.add(page, KEY_REFERENCE | (store ? KEY_CHANGE : 0));
    if (store) this.lastSet.add(page, USER_CHANGED);
  }

  /** Notes an access by user space itself: up to 6.19 the keys are those of its own pages, so R and C are set there too. */
  touched(hva: number, length: number, write: boolean): void {
    for (let at = hva; at < hva + length; at = (Math.floor(at / SEGMENT_SIZE) + 1) * SEGMENT_SIZE)
      this.makePageTable(at);
    if (!write && !this.keysEnabled) return;
    for (let page = Math.floor(hva / 4096); page * 4096 < hva + length; page++) this.#noteAccess(page, write);
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
    const last = this.lastSet.get(page);
    if ((last & USER_CHANGED) === 0) return false;
    this.lastSet.set(page, last & KEY_BITS);
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
