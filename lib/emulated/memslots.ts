import type { KnownMemslot } from '../rules/memslot.ts';
import { MEM } from '../uapi/flags.ts';
import type { MemoryBacking } from './backing.ts';
import { SlotDirty } from './slot-dirty.ts';

/** A memslot of an emulated VM. `invalid` is the state while it is deleted or moved: found, but not to be used. */
export class EmulatedMemslot implements KnownMemslot {
  readonly id: number;
  readonly asId: number;
  readonly hva: bigint;
  /** The same as a plain number; user space ends below 2^53 wherever memory can be mapped. */
  readonly hostAddress: number;
  readonly npages: number;
  baseGfn: number;
  flags: number;
  invalid = false;
  readonly dirty: SlotDirty;
  /** What guest_memfd backs it, with the byte offset. */
  guestMemfd: BoundPages | undefined;

  constructor(id: number, asId: number, hva: bigint, npages: number, baseGfn: number, flags: number) {
    this.id = id;
    this.asId = asId;
    this.hva = hva;
    this.hostAddress = Number(hva);
    this.npages = npages;
    this.baseGfn = baseGfn;
    this.flags = flags;
    this.dirty = new SlotDirty(npages);
  }

  get logged(): boolean {
    return (this.flags & MEM.LOG_DIRTY_PAGES) !== 0;
  }
}

/** Pages of a guest_memfd from an offset on, in bytes. */
export interface BoundPages {
  readonly pages: GuestMemfdPages;
  readonly offset: number;
}

/** The pages of a guest_memfd and which slots are bound to which of them. */
export interface GuestMemfdPages {
  readonly size: number;
  /** Its bytes. */
  readonly backing: MemoryBacking;
  /** It can be mapped: all of the guest's accesses to a slot that is bound to it go there, and not only private ones. */
  readonly mappable: boolean;
  /** The file is gone: nothing is there for the guest. */
  readonly closed: boolean;
  readonly bindings: { slot: EmulatedMemslot; start: number; end: number }[];
}

/** The memslots of one address space: by id, and by guest frame number in a sorted array. */
export class MemslotSet {
  readonly #byId = new Map<number, EmulatedMemslot>();
  readonly #sorted: EmulatedMemslot[] = [];
  #last: EmulatedMemslot | undefined;

  get(id: number): EmulatedMemslot | undefined {
    return this.#byId.get(id);
  }

  get size(): number {
    return this.#sorted.length;
  }

  /** In ascending order of guest address. */
  [Symbol.iterator](): IterableIterator<EmulatedMemslot> {
    return this.#sorted[Symbol.iterator]();
  }

  add(slot: EmulatedMemslot): void {
    this.#byId.set(slot.id, slot);
    this.#sorted.splice(this.#after(slot.baseGfn), 0, slot);
  }

  delete(slot: EmulatedMemslot): void {
    this.#byId.delete(slot.id);
    this.#sorted.splice(this.#after(slot.baseGfn) - 1, 1);
    this.#last = undefined;
  }

  move(slot: EmulatedMemslot, baseGfn: number): void {
    this.delete(slot);
    slot.baseGfn = baseGfn;
    this.add(slot);
  }

  /** The slot that holds a gfn, in state invalid too. */
  find(gfn: number): EmulatedMemslot | undefined {
    const last = this.#last;
    if (last !== undefined && gfn >= last.baseGfn && gfn < last.baseGfn + last.npages) return last;
    const slot = this.#sorted[this.#after(gfn) - 1];
    if (slot === undefined || gfn >= slot.baseGfn + slot.npages) return undefined;
    this.#last = slot;
    return slot;
  }

  /** A slot other than `except` with pages in [baseGfn, baseGfn + npages). */
  overlapping(baseGfn: number, npages: number, except: number): EmulatedMemslot | undefined {
    for (let i = Math.max(0, this.#after(baseGfn) - 1); i < this.#sorted.length; i++) {
      const slot = this.#sorted[i]!;
      if (slot.baseGfn >= baseGfn + npages) return undefined;
      if (slot.id !== except && slot.baseGfn + slot.npages > baseGfn) return slot;
    }
    return undefined;
  }

  /** Index of the first slot that begins after `gfn`. */
  #after(gfn: number): number {
    let low = 0;
    let high = this.#sorted.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#sorted[middle]!.baseGfn <= gfn) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
