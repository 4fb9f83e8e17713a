import { CLEAR_DIRTY_LOG_RULES, GET_DIRTY_LOG_RULES } from '../rules/dirty-log.ts';
import { DIRTY_RING_RULES } from '../rules/dirty-ring.ts';
import {
  asIdOf,
  type MemslotContext,
  type MemslotLimits,
  type MemslotRequest,
  memslotChange,
  memslotRules,
  slotIdOf,
} from '../rules/memslot.ts';
import { type Rule, refusal } from '../rules/rule.ts';
import { CAP } from '../uapi/capabilities.ts';
import { ERRNO } from '../uapi/errno.ts';
import { DIRTY_LOG, MEM, MEMORY_ATTRIBUTE_PRIVATE } from '../uapi/flags.ts';
import type { ArchVm } from './arch-state.ts';
import type { DirtyRing } from './dirty-ring.ts';
import type { HostMemory, MmuNotifier } from './host-memory.ts';
import { IoBus, Irqfds } from './io-bus.ts';
import type { Machine, VmType } from './machine.ts';
import { EmulatedMemslot, type GuestMemfdPages, MemslotSet } from './memslots.ts';
import type { OpenFile } from './open-file.ts';
import { RangeSet } from './range-set.ts';

const U64 = 1n << 64n;

/** A guest_memfd of a VM; its bytes are nobody's but the guest's. */
export interface GuestMemfd extends OpenFile, GuestMemfdPages {
  readonly kind: 'guest_memfd';
  readonly vm: EmulatedVm;
}

/** What a VM knows of one of its vCPUs. */
export interface VcpuOfVm {
  readonly id: number;
  readonly running: boolean;
  readonly ring: DirtyRing | undefined;
}

/** One VM of the emulated kernel: address spaces of memslots, dirty tracking, buses, vCPUs. */
export class EmulatedVm<Arch extends ArchVm = ArchVm> implements OpenFile, MmuNotifier {
  readonly kind = 'vm';
  readonly machine: Machine;
  readonly memory: HostMemory;
  readonly type: VmType;
  /** What the architecture keeps of it. */
  readonly arch: Arch;
  readonly bus: IoBus;
  readonly irqfds = new Irqfds();
  readonly vcpus = new Map<number, VcpuOfVm>();
  /** One set of slots per address space. */
  readonly spaces: readonly MemslotSet[];
  /** Bytes of each vCPU's dirty ring; 0 = bitmaps. */
  dirtyRingBytes = 0;
  ringWithBitmap = false;
  /** Bits of DIRTY_LOG that ENABLE_CAP(MANUAL_DIRTY_LOG_PROTECT2) set. */
  manualProtect = 0;
  /** Called when slots of the VM were created, moved, deleted or changed: caches of translations end here. */
  readonly onMemslotsChanged = new Set<() => void>();
  readonly #limits: MemslotLimits;
  readonly #rules: readonly Rule<MemslotContext>[];
  readonly #private = new RangeSet();
  #totalPages = 0;

