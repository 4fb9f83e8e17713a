import { IdTable } from '../base/id-table.ts';
import { RangeTable } from '../base/range-table.ts';
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

  /** Its first frame, and the one behind its last. */
  get start(): number {
    return this.baseGfn;
  }

  get end(): number {
    return this.baseGfn + this.npages;
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

/** The memslots of one address space: by id, and by guest frame number. */
export class MemslotSet {
  readonly #byId = new IdTable<EmulatedMemslot>();
  readonly #byFrame = new RangeTable<EmulatedMemslot>();
  #last: EmulatedMemslot | undefined;

  get(id: number): EmulatedMemslot | undefined {
    return this.#byId.get(id);
  }

  get size(): number {
    return this.#byFrame.length;
  }

  /** In ascending order of guest address. */
  [Symbol.iterator](): IterableIterator<EmulatedMemslot> {
    return this.#byFrame.entries[Symbol.iterator]();
  }

  add(slot: EmulatedMemslot): void {
    this.#byId.set(slot.id, slot);
    this.#byFrame.insert(slot);
  }

  delete(slot: EmulatedMemslot): void {
    this.#byId.delete(slot.id);
    this.#byFrame.remove(slot);
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
    const slot = this.#byFrame.find(gfn);
    if (slot !== undefined) this.#last = slot;
    return slot;
  }

  /** A slot other than `except` with pages in [baseGfn, baseGfn + npages). */
  overlapping(baseGfn: number, npages: number, except: number): EmulatedMemslot | undefined {
    return this.#byFrame.overlapping(baseGfn, baseGfn + npages, this.#byId.get(except));
  }
}
