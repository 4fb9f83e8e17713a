/**
 * What KVM keeps beside each page: storage key and CMMA state. Up to 6.19 they belong to the process's page tables, so
 * to the host page; from 7.0 on to the VM's own, so to the guest frame.
 */

import { KEY_CHANGE, KEY_REFERENCE } from '../../s390x/storage-key.ts';
import type { HostMemory } from '../host-memory.ts';
import type { EmulatedMemslot } from '../memslots.ts';

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
}

/** Storage keys and CMMA values of the pages of a process, or of a VM. */
export class PageStates {
  /** Keys are maintained: a guest or SET_SKEYS used them. */
  keysEnabled = false;
  /** CMMA was used: the guest executed ESSA, or SET_CMMA_BITS was called. */
  cmmaUsed = false;
  readonly #byGfn: boolean;
  readonly #keys = new SparseBytes();
  readonly #cmma = new SparseBytes();

  constructor(byGfn: boolean) {
    this.#byGfn = byGfn;
  }

  #page(slot: EmulatedMemslot, gfn: number): number {
    return this.#byGfn ? gfn : Math.floor(slot.hostAddress / 4096) + (gfn - slot.baseGfn);
  }

  key(slot: EmulatedMemslot, gfn: number): number {
    return this.#keys.get(this.#page(slot, gfn));
  }

  setKey(slot: EmulatedMemslot, gfn: number, key: number): void {
    this.#keys.set(this.#page(slot, gfn), key);
  }

  /** Notes an access: the machine sets R, and C for a store, in the key of the page. */
  accessed(slot: EmulatedMemslot, gfn: number, store: boolean): void {
    if (!this.keysEnabled) return;
    const page = this.#page(slot, gfn);
    const key = this.#keys.get(page);
    this.#keys.set(page, key | KEY_REFERENCE | (store ? KEY_CHANGE : 0));
  }

  cmma(slot: EmulatedMemslot, gfn: number): number {
    return this.#cmma.get(this.#page(slot, gfn));
  }

  setCmma(slot: EmulatedMemslot, gfn: number, value: number): void {
    this.#cmma.set(this.#page(slot, gfn), value);
  }
}

const processes = new WeakMap<HostMemory, PageStates>();

/** The one state of all VMs of a process, as it is up to 6.19. */
export function processPageStates(memory: HostMemory): PageStates {
  let states = processes.get(memory);
  if (states === undefined) {
    states = new PageStates(false);
    processes.set(memory, states);
  }
  return states;
}
