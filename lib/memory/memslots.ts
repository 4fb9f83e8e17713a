import { inspect } from 'node:util';
import {
  checkInstance,
  checkInteger,
  checkObject,
  checkOptions,
  checkU32,
  checkU64,
  type NamesOf,
} from '../base/arguments.ts';
import { hex, hexRange, type KvmError } from '../base/errors.ts';
import { IdTable } from '../base/id-table.ts';
import { humanSize, table } from '../base/text.ts';
import type { Hva, U64 } from '../base/u64.ts';
import { callFailure } from '../calls/failure.ts';
import type { KvmCalls } from '../calls/kvm-calls.ts';
import { type KnownMemslot, type MemslotContext, type MemslotLimits, memslotRules } from '../rules/memslot.ts';
import { explain, type Rule } from '../rules/rule.ts';
import { ERRNO } from '../uapi/errno.ts';
import { MEM } from '../uapi/flags.ts';
import { asIdOf, slotIdOf } from '../uapi/slot-word.ts';
import { Mapping } from './mapping.ts';

/** The fields of kvm_userspace_memory_region, or with guestMemfd of kvm_userspace_memory_region2. */
export interface UserMemoryRegion {
  /** Slot id; the address space stands in the upper half: as_id << 16 | id. */
  readonly slot: number;
  /** Bits of MEM. */
  readonly flags?: number;
  readonly guestPhysAddr: U64;
  /** Bytes; 0 deletes the slot. */
  readonly memorySize: U64;
  readonly userspaceAddr: Hva;
  /** Descriptor of a guest_memfd for private pages. Its presence makes this KVM_SET_USER_MEMORY_REGION2. */
  readonly guestMemfd?: number;
  readonly guestMemfdOffset?: U64;
}

const USER_MEMORY_REGION: NamesOf<UserMemoryRegion> = {
  slot: true,
  flags: true,
  guestPhysAddr: true,
  memorySize: true,
  userspaceAddr: true,
  guestMemfd: true,
  guestMemfdOffset: true,
};

/** A memslot as the kernel has it, by our books. */
export interface Memslot {
  readonly asId: number;
  readonly id: number;
  /** as_id << 16 | id, as the ioctls take it. */
  readonly word: number;
  readonly baseGfn: number;
  readonly npages: number;
  readonly flags: number;
  readonly hva: Hva;
  /** The mapping that it is inside of, which it pins; absent for memory that is none of ours. */
  readonly mapping: Mapping | undefined;
  /** Descriptor of the guest_memfd that it was made with, and where its pages begin there. */
  readonly guestMemfd?: number | undefined;
  readonly guestMemfdOffset?: U64 | undefined;
}

interface Entry extends Memslot {
  baseGfn: number;
  flags: number;
}

/** What is known of the VM that the slots belong to. */
export interface MemslotOwner {
  readonly calls: KvmCalls;
  readonly fd: number;
  readonly closed: boolean;
  readonly noun: string;
}

/** A guest_memfd: its descriptor, −1 once it is closed, and its bytes. */
interface KnownGuestMemfd {
  readonly fd: number;
  readonly size: number;
}

/** Slots appear and go: those who keep something per slot are told after the kernel said yes. */
export interface MemslotWatcher {
  /**
   * The kernel is about to be asked for a change by which it forgets what it knows of a slot's pages. It may refuse.
   * @param goes the slot is deleted, with whatever happens until then; else it is moved, or no longer logged
   */
  slotChanging?(slot: Memslot, goes: boolean): void;
  slotAdded?(slot: Memslot): void;
  slotMoved?(slot: Memslot): void;
  /** LOG_DIRTY_PAGES was turned on for a slot, by whoever has it. */
  slotLogged?(slot: Memslot): void;
  slotRemoved?(slot: Memslot): void;
}

/**
 * The books of a VM's memslots. The kernel is asked first, and the books change only after it said yes; what it
 * refused is explained from the books by the kernel's own rules.
 */
export class Memslots {
  readonly #owner: MemslotOwner;
  readonly #askLimits: () => MemslotLimits;
  /** Per address space: entries by id, ids that were given back, and the lowest that was never used. */
  readonly #spaces = new Map<number, { slots: IdTable<Entry>; recycled: number[]; next: number }>();
  readonly #watchers = new Set<MemslotWatcher>();
  /** The VM's guest_memfds that are open, as far as they were made here. */
  readonly #guestMemfds = new Set<WeakRef<KnownGuestMemfd>>();
  #totalPages = 0;
  #limits: MemslotLimits | undefined;
  #rules: readonly Rule<MemslotContext>[] | undefined;