  constructor(machine: Machine, memory: HostMemory, type: VmType, createArch: (vm: EmulatedVm) => Arch) {
    this.machine = machine;
    this.memory = memory;
    this.type = type;
    this.spaces = Array.from({ length: type.addressSpaces }, () => new MemslotSet());
    this.bus = new IoBus(machine);
    this.#limits = {
      pageSize: machine.pageSize,
      userSlots: machine.userSlots,
      addressSpaces: type.addressSpaces,
      readonlyMem: machine.readonlyMem,
      guestMemfd: type.guestMemfd,
      version1RefusesFlags: machine.release.since(6, 8),
      hvaLimit: machine.hvaLimit,
      prepare: machine.memslotRules,
    };
    this.#rules = memslotRules(this.#limits);
    memory.notify(this);
    this.arch = createArch(this);
  }

  get pageSize(): number {
    return this.machine.pageSize;
  }

  get hasMemslots(): boolean {
    return this.spaces.some((space) => space.size !== 0);
  }

  // Memslots

  setUserMemoryRegion(request: MemslotRequest, guestMemfd: () => GuestMemfd | number): number {
    const space = this.spaces[asIdOf(request.slot)];
    const id = slotIdOf(request.slot);
    const existing = space?.get(id);
    const context: MemslotContext = {
      request,
      limits: this.#limits,
      existing,
      totalPages: this.#totalPages,
      overlapping: (baseGfn, npages) => space?.overlapping(baseGfn, npages, id),
    };
    const refused = refusal(this.#rules, context);
    if (refused !== 0 || space === undefined) return refused;
    const gfn = Number(request.gpa / BigInt(this.pageSize));
    const npages = Number(request.size / BigInt(this.pageSize));
    switch (memslotChange(context)) {
      case 'none':
        return 0;
      case 'create': {
        const slot = new EmulatedMemslot(id, asIdOf(request.slot), request.hva, npages, gfn, request.flags);
        const bound = (request.flags & MEM.GUEST_MEMFD) === 0 ? 0 : this.#bind(slot, request, guestMemfd());
        if (bound !== 0) return bound;
        this.#prepareDirtyBitmap(slot);
        space.add(slot);
        this.#totalPages += npages;
        this.arch.memslotCommitted?.(slot);
        break;
      }
      case 'delete':
        this.#flush(existing!);
        space.delete(existing!);
        this.#unbind(existing!);
        this.#totalPages -= existing!.npages;
        break;
      case 'move':
        this.#flush(existing!);
        space.move(existing!, gfn);
        existing!.invalid = false;
        this.#changeFlags(existing!, request.flags);
        this.arch.memslotCommitted?.(existing!);
        break;
      case 'flags-only':
        this.#changeFlags(existing!, request.flags);
        this.arch.memslotCommitted?.(existing!);
        break;
    }
    for (const changed of this.onMemslotsChanged) changed();
    return 0;
  }

  /** Nobody finds new memory through the slot from here on, and what was found is dropped. */
  #flush(slot: EmulatedMemslot): void {
    slot.invalid = true;
    this.arch.memslotFlushed?.(slot);
  }

  #changeFlags(slot: EmulatedMemslot, flags: number): void {
    slot.flags = flags;
    this.#prepareDirtyBitmap(slot);
  }

  /** A bitmap that exists is carried over with its content; a new one is clear, or all set where that was asked for. */
  #prepareDirtyBitmap(slot: EmulatedMemslot): void {
    if (!slot.logged) {
      slot.dirty = undefined;
      slot.unprotected = undefined;
      return;
    }
    if (this.dirtyRingBytes !== 0) slot.unprotected ??= new Uint8Array(slot.bitmapBytes);
    if ((this.dirtyRingBytes !== 0 && !this.ringWithBitmap) || slot.dirty !== undefined) return;
    slot.dirty = new Uint8Array(slot.bitmapBytes);
    if ((this.manualProtect & DIRTY_LOG.INITIALLY_SET) !== 0) {
      slot.dirty.fill(0xff, 0, slot.npages >> 3);
      if (slot.npages % 8 !== 0) slot.dirty[slot.npages >> 3] = (1 << (slot.npages % 8)) - 1;
    }
  }

  #bind(slot: EmulatedMemslot, request: MemslotRequest, file: GuestMemfd | number): number {
    if (typeof file === 'number') return file;
    const start = Number(request.guestMemfdOffset);
    const end = start + Number(request.size);
    if (file.vm !== this || end > file.size) return -ERRNO.EINVAL;
    if (file.bindings.some((binding) => binding.start < end && binding.end > start)) return -ERRNO.EINVAL;
    file.bindings.push({ slot, start, end });
    slot.guestMemfd = { pages: file, offset: start };
    return 0;
  }

  #unbind(slot: EmulatedMemslot): void {
    const bindings = slot.guestMemfd?.pages.bindings;
    if (bindings === undefined) return;
    bindings.splice(
      bindings.findIndex((binding) => binding.slot === slot),
      1,
    );
  }

  /** The slot that holds a gfn and may be used: absent while it is being deleted or moved. */
  usableSlot(gfn: number, asId = 0): EmulatedMemslot | undefined {
    const slot = this.spaces[asId]?.find(gfn);
    return slot === undefined || slot.invalid ? undefined : slot;
  }

  /** Host virtual address behind a guest frame of a slot. Whether anything is there is for {@link HostMemory} to say. */
  hostAddress(slot: EmulatedMemslot, gfn: number): number {
    return slot.hostAddress + (gfn - slot.baseGfn) * this.pageSize;
  }

  // Dirty tracking

  /** Notes that a page was changed on the guest's behalf; by `vcpu` if one was running. */
  markDirty(slot: EmulatedMemslot, gfn: number, vcpu?: VcpuOfVm): void {
    if (!slot.logged) return;
    const page = gfn - slot.baseGfn;
    if (this.dirtyRingBytes !== 0 && vcpu?.ring !== undefined) {
      // The guest's first store to a page is noticed, later ones only after the entry was reset; KVM's own stores always.
      const byte = page >> 3;
      const bit = 1 << (page & 7);
      if ((slot.unprotected![byte]! & bit) !== 0 && !this.machine.emulatesGuestCode) return;
      slot.unprotected![byte]! |= bit;
      vcpu.ring.push((slot.asId << 16) | slot.id, page);
    } else if (slot.dirty !== undefined) {
      slot.dirty[page >> 3]! |= 1 << (page & 7);
    }
  }

  /** User space's pages are others: the guest's next access to each is noticed again. */
  invalidated(start: number, end: number): void {
    if (this.dirtyRingBytes === 0 && this.arch.pagesInvalidated === undefined) return;
    for (const slot of this.spaces.flatMap((space) => [...space])) {
      const first = Math.max(0, (start - slot.hostAddress) / this.pageSize);
      const last = Math.min(slot.npages, (end - slot.hostAddress) / this.pageSize);
      if (first >= last) continue;
      this.arch.pagesInvalidated?.(slot.baseGfn + first, slot.baseGfn + last);
      if (slot.unprotected === undefined) continue;
      for (let page = first; page < last; page++) slot.unprotected[page >> 3]! &= ~(1 << (page & 7));
    }
  }

  getDirtyLog(slotWord: number, bitmap: Uint8Array | null): number {
    if (this.arch.getDirtyLog !== undefined) return this.arch.getDirtyLog(slotWord, bitmap);
    const slot = this.#slotOf(slotWord);
    const refused = refusal(GET_DIRTY_LOG_RULES, this.dirtyLogContext(slotWord));
    if (refused !== 0) return refused;
    const answer = slot!.dirty!.slice();
    // Cleared before it is copied: bits that can't be delivered are lost.
    if (this.manualProtect === 0) slot!.dirty!.fill(0);
    return copyOut(answer, bitmap);
  }

  clearDirtyLog(slotWord: number, firstPage: bigint, numPages: number, bitmap: Uint8Array | null): number {
    if (this.machine.manualProtect === 0) return -ERRNO.ENOTTY;
    const context = { ...this.dirtyLogContext(slotWord), firstPage, numPages };
    const refused = refusal(CLEAR_DIRTY_LOG_RULES, context);
    if (refused !== 0) return refused;
    const length = Math.ceil(numPages / 64) * 8;
    if (length > (bitmap?.length ?? 0)) return -ERRNO.EFAULT;
    const { dirty } = this.#slotOf(slotWord)!;
    const start = Number(firstPage) >> 3;
    for (let i = 0; i < length; i++) dirty![start + i]! &= ~bitmap![i]!;
    return 0;
  }

  /** The VM's side of the GET_DIRTY_LOG rules. */
  dirtyLogContext(slotWord: number) {
    return {
      slot: slotWord,
      userSlots: this.machine.userSlots,
      addressSpaces: this.spaces.length,
      ringOnly: this.dirtyRingBytes !== 0 && !this.ringWithBitmap,
      existing: this.#slotOf(slotWord),
    };
  }

  resetDirtyRings(): number {
    if (this.dirtyRingBytes === 0) return -ERRNO.EINVAL;
    let count = 0;
    for (const vcpu of this.vcpus.values()) {
      count += vcpu.ring!.takeReset((slotWord, offset) => {
        const slot = this.#slotOf(slotWord);
        // Entries of slots that are gone, or were shorter, are counted and otherwise ignored.
        if (slot?.unprotected === undefined || offset >= slot.npages) return;
        slot.unprotected[offset >> 3]! &= ~(1 << (offset & 7));
      });
    }
    return count;
  }

  #slotOf(slotWord: number): EmulatedMemslot | undefined {
    return this.spaces[asIdOf(slotWord)]?.get(slotIdOf(slotWord));
  }

  // Capabilities and attributes

  checkExtension(cap: number): number {
    return this.type.capabilities.get(cap) ?? this.machine.capabilities.get(cap) ?? 0;
  }

  enableCap(cap: number, flags: number, args: readonly bigint[]): number {
    switch (cap) {
      case CAP.MANUAL_DIRTY_LOG_PROTECT2: {
        if (this.machine.manualProtect === 0) return -ERRNO.EINVAL;
        const allowed =
          (args[0]! & BigInt(DIRTY_LOG.MANUAL_PROTECT_ENABLE)) === 0n
            ? BigInt(DIRTY_LOG.MANUAL_PROTECT_ENABLE)
            : BigInt(this.machine.manualProtect);
        if (flags !== 0 || (args[0]! & ~allowed) !== 0n) return -ERRNO.EINVAL;
        this.manualProtect = Number(args[0]);
        return 0;
      }
      case CAP.DIRTY_LOG_RING:
      case CAP.DIRTY_LOG_RING_ACQ_REL: {
        const refused = refusal(DIRTY_RING_RULES, {
          bytes: args[0]!,
          pageSize: this.pageSize,
          maxBytes: this.checkExtension(cap),
          enabled: this.dirtyRingBytes,
          vcpus: this.vcpus.size,
        });
        if (refused === 0) this.dirtyRingBytes = Number(args[0]);
        return refused;
      }
      case CAP.DIRTY_LOG_RING_WITH_BITMAP: {
        const possible = this.checkExtension(cap) !== 0 && this.dirtyRingBytes !== 0;
        if (!possible || flags !== 0 || this.hasMemslots) return -ERRNO.EINVAL;
        this.ringWithBitmap = true;
        return 0;
      }
      default:
        return flags !== 0 ? -ERRNO.EINVAL : (this.arch.enableCap?.(cap, args) ?? -ERRNO.EINVAL);
    }
  }

  setMemoryAttributes(address: bigint, size: bigint, attributes: bigint, flags: bigint): number {
    const supported = this.type.privateMemory ? BigInt(MEMORY_ATTRIBUTE_PRIVATE) : 0n;
    const page = BigInt(this.pageSize);
    if (flags !== 0n || (attributes & ~supported) !== 0n) return -ERRNO.EINVAL;
    if (size === 0n || address + size >= U64 || address % page !== 0n || size % page !== 0n) return -ERRNO.EINVAL;
    const start = Number(address / page);
    const end = Number((address + size) / page);
    if (attributes === 0n) this.#private.delete(start, end);
    else this.#private.add(start, end);
    return 0;
  }

  isPrivate(gfn: number): boolean {
    return this.#private.has(gfn);
  }
}

/** copy_to_user: what fits is filled, and a buffer that is too short is EFAULT. */
export function copyOut(from: Uint8Array, to: Uint8Array | null): number {
  if (to === null) return -ERRNO.EFAULT;
  to.set(from.subarray(0, Math.min(from.length, to.length)));
  return to.length < from.length ? -ERRNO.EFAULT : 0;
}
