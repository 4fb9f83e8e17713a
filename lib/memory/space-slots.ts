import { normalU64 } from '../base/arguments.ts';
import type { U64 } from '../base/u64.ts';
import { MAX_SLOT_PAGES } from '../rules/memslot.ts';
import { MEM } from '../uapi/flags.ts';
import { slotWord } from '../uapi/slot-word.ts';
import { ForeignMemory } from './foreign-memory.ts';
import type { Mapping } from './mapping.ts';
import type { Memslot, Memslots } from './memslots.ts';
import type { MemoryRegion, Placement } from './region.ts';
import type { SpaceUser } from './space-user.ts';
import { Undo } from './undo.ts';

/** What the pieces of a region begin at that is too large for one slot: whole GiB. */
const SPLIT_UNIT = 2 ** 30;

/**
 * A VM's use of an address space: it turns each region into memslots of one of the VM's address spaces (as_id), and
 * keeps them as the regions change. Whatever fails midway is taken back.
 */
export class SpaceSlots implements SpaceUser {
  readonly memslots: Memslots;
  readonly asId: number;
  readonly settle: () => void;
  /** A region has one mostly: an array for it would be a fifth of what a slot takes. */
  readonly #slots = new Map<MemoryRegion, Memslot | readonly Memslot[]>();
  readonly #foreign: ForeignMemory;
  /** Whether slots are made with LOG_DIRTY_PAGES. */
  #logging = false;

  /** @param settle has the VM carry out what its guests stored before */
  constructor(memslots: Memslots, asId: number, settle: () => void) {
    this.memslots = memslots;
    this.settle = settle;
    this.#foreign = new ForeignMemory(memslots.calls);
    this.asId = asId;
  }

  get closed(): boolean {
    return this.memslots.closed;
  }

  /** The memslots of a region, in ascending order of address. */
  slotsOf(region: MemoryRegion): readonly Memslot[] {
    const slots = this.#slots.get(region) ?? [];
    return isSlot(slots) ? [slots] : slots;
  }

  add(region: MemoryRegion): void {
    this.#keep(region, this.#create(region, this.#flags(region, region.readOnly)));
  }

