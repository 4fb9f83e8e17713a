import { VIEW_WINDOW } from '../calls/kvm-calls.ts';
import {
  type MemslotContext,
  type MemslotLimits,
  type MemslotRequest,
  memslotChange,
  memslotRules,
} from '../rules/memslot.ts';
import { type Rule, refusal } from '../rules/rule.ts';
import { CAP } from '../uapi/capabilities.ts';
import { ERRNO } from '../uapi/errno.ts';
import { MEM, MEMORY_ATTRIBUTE_PRIVATE } from '../uapi/flags.ts';
import { asIdOf, slotIdOf } from '../uapi/slot-word.ts';
import type { ArchVm } from './arch-state.ts';
import { DirtyLog } from './dirty-log.ts';
import type { EmulatedDirtyRing } from './dirty-ring.ts';
import { FrameRanges } from './frame-ranges.ts';
import type { EmulatedGuestMemfd } from './guest-memfd.ts';
import type { EmulatedHostMemory, MmuNotifier } from './host-memory.ts';
import { IoBus } from './io-bus.ts';
import { Irqfds } from './irqfds.ts';
import type { Machine, VmType } from './machine.ts';
import { type BoundPages, EmulatedMemslot, MemslotSet } from './memslots.ts';
import type { OpenFile } from './open-file.ts';
import type { Accessor } from './step.ts';

const U64 = 1n << 64n;

export type GuestMemfdOfVm = EmulatedGuestMemfd<EmulatedVm>;

/** What a VM knows of one of its vCPUs. */
export interface VcpuOfVm {
  readonly id: number;
  readonly running: boolean;
  readonly ring: EmulatedDirtyRing | undefined;
}

/** One VM of the emulated kernel: address spaces of memslots, dirty tracking, buses, vCPUs. */
export class EmulatedVm<Arch extends ArchVm = ArchVm> implements OpenFile, MmuNotifier {
  readonly kind = 'vm';
  readonly machine: Machine;
  readonly memory: EmulatedHostMemory;
  readonly type: VmType;
  /** What the architecture keeps of it. */
  readonly arch: Arch;
  readonly bus: IoBus;
  readonly irqfds = new Irqfds();
  readonly vcpus = new Map<number, VcpuOfVm>();
  /** One set of slots per address space. */
  readonly spaces: readonly MemslotSet[];
  readonly dirtyLog: DirtyLog;
  /** Called when slots of the VM were created, moved, deleted or changed: caches of translations end here. */
  readonly onMemslotsChanged = new Set<() => void>();
  readonly #limits: MemslotLimits;
  readonly #rules: readonly Rule<MemslotContext>[];
  #totalPages = 0;
  readonly #privateFrames = new FrameRanges();
  /** Its descriptor, and those of vCPUs and of the table. */
  #holders = 1;
  /** Frames without memory that the guest accessed. They stay a device's until memslots change, even where they become private. */
  readonly #devices = new Set<number>();

