/** What a real entry has that the guest's view of it has not. */

import type { EmulatedHostMemory } from '../../../emulated/host-memory.ts';
import { ppOf, R_HI, R_LO, V_LO } from '../model/hpte.ts';

/** Whether PP lets anybody store: everything but read-only for both states. */
export const isWritable = (rHi: number, rLo: number): boolean => {
  const pp = ppOf(rHi, rLo);
  return pp !== 3 && pp !== 6;
};

/** V as the guest knows it: an absent entry is a valid one. */
export function asGuestSees(vLo: number): number {
  return ((vLo & V_LO.ABSENT) === 0 ? vLo : (vLo & ~V_LO.ABSENT) | V_LO.VALID) >>> 0;
}

// PP of 0 (nothing for problem state) becomes 6, the others 3: loads as before, stores for nobody.
const hidesFromUser = (rHi: number, rLo: number): boolean => (rHi & R_HI.PP0) !== 0 || (rLo & R_LO.PP) === 0;
export const readonlyHi = (rHi: number, rLo: number): number => (hidesFromUser(rHi, rLo) ? rHi | R_HI.PP0 : rHi);
export const readonlyLo = (rHi: number, rLo: number): number =>
  hidesFromUser(rHi, rLo) ? (rLo & ~R_LO.PP) | 2 : rLo | R_LO.PP;

/** A page table in Linux's radix tree covers so much; if it exists, so does a PTE for each of its pages. */
const HOST_PAGE_TABLE = 0x20_0000;

const zeros = Buffer.alloc(0x1_0000);

/**
 * Whether Linux has a PTE for an address, which limits a guest's page to the size of the host's. The emulated host
 * has no page tables to ask. They exist where memory around was touched; memory that was not is all zeros.
 */
export class HostPtes {
  readonly #memory: EmulatedHostMemory;
  /** By page table, during a call: what it knows is void as soon as anybody else may store. */
  #known: Map<number, boolean> | undefined;

  constructor(memory: EmulatedHostMemory) {
    this.#memory = memory;
  }

  /** Does something during which nobody stores, so that each page table is looked at once. */
  during<T>(work: () => T): T {
    this.#known = new Map();
    try {
      return work();
    } finally {
      this.#known = undefined;
    }
  }

  has(hva: number): boolean {
    const table = hva - (hva % HOST_PAGE_TABLE);
    const found = this.#known?.get(table) ?? isTouched(this.#memory, table);
    this.#known?.set(table, found);
    return found;
  }
}

function isTouched(memory: EmulatedHostMemory, start: number): boolean {
  for (let at = start; at < start + HOST_PAGE_TABLE; ) {
    if (!memory.hasBytes(at) || !memory.resolve(at, false)) {
      at += memory.pageSize;
      continue;
    }
    const length = Math.min(memory.available, zeros.length, start + HOST_PAGE_TABLE - at);
    const bytes = Buffer.from(memory.bytes.buffer, memory.bytes.byteOffset + memory.at, length);
    if (!bytes.equals(zeros.subarray(0, length))) return true;
    at += length;
  }
  return false;
}