  /** @param askLimits asks the VM's kernel; called once, when they are first needed */
  constructor(owner: MemslotOwner, askLimits: () => MemslotLimits) {
    this.#owner = owner;
    this.#askLimits = askLimits;
  }

  get calls(): KvmCalls {
    return this.#owner.calls;
  }

  /** Descriptor of the VM; −1 once it is closed. */
  get vm(): number {
    return this.#owner.fd;
  }

  /** Whose slots they are, as errors name it. */
  get noun(): string {
    return this.#owner.noun;
  }

  get closed(): boolean {
    return this.#owner.closed;
  }

  /** What the VM allows: NR_MEMSLOTS and the like. */
  get limits(): MemslotLimits {
    this.#limits ??= this.#askLimits();
    return this.#limits;
  }

  /** Number of slots in all address spaces. */
  get size(): number {
    let size = 0;
    for (const { slots } of this.#spaces.values()) size += slots.size;
    return size;
  }

  /** The slot with an id, in address space 0 unless another is named. */
  get(id: number, asId = 0): Memslot | undefined {
    return this.#spaces.get(checkU32(asId, 'asId'))?.slots.get(checkU32(id, 'id'));
  }

  /** As they are when the first is asked for. */
  *[Symbol.iterator](): Generator<Memslot> {
    yield* [...this.#spaces.values()].flatMap(({ slots }) => slots.values());
  }

  /** The slots of one address space, as they are when the first is asked for. */
  *inSpace(asId: number): Generator<Memslot> {
    const space = this.#spaces.get(checkU32(asId, 'asId'));
    if (space !== undefined) yield* space.slots.values();
  }

  /**
   * An id that no slot has: one that was given back, else the next. When all NR_MEMSLOTS are taken it is the first
   * id beyond, which the kernel refuses.
   */
  freeId(asId: number): number {
    const space = this.#space(checkU32(asId, 'asId'));
    for (let id = space.recycled.at(-1); id !== undefined; id = space.recycled.at(-1)) {
      if (!space.slots.has(id)) return id;
      space.recycled.pop();
    }
    while (space.slots.has(space.next)) space.next++;
    return space.next;
  }

  /**
   * KVM_SET_USER_MEMORY_REGION (or 2), and the books after it.
   * @returns the slot as it is then; undefined when it was deleted
   * @throws KvmError EINVAL, EEXIST, ENOMEM, EBADF … with slot, gpa, size and the rule that was broken
   */
  set(region: UserMemoryRegion, mapping?: Mapping): Memslot | undefined {
    const given = checkOptions(region, USER_MEMORY_REGION, 'region');
    const slot = checkU32(given.slot, 'region.slot');
    const flags = checkU32(given.flags ?? 0, 'region.flags');
    const gpa = checkU64(given.guestPhysAddr, 'region.guestPhysAddr');
    const size = checkU64(given.memorySize, 'region.memorySize');
    const hva = checkU64(given.userspaceAddr, 'region.userspaceAddr');
    const { guestMemfd } = given;
    if (guestMemfd !== undefined) checkInteger(guestMemfd, 'region.guestMemfd', -0x8000_0000, 0xffff_ffff);
    const offset = checkU64(given.guestMemfdOffset ?? 0, 'region.guestMemfdOffset');
    if (mapping !== undefined) checkInstance(mapping, 'mapping', Mapping);
    // A getter may have closed it: then the kernel is not asked.
    mapping?.pin();
    try {
      this.#announce(slot, flags, gpa, size);
      const result =
        guestMemfd === undefined
          ? this.calls.setUserMemoryRegion(this.vm, slot, flags, gpa, size, hva)
          : this.calls.setUserMemoryRegion2(this.vm, slot, flags, gpa, size, hva, guestMemfd, offset);
      if (result >= 0) {
        const entry = this.#book(slot, flags, gpa, size, hva, mapping);
        // Only a slot that was made just now can have taken one.
        if (entry !== undefined && (flags & MEM.GUEST_MEMFD) !== 0) {
          Object.assign(entry, { guestMemfd, guestMemfdOffset: offset });
        }
        return entry;
      }
      const asked = { slot, flags, guestPhysAddr: gpa, memorySize: size, userspaceAddr: hva, guestMemfdOffset: offset };
      throw this.#refusal(result, guestMemfd === undefined ? asked : { ...asked, guestMemfd });
    } finally {
      mapping?.unpin();
    }
  }

  /** Deletes a slot. @throws KvmError EINVAL when there is none */
  delete(word: number): void {
    this.set({ slot: checkU32(word, 'word'), guestPhysAddr: 0, memorySize: 0, userspaceAddr: 0 });
  }

  /** @internal */
  watch(watcher: MemslotWatcher): void {
    this.#watchers.add(checkObject(watcher, 'watcher'));
  }

  /** @internal */
  unwatch(watcher: MemslotWatcher): void {
    this.#watchers.delete(checkObject(watcher, 'watcher'));
  }

  /** @internal The VM is closed: its slots are gone, and what they pinned is let go. */
  clear(): void {
    const slots = [...this];
    this.#spaces.clear();
    for (const slot of slots) slot.mapping?.unpin();
    this.#totalPages = 0;
  }

  [inspect.custom](): string {
    if (this.closed) return 'Memslots of a closed VM';
    const { pageSize, userSlots } = this.limits;
    const rows = [...this].map((slot) => [
      slot.asId === 0 ? `${slot.id}` : `${slot.asId}:${slot.id}`,
      hexRange(BigInt(slot.baseGfn) * BigInt(pageSize), slot.npages * pageSize),
      humanSize(slot.npages * pageSize),
      `0x${slot.hva.toString(16)}`,
      flagNames(slot.flags),
    ]);
    const head = `Memslots (${rows.length} of ${userSlots})`;
    return rows.length === 0 ? head : `${head}\n${table(['slot', 'gpa', 'size', 'hva', 'flags'], rows)}`;
  }

  #space(asId: number): { slots: IdTable<Entry>; recycled: number[]; next: number } {
    let space = this.#spaces.get(asId);
    if (space === undefined) {
      space = { slots: new IdTable(), recycled: [], next: 0 };
      this.#spaces.set(asId, space);
    }
    return space;
  }

  #announce(word: number, flags: number, gpa: U64, size: U64): void {
    const slot = this.get(slotIdOf(word), asIdOf(word));
    if (slot === undefined) return;
    const goes = BigInt(size) === 0n;
    const stays = pages(gpa, this.calls.pageSize) === slot.baseGfn && (slot.flags & ~flags & MEM.LOG_DIRTY_PAGES) === 0;
    if (goes || !stays) for (const watcher of this.#watchers) watcher.slotChanging?.(slot, goes);
  }

  #book(word: number, flags: number, gpa: U64, size: U64, hva: Hva, shown: Mapping | undefined): Entry | undefined {
    const asId = asIdOf(word);
    const id = slotIdOf(word);
    const space = this.#space(asId);
    const existing = space.slots.get(id);
    const { pageSize } = this.calls;
    if (existing === undefined) {
      const baseGfn = pages(gpa, pageSize);
      const mapping = shown ?? Mapping.containing(this.calls, Number(hva), Number(size));
      const entry: Entry = { asId, id, word, baseGfn, npages: pages(size, pageSize), flags, hva, mapping };
      space.slots.set(id, entry);
      this.#totalPages += entry.npages;
      mapping?.pin();
      for (const watcher of this.#watchers) watcher.slotAdded?.(entry);
      return entry;
    }
    if (size === 0 || size === 0n) {
      space.slots.delete(id);
      space.recycled.push(id);
      this.#totalPages -= existing.npages;
      for (const watcher of this.#watchers) watcher.slotRemoved?.(existing);
      existing.mapping?.unpin();
      return undefined;
    }
    const baseGfn = pages(gpa, pageSize);
    const isLogged = (flags & ~existing.flags & MEM.LOG_DIRTY_PAGES) !== 0;
    existing.flags = flags;
    if (isLogged) for (const watcher of this.#watchers) watcher.slotLogged?.(existing);
    if (baseGfn !== existing.baseGfn) {
      existing.baseGfn = baseGfn;
      for (const watcher of this.#watchers) watcher.slotMoved?.(existing);
    }
    return existing;
  }

  #refusal(errno: number, region: UserMemoryRegion & { readonly flags: number }): KvmError {
    const { slot, guestPhysAddr, memorySize } = region;
    const version = region.guestMemfd === undefined ? 1 : 2;
    return callFailure(version === 1 ? 'setUserMemoryRegion' : 'setUserMemoryRegion2', errno, this, {
      slot: slotIdOf(slot),
      gpa: guestPhysAddr,
      size: memorySize,
      explanation: this.#explanation(errno, region, version),
    });
  }

  #explanation(
    errno: number,
    region: UserMemoryRegion & { readonly flags: number },
    version: 1 | 2,
  ): string | undefined {
    if (errno === -ERRNO.EBADF) return undefined;
    const asId = asIdOf(region.slot);
    const existing = this.get(slotIdOf(region.slot), asId);
    const { userspaceAddr: hva, memorySize: size } = region;
    // Before any kernel's own reason: the kernel that says so has been asked with other addresses.
    if (errno === -ERRNO.EPERM && Mapping.containing(this.calls, Number(hva), Number(size)) === undefined) {
      return `the host range ${hexRange(hva, size)} is not inside one mapping, and has memory of the process in it`;
    }
    this.#rules ??= memslotRules(this.limits);
    const broken = explain(
      this.#rules,
      {
        request: {
          version,
          slot: region.slot,
          flags: region.flags,
          gpa: BigInt(region.guestPhysAddr),
          size: BigInt(region.memorySize),
          hva: BigInt(region.userspaceAddr),
          guestMemfdOffset: BigInt(region.guestMemfdOffset ?? 0),
        },
        limits: this.limits,
        existing: existing === undefined ? undefined : known(existing),
        totalPages: this.#totalPages,
        overlapping: (baseGfn, npages) => this.#overlapping(asId, existing, baseGfn, npages),
      },
      errno,
    );
    return broken ?? this.#unbindable(region);
  }

  /** Why the pages of a guest_memfd can't be a slot's, after everything else was right. */
  #unbindable({ guestMemfd, guestMemfdOffset = 0, memorySize }: UserMemoryRegion): string | undefined {
    if (guestMemfd === undefined) return undefined;
    const start = BigInt(guestMemfdOffset);
    const end = start + BigInt(memorySize);
    const pages = `the range ${hexRange(start, memorySize)} of the guest_memfd ${guestMemfd}`;
    for (const slot of this) {
      const first = BigInt(slot.guestMemfdOffset ?? 0);
      const size = BigInt(slot.npages * this.limits.pageSize);
      if (slot.guestMemfd === guestMemfd && first < end && start < first + size) {
        return `${pages} overlaps ${hexRange(first, size)}, which is slot ${slot.id}'s`;
      }
    }
    const made = this.#guestMemfd(guestMemfd);
    if (made === undefined)
      return `${pages} can't be bound: this VM's createGuestMemfd gave no descriptor ${guestMemfd} that is open`;
    if (end > made.size) return `${pages} reaches beyond its end: it has ${hex(made.size)} bytes`;
    return `${pages} can't be bound: it was made without GUEST_MEMFD_FLAG.MMAP, and this VM has no private memory`;
  }

  /** @internal A guest_memfd was made for the VM. */
  addGuestMemfd(made: KnownGuestMemfd): void {
    this.#guestMemfds.add(new WeakRef(made));
  }

  #guestMemfd(fd: number): KnownGuestMemfd | undefined {
    for (const weak of this.#guestMemfds) {
      const made = weak.deref();
      if (made === undefined || made.fd < 0) this.#guestMemfds.delete(weak);
      else if (made.fd === fd) return made;
    }
    return undefined;
  }

  #overlapping(asId: number, except: Memslot | undefined, baseGfn: number, npages: number): KnownMemslot | undefined {
    for (const slot of this.inSpace(asId)) {
      if (slot !== except && slot.baseGfn < baseGfn + npages && slot.baseGfn + slot.npages > baseGfn)
        return known(slot);
    }
    return undefined;
  }
}

function known(slot: Memslot): KnownMemslot {
  return { ...slot, hva: BigInt(slot.hva) };
}

function pages(bytes: U64, pageSize: number): number {
  return typeof bytes === 'number' ? Math.floor(bytes / pageSize) : Number(bytes / BigInt(pageSize));
}

function flagNames(flags: number): string {
  return Object.entries(MEM)
    .filter(([, bit]) => (flags & bit) !== 0)
    .map(([name]) => name)
    .join(' | ');
}