  #keep(region: MemoryRegion, slots: readonly Memslot[]): void {
    // What was pushed to has room for 16 more.
    this.#slots.set(region, slots.length === 1 ? slots[0]! : slots.slice());
  }

  remove(region: MemoryRegion): void {
    const slots = this.slotsOf(region);
    const undo = new Undo();
    for (const slot of slots) {
      undo.try(
        () => this.memslots.delete(slot.word),
        () => this.#restore(slot),
      );
    }
    this.#slots.delete(region);
  }

  /**
   * Regions that are gone will not come back. Until here they could, with their dirty bits, which are known again by their host
   * addresses.
   */
  concluded(): void {
    this.#foreign.hideUnless((mapping) => [...this.#slots.keys()].some((region) => region.mapping === mapping));
  }

  /** The VM is closed, or has another address space now. */
  release(): void {
    this.#foreign.hideUnless(() => false);
  }

  /** Moves the region's slots; those that would land on a neighbour still to be moved come after it. */
  move(region: MemoryRegion, from: number, to: number): void {
    const slots = [...this.slotsOf(region)];
    const distance = to - from;
    const order = distance > 0 ? slots.reverse() : slots;
    const undo = new Undo();
    for (const slot of order) {
      const before = slot.baseGfn * this.#pageSize;
      undo.try(
        () => this.#place(slot, before + distance, slot.flags),
        () => this.#place(slot, before, slot.flags),
      );
    }
  }

  /** READONLY cannot change on a live slot: the slots are deleted and made anew. */
  setReadOnly(region: MemoryRegion, readOnly: boolean): void {
    const slots = this.slotsOf(region);
    const flags = this.#flags(region, readOnly);
    const made: Memslot[] = [];
    const undo = new Undo();
    for (const slot of slots) {
      undo.try(
        () => this.memslots.delete(slot.word),
        () => this.#restore(slot),
      );
      undo.try(
        () => made.push(this.#recreate(slot, flags)),
        () => this.memslots.delete(slot.word),
      );
    }
    this.#keep(region, made);
  }

  /** Turns LOG_DIRTY_PAGES on or off for all regions, those to come included. */
  setLogging(on: boolean): void {
    const undo = new Undo();
    for (const region of this.#slots.keys()) {
      for (const slot of this.slotsOf(region)) {
        const before = slot.flags;
        const start = slot.baseGfn * this.#pageSize;
        const flags = on ? before | MEM.LOG_DIRTY_PAGES : before & ~MEM.LOG_DIRTY_PAGES;
        if (flags === before) continue;
        undo.try(
          () => this.#place(slot, start, flags),
          () => this.#place(slot, start, before),
        );
      }
    }
    this.#logging = on;
  }

  get #pageSize(): number {
    return this.memslots.calls.pageSize;
  }

  #flags({ guestMemfd }: MemoryRegion, readOnly: boolean): number {
    const flags = (readOnly ? MEM.READONLY : 0) | (this.#logging ? MEM.LOG_DIRTY_PAGES : 0);
    return guestMemfd === undefined ? flags : flags | MEM.GUEST_MEMFD;
  }

  #create(placement: Placement, flags: number): Memslot[] {
    const largest = Math.floor((MAX_SLOT_PAGES * this.#pageSize) / SPLIT_UNIT) * SPLIT_UNIT;
    const slots: Memslot[] = [];
    const undo = new Undo();
    for (let done = 0; done < placement.size; done += largest) {
      const size = Math.min(largest, placement.size - done);
      const word = slotWord(this.asId, this.memslots.freeId(this.asId));
      undo.try(
        () => {
          const hva = this.#foreign.hvaOf(placement.mapping) + placement.offset + done;
          const { mapping, guestMemfd, guestMemfdOffset = 0 } = placement;
          const pages = guestMemfd && { guestMemfd: guestMemfd.fd, guestMemfdOffset: guestMemfdOffset + done };
          slots.push(this.#set(word, flags, placement.start + done, size, hva, mapping, pages));
        },
        () => this.memslots.delete(word),
      );
    }
    return slots;
  }

  #set(
    word: number,
    flags: number,
    start: number,
    size: number,
    hva: number,
    mapping: Mapping,
    pages?: { readonly guestMemfd: number; readonly guestMemfdOffset: U64 },
  ): Memslot {
    const place = { guestPhysAddr: normalU64(start), memorySize: size, userspaceAddr: hva };
    return this.memslots.set({ slot: word, flags, ...place, ...pages }, mapping)!;
  }

  /** Changes a live slot's address or flags, or makes a deleted one anew. */
  #place(slot: Memslot, start: number, flags: number): Memslot {
    const { word, npages, hva, mapping, guestMemfd, guestMemfdOffset = 0 } = slot;
    const pages = guestMemfd === undefined ? undefined : { guestMemfd, guestMemfdOffset };
    return this.#set(word, flags, start, npages * this.#pageSize, Number(hva), mapping!, pages);
  }

  #recreate(slot: Memslot, flags: number): Memslot {
    return this.#place(slot, slot.baseGfn * this.#pageSize, flags);
  }

  /** Makes a deleted slot anew, and puts it where the old one stood in the books. */
  #restore(slot: Memslot): void {
    const restored = this.#recreate(slot, slot.flags);
    for (const [region, slots] of this.#slots) {
      if (slots === slot) this.#slots.set(region, restored);
      else if (!isSlot(slots) && slots.includes(slot))
        this.#slots.set(region, slots.with(slots.indexOf(slot), restored));
    }
  }
}

const isSlot = (slots: Memslot | readonly Memslot[]): slots is Memslot => !Array.isArray(slots);