  constructor(machine: Machine, memory: EmulatedHostMemory, type: VmType, createArch: (vm: EmulatedVm) => Arch) {
    this.machine = machine;
    this.memory = memory;
    this.type = type;
    this.spaces = Array.from({ length: type.addressSpaces }, () => new MemslotSet());
    this.dirtyLog = new DirtyLog(machine, this.spaces);
    this.bus = new IoBus(machine);
    this.arch = createArch(this);
    this.#limits = {
      pageSize: machine.pageSize,
      userSlots: machine.userSlots,
      addressSpaces: type.addressSpaces,
      readonlyMem: machine.readonlyMem,
      guestMemfd: type.guestMemfd,
      version1RefusesFlags: machine.release.since(6, 8),
      hvaLimit: machine.hvaLimit,
      prepare: this.arch.memslotRules ?? machine.memslotRules,
    };
    this.#rules = memslotRules(this.#limits);
    memory.notify(this);
  }

  get pageSize(): number {
    return this.machine.pageSize;
  }

  released(): void {
    this.irqfds.clear();
    this.letGo();
  }

  adopt(vcpu: VcpuOfVm): void {
    this.vcpus.set(vcpu.id, vcpu);
    this.hold();
  }

  /** Somebody has a descriptor through which it lives on. */
  hold(): void {
    this.#holders++;
  }

  /** With the last of them nobody has to tell it any more of what becomes of memory. */
  letGo(): void {
    this.#holders--;
    if (this.#holders > 0) return;
    this.memory.forget(this);
    this.arch.released?.();
  }

  // Memslots

  setUserMemoryRegion(request: MemslotRequest, guestMemfd: () => GuestMemfdOfVm | number): number {
    const space = this.spaces[asIdOf(request.slot)];
    const id = slotIdOf(request.slot);
    const existing = space?.get(id);
    const context: MemslotContext = {
      request,
      limits: this.#limits,
      existing,
      totalPages: this.#totalPages,
      overlapping: (baseGfn, npages) => space!.overlapping(baseGfn, npages, id),
      hasUnwritable: (hva, size) => this.memory.hasUnwritable(Number(hva), Number(size)),
    };
    const refused = refusal(this.#rules, context);
    if (refused !== 0) return refused;
    const gfn = Number(request.gpa / BigInt(this.pageSize));
    const npages = Number(request.size / BigInt(this.pageSize));
    switch (memslotChange(context)) {
      case 'none':
        return 0;
      case 'create': {
        const slot = new EmulatedMemslot(id, asIdOf(request.slot), request.hva, npages, gfn, request.flags);
        const bound = (request.flags & MEM.GUEST_MEMFD) === 0 ? 0 : this.#bind(slot, request, guestMemfd());
        if (bound !== 0) return bound;
        if (this.memory.isCrossed(Number(request.hva), Number(request.size))) {
          this.#unbind(slot);
          return -ERRNO.EPERM;
        }
        this.dirtyLog.flagsChanged(slot);
        space!.add(slot);
        this.#totalPages += npages;
        this.arch.memslotCommitted?.(slot);
        break;
      }
      case 'delete':
        this.#flush(existing!);
        space!.delete(existing!);
        this.#unbind(existing!);
        this.#totalPages -= existing!.npages;
        break;
      case 'move':
        this.#flush(existing!);
        space!.move(existing!, gfn);
        existing!.invalid = false;
        this.#changeFlags(existing!, request.flags);
        this.arch.memslotCommitted?.(existing!);
        break;
      case 'flags-only':
        this.#changeFlags(existing!, request.flags);
        this.arch.memslotCommitted?.(existing!);
        break;
    }
    this.#devices.clear();
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
    this.dirtyLog.flagsChanged(slot);
  }

  #bind(slot: EmulatedMemslot, request: MemslotRequest, file: GuestMemfdOfVm | number): number {
    if (typeof file === 'number') return file;
    const start = Number(request.guestMemfdOffset);
    const end = start + Number(request.size);
    if (file.vm !== this || end > file.size) return -ERRNO.EINVAL;
    if (file.bindings.some((binding) => binding.start < end && binding.end > start)) {
      return this.machine.release.since(7, 0) ? -ERRNO.EEXIST : -ERRNO.EINVAL;
    }
    if (this.machine.bindsMappableOnly && !file.mappable) return -ERRNO.EINVAL;
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

  /** Whether a guest frame is private, by its attributes. */
  isPrivate(gfn: number): boolean {
    return this.#privateFrames.has(gfn) && !this.#devices.has(gfn);
  }

  /** The guest accessed a frame without memory. */
  accessedDevice(gfn: number): void {
    if (this.type.privateMemory) this.#devices.add(gfn);
  }

  /**
   * Where the guest finds a page of a slot: in a guest_memfd, if the page is private or the file can be mapped; undefined
   * where it is user space's; `missing` where nothing is there for it. What KVM itself does for a guest always goes to user space's address.
   */
  #guestPages(slot: EmulatedMemslot, gfn: number): BoundPages | 'missing' | undefined {
    const { guestMemfd } = slot;
    if (this.machine.emulatesGuestCode || !this.isGuestMemfds(slot, gfn)) return undefined;
    return guestMemfd === undefined || guestMemfd.pages.closed ? 'missing' : guestMemfd;
  }

  /** Whether the guest's page is that of a guest_memfd, or nothing at all. */
  isGuestMemfds(slot: EmulatedMemslot | undefined, gfn: number): boolean {
    return this.isPrivate(gfn) || slot?.guestMemfd?.pages.mappable === true;
  }

  /** Moves bytes of the guest's between a part of one page of a slot and `bytes`; how many could be moved. */
  moveGuest(slot: EmulatedMemslot, gpa: number, bytes: Uint8Array, write: boolean): number {
    const offset = gpa - slot.baseGfn * this.pageSize;
    const found = this.#guestPages(slot, Math.floor(gpa / this.pageSize));
    if (found === 'missing') return 0;
    if (found === undefined) return this.moveHost(slot, gpa, bytes, write);
    const at = found.offset + offset;
    const page = new Uint8Array(found.pages.backing.window(at), at % VIEW_WINDOW, bytes.length);
    if (write) page.set(bytes);
    else bytes.set(page);
    return bytes.length;
  }

  /** Where an access has to wait for a page that a userfaultfd is to bring: until it may be tried again. */
  waits(gpa: number, write: boolean, by: Accessor): Promise<void> | undefined {
    const gfn = Math.floor(gpa / this.pageSize);
    const slot = this.usableSlot(gfn);
    if (slot === undefined || !this.mustWait(slot, gfn, write, by)) return undefined;
    const { served } = this.memory;
    const page = this.hostAddress(slot, gfn);
    served.fault(page, write);
    return new Promise((wake) => served.whenWoken(page, wake));
  }

  /** Whether that is so of a page of a slot; nobody hears of it. */
  mustWait(slot: EmulatedMemslot, gfn: number, write: boolean, by: Accessor): boolean {
    if (!this.memory.served.isServing || (by === 'guest' && this.#guestPages(slot, gfn) !== undefined)) return false;
    return this.memory.whyNot(this.hostAddress(slot, gfn), write) === -ERRNO.EAGAIN;
  }

  /** The same with the memory at user space's address, whatever the guest has there. */
  moveHost(slot: EmulatedMemslot, gpa: number, bytes: Uint8Array, write: boolean): number {
    const hva = slot.hostAddress + gpa - slot.baseGfn * this.pageSize;
    return write ? this.memory.write(hva, bytes) : this.memory.read(hva, bytes);
  }

  /** Whether a page of a slot is there for the guest. */
  hasGuestPage(slot: EmulatedMemslot, gfn: number, write: boolean): boolean {
    const found = this.#guestPages(slot, gfn);
    return found === undefined ? this.memory.canAccess(this.hostAddress(slot, gfn), write) : found !== 'missing';
  }

  /** The slot that holds a gfn and may be used: absent while it is being deleted or moved. */
  usableSlot(gfn: number, asId = 0): EmulatedMemslot | undefined {
    const slot = this.spaces[asId]?.find(gfn);
    return slot === undefined || slot.invalid ? undefined : slot;
  }

  /** Host virtual address behind a guest frame of a slot. Whether anything is there is for {@link EmulatedHostMemory} to say. */
  hostAddress(slot: EmulatedMemslot, gfn: number): number {
    return slot.hostAddress + (gfn - slot.baseGfn) * this.pageSize;
  }

  // Dirty tracking

  /** User space's pages are others: the guest's next access to each is noticed again. */
  invalidated(start: number, end: number): void {
    if (!this.dirtyLog.usesRings && this.arch.pagesInvalidated === undefined) return;
    for (const slot of this.spaces.flatMap((space) => [...space])) {
      const first = Math.max(0, (start - slot.hostAddress) / this.pageSize);
      const last = Math.min(slot.npages, (end - slot.hostAddress) / this.pageSize);
      if (first >= last) continue;
      this.arch.pagesInvalidated?.(slot.baseGfn + first, slot.baseGfn + last);
      this.dirtyLog.pagesChanged(slot, first, last);
    }
  }

  getDirtyLog(slotWord: number, bitmap: Uint8Array | null): number {
    return this.dirtyLog.get(slotWord, bitmap, (slot) => this.arch.syncDirtyLog?.(slot));
  }

  resetDirtyRings(): number {
    return this.dirtyLog.resetRings([...this.vcpus.values()].map(({ ring }) => ring));
  }

  // Capabilities and attributes

  checkExtension(cap: number): number {
    return this.type.capabilities.get(cap) ?? this.machine.capabilities.get(cap) ?? 0;
  }

  enableCap(cap: number, flags: number, args: readonly bigint[]): number {
    switch (cap) {
      case CAP.MANUAL_DIRTY_LOG_PROTECT2:
        return this.dirtyLog.enableManualProtect(flags, args[0]!);
      case CAP.DIRTY_LOG_RING:
      case CAP.DIRTY_LOG_RING_ACQ_REL:
        // The kernel's parameter is a u32.
        return this.dirtyLog.enableRings(args[0]! & 0xffff_ffffn, this.checkExtension(cap), this.vcpus.size);
      case CAP.DIRTY_LOG_RING_WITH_BITMAP:
        return this.dirtyLog.enableRingWithBitmap(flags, this.checkExtension(cap) !== 0);
      default:
        return flags !== 0 ? -ERRNO.EINVAL : (this.arch.enableCap?.(cap, args) ?? -ERRNO.EINVAL);
    }
  }

  setMemoryAttributes(address: bigint, size: bigint, attributes: bigint, flags: bigint): number {
    const supported = this.type.privateMemory ? BigInt(MEMORY_ATTRIBUTE_PRIVATE) : 0n;
    const page = BigInt(this.pageSize);
    if (flags !== 0n || (attributes & ~supported) !== 0n) return -ERRNO.EINVAL;
    if (size === 0n || address + size >= U64 || address % page !== 0n || size % page !== 0n) return -ERRNO.EINVAL;
    const frame = (at: bigint): number => Number(at / page);
    this.#privateFrames.set(frame(address), frame(address + size), attributes !== 0n);
    this.arch.pagesInvalidated?.(frame(address), frame(address + size));
    return 0;
  }
}
