import { inspect } from 'node:util';
import { VmHpt } from '../arch/ppc64/handles/vm-hpt.ts';
import type { HtabLoops } from '../arch/ppc64/model/htab-loops.ts';
import { VmS390x } from '../arch/s390x/handles/vm.ts';
import type { VmCmma } from '../arch/s390x/handles/vm-cmma.ts';
import type { VmMemOp } from '../arch/s390x/handles/vm-mem-op.ts';
import type { VmStorageKeys } from '../arch/s390x/handles/vm-storage-keys.ts';
import type { AbsoluteMemory } from '../arch/s390x/model/memory.ts';
import type { EmulatedKernel } from '../backends/emulated.ts';
import { checkSize, checkU32, checkU64 } from '../base/arguments.ts';
import { hex, invalidArgType, KvmError } from '../base/errors.ts';
import type { U64 } from '../base/u64.ts';
import { Handle } from '../calls/handle.ts';
import type { KvmCalls } from '../calls/kvm-calls.ts';
import { AddressSpace } from '../memory/address-space.ts';
import { CoalescedMmioRing, type CoalescedWrite } from '../memory/coalesced-mmio.ts';
import { DirtyPages, type DirtyTracking } from '../memory/dirty-pages.ts';
import type { DirtyRing } from '../memory/dirty-ring.ts';
import type { Mapping, MappingOptions } from '../memory/mapping.ts';
import { Memslots, type UserMemoryRegion } from '../memory/memslots.ts';
import { MmioBus } from '../memory/mmio-bus.ts';
import { VmBinding } from '../memory/vm-binding.ts';
import { DIRTY_RING_RULES } from '../rules/dirty-ring.ts';
import { IOEVENTFD_RULES } from '../rules/io-bus.ts';
import { explain } from '../rules/rule.ts';
import { type Arch, isLittleEndianHost } from '../uapi/arch.ts';
import { CAP } from '../uapi/capabilities.ts';
import { ERRNO } from '../uapi/errno.ts';
import { IOEVENTFD, IRQFD } from '../uapi/flags.ts';
import { type Capability, capNumber } from './capabilities.ts';
import { type EventFd, Registration } from './eventfd.ts';
import { GuestMemfd } from './guest-memfd.ts';
import { memslotLimits } from './memslot-limits.ts';
import { Vcpu } from './vcpu.ts';

export interface IoeventfdOptions {
  /** Address, or port with `pio`. */
  readonly addr: U64;
  /** Bytes of the store that matches: 1, 2, 4, 8; 0 for any (KVM_CAP_IOEVENTFD_ANY_LENGTH). */
  readonly len: number;
  readonly eventfd: EventFd;
  /** Only stores of this value match. */
  readonly datamatch?: U64;
  readonly pio?: boolean;
}

export interface IrqfdOptions {
  readonly eventfd: EventFd;
  readonly gsi: number;
  /** Signalled when the guest acknowledges a level-triggered interrupt. */
  readonly resample?: EventFd;
}

/** /dev/kvm as its VMs use and show it. */
export interface VmKvm {
  readonly calls: KvmCalls;
  readonly backend: KvmCalls['backend'];
  readonly arch: Arch;
  readonly pageSize: number;
  /** The emulated kernel, where it is one: for `loadGuest`. */
  readonly emulated: EmulatedKernel | undefined;
  readonly htabLoops: HtabLoops | undefined;
  readonly vcpuMmapSize: number;
  createAddressSpace(): AddressSpace;
  /** Anonymous memory of `size` bytes, sparse. @throws KvmError ENOMEM */
  mapAnonymous(size: number, options?: MappingOptions): Mapping;
}

interface Bound {
  readonly space: AddressSpace;
  readonly binding: VmBinding;
  readonly dirtyPages: DirtyPages;
  /** The space was made here, and goes with the VM. */
  readonly own: boolean;
}

/** The kernel's side of dirty tracking, as this VM has set it up. */
class VmDirtyTracking implements DirtyTracking {
  manualProtect = 0;
  ringBytes = 0;
  ringWithBitmap = false;
  readonly collectors = new Map<number, DirtyPages>();
  readonly #vcpus: ReadonlySet<Vcpu>;

  constructor(vcpus: ReadonlySet<Vcpu>) {
    this.#vcpus = vcpus;
  }

  *rings(): Generator<DirtyRing> {
    for (const { dirtyRing } of this.#vcpus) if (dirtyRing !== undefined) yield dirtyRing;
  }
}

/**
 * A virtual machine. Its memory is an {@link AddressSpace}, of which it keeps the memslots; it can share one with
 * other VMs ({@link bind}).
 *
 * @example
 * using vm = kvm.createVm();
 * vm.memory.addRam(0, kvm.mapAnonymous(1 << 20));
 * const vcpu = vm.createVcpu();
 */
export class Vm extends Handle {
  protected override readonly noun = 'the VM';
  readonly kvm: VmKvm;
  readonly memslots: Memslots;
  /** I/O ports with handlers (x86_64). */
  readonly ports: MmioBus;
  readonly #spaces = new Map<number, Bound>();
  readonly #vcpus = new Set<Vcpu>();
  readonly #dirty: VmDirtyTracking;
  /** The VM's one ring, seen through one of its vCPUs. */
  #coalesced: { readonly vcpu: Vcpu; readonly ring: CoalescedMmioRing } | undefined;
  #zones = 0;
  #hpt: VmHpt | undefined;
  #s390x: VmS390x | undefined;
  #coalescedWrites: CoalescedWrite[] = [];

  constructor(kvm: VmKvm, fd: number) {
    super(kvm.calls, fd);
    this.kvm = kvm;
    this.#dirty = new VmDirtyTracking(this.#vcpus);
    this.memslots = new Memslots(this, () => memslotLimits(this.calls, this.fd));
    this.ports = new MmioBus('port', this.littleEndianHost);
  }

  /** Byte order of the structures shared with the kernel, and of the guest unless it chooses another. */
  get littleEndianHost(): boolean {
    return isLittleEndianHost(this.calls.arch);
  }

  /** Guest physical memory. */
  get memory(): AddressSpace {
    return this.#bound(0).space;
  }

  /** Dirty tracking of {@link memory}. */
  get dirtyPages(): DirtyPages {
    return this.#bound(0).dirtyPages;
  }

  /** The hashed page table (ppc64). @throws KvmError ENOTTY on other architectures */
  get hpt(): VmHpt {
    const { ppc64, arch } = this.calls;
    if (ppc64 === undefined) {
      const explanation = `hashed page tables are ppc64's, and this is ${arch}`;
      throw new KvmError(ERRNO.ENOTTY, { syscall: 'ioctl(KVM_PPC_GET_HTAB_FD)', explanation });
    }
    this.#hpt ??= new VmHpt(this, ppc64, this.kvm.htabLoops);
    return this.#hpt;
  }

  /** Absolute storage through the kernel, with storage keys (s390x). @throws KvmError ENOTTY on other architectures */
  get memOp(): VmMemOp {
    return this.s390x.memOp;
  }

  /** The storage keys (s390x). @throws KvmError ENOTTY on other architectures */
  get storageKeys(): VmStorageKeys {
    return this.s390x.storageKeys;
  }

  /** Collaborative memory management (s390x). @throws KvmError ENOTTY on other architectures */
  get cmma(): VmCmma {
    return this.s390x.cmma;
  }

  /** How much memory the guest can have (s390x), in bytes. @throws KvmError ENOTTY on other architectures */
  get memoryLimit(): bigint {
    return this.s390x.memoryLimit;
  }

  /** Sets it (s390x). @throws KvmError EBUSY once there is a vCPU, E2BIG for more than it is, EINVAL for 0 */
  setMemoryLimit(bytes: U64): void {
    this.s390x.setMemoryLimit(bytes);
  }

  /**
   * Absolute storage as it is now, for `translate`, `explainTranslation` and `mappedRanges` of kvm-bridge/s390x. Each
   * page is read from the kernel once, when it is first asked for.
   */
  absoluteMemory(): AbsoluteMemory {
    return this.s390x.absoluteMemory();
  }

  /** @internal */
  get s390x(): VmS390x {
    const { s390x, arch } = this.calls;
    if (s390x === undefined) {
      const explanation = `MEM_OP, storage keys and CMMA are s390x's, and this is ${arch}`;
      throw new KvmError(ERRNO.ENOTTY, { syscall: 'ioctl(KVM_S390_MEM_OP)', explanation });
    }
    this.#s390x ??= new VmS390x(this, s390x);
    return this.#s390x;
  }

  /** The vCPUs that are open. */
  get vcpus(): readonly Vcpu[] {
    return [...this.#vcpus];
  }

  /** Guest physical memory of another address space of the VM: 1 is that of system management mode on x86_64. */
  addressSpace(asId: number): AddressSpace {
    return this.#bound(checkU32(asId, 'asId')).space;
  }

  /** Dirty tracking of another address space. */
  dirtyPagesOf(asId: number): DirtyPages {
    return this.#bound(checkU32(asId, 'asId')).dirtyPages;
  }

  /**
   * Uses an address space that other VMs may use too: all its regions become memslots here, now and later. What was
   * bound before is let go.
   * @throws KvmError as for adding the regions; nothing is changed then
   */
  bind(space: AddressSpace, asId = 0): void {
    if (!(space instanceof AddressSpace)) throw invalidArgType('space', 'an instance of AddressSpace', space);
    const before = this.#spaces.get(checkU32(asId, 'asId'));
    before?.dirtyPages.stop();
    before?.space.unbind(before.binding);
    try {
      this.#bindTo(space, asId, false);
    } catch (error) {
      before?.space.bind(before.binding);
      throw error;
    }
    if (before?.own === true) before.space.close();
  }

  /** KVM_CREATE_VCPU; ids count up by default. @throws KvmError EEXIST for an id that is taken, EINVAL beyond the limit */
  createVcpu(id: U64 = this.#nextVcpuId()): Vcpu {
    checkU64(id, 'id');
    const runSize = this.kvm.vcpuMmapSize;
    const fd = this.calls.createVcpu(this.fd, id);
    if (fd < 0) {
      const taken = this.vcpus.some((vcpu) => BigInt(vcpu.id) === BigInt(id));
      const explanation =
        fd === -ERRNO.EEXIST && taken
          ? `there is a vCPU ${id} already`
          : fd === -ERRNO.EINVAL
            ? `vCPU id ${id}: ids must be below ${this.checkExtension('MAX_VCPU_ID')}, and there may be ${this.checkExtension('MAX_VCPUS')} vCPUs (there are ${this.#vcpus.size})`
            : undefined;
      throw this.failure(fd, 'ioctl(KVM_CREATE_VCPU)', { explanation });
    }
    const vcpu = new Vcpu(this, Number(id), fd, runSize, this.#dirty.ringBytes);
    this.#vcpus.add(vcpu);
    return vcpu;
  }

  /** KVM_CHECK_EXTENSION on the VM: 0 when it is absent. @example vm.checkExtension('NR_MEMSLOTS') */
  checkExtension(cap: Capability): number {
    return this.check(this.calls.checkExtension(this.fd, capNumber(cap)), 'ioctl(KVM_CHECK_EXTENSION)');
  }

  /** KVM_ENABLE_CAP on the VM. @throws KvmError EINVAL, E2BIG … @example vm.enableCap('MANUAL_DIRTY_LOG_PROTECT2', [1]) */
  enableCap(cap: Capability, args: readonly U64[] = [], flags = 0): void {
    const number = capNumber(cap);
    for (const [index, arg] of args.entries()) checkU64(arg, `args[${index}]`);
    const result = this.calls.enableCap(this.fd, number, checkU32(flags, 'flags'), args);
    if (result < 0) {
      const explanation = this.#explainRing(number, args[0] ?? 0, result) ?? `capability ${cap}`;
      throw this.failure(result, 'ioctl(KVM_ENABLE_CAP)', { explanation });
    }
    if (number === CAP.MANUAL_DIRTY_LOG_PROTECT2) this.#dirty.manualProtect = Number(args[0] ?? 0);
    if (number === CAP.DIRTY_LOG_RING || number === CAP.DIRTY_LOG_RING_ACQ_REL) this.#dirty.ringBytes = Number(args[0]);
    if (number === CAP.DIRTY_LOG_RING_WITH_BITMAP) this.#dirty.ringWithBitmap = true;
  }

  /**
   * Gives every vCPU that is made from now on a dirty ring, in place of bitmaps.
   * @param bytes a power of two, a page to what DIRTY_LOG_RING says; 16 bytes are one entry
   * @throws KvmError EINVAL, E2BIG with the rule that was broken
   */
  enableDirtyRing(bytes: number): void {
    const cap = this.checkExtension('DIRTY_LOG_RING') > 0 ? 'DIRTY_LOG_RING' : 'DIRTY_LOG_RING_ACQ_REL';
    this.enableCap(cap, [bytes]);
  }

  /**
   * KVM_SET_USER_MEMORY_REGION by hand; with `guestMemfd` the second version of it. The books of memslots follow.
   * @throws KvmError EINVAL, EEXIST, ENOMEM … with the rule that was broken
   * @example vm.setUserMemoryRegion({ slot: 9, guestPhysAddr: 0x10_0000, memorySize: 0x1000, userspaceAddr: ram.hva })
   */
  setUserMemoryRegion(region: UserMemoryRegion): void {
    if (typeof region !== 'object' || region === null) throw invalidArgType('region', 'an object', region);
    this.memslots.set(region);
  }

  /** KVM_CREATE_GUEST_MEMFD (6.8+, x86_64). @throws KvmError ENOTTY, EINVAL */
  createGuestMemfd(size: number, flags: U64 = 0): GuestMemfd {
    const fd = this.calls.createGuestMemfd(this.fd, checkSize(size, 'size'), checkU64(flags, 'flags'));
    return new GuestMemfd(this.calls, this.check(fd, 'ioctl(KVM_CREATE_GUEST_MEMFD)', { size }), size);
  }

  /** KVM_SET_MEMORY_ATTRIBUTES: MEMORY_ATTRIBUTE_PRIVATE, or 0 for shared. @throws KvmError ENOTTY, EINVAL */
  setMemoryAttributes(gpa: U64, size: U64, attributes: U64): void {
    const result = this.calls.setMemoryAttributes(
      this.fd,
      checkU64(gpa, 'gpa'),
      checkU64(size, 'size'),
      checkU64(attributes, 'attributes'),
      0,
    );
    this.check(result, 'ioctl(KVM_SET_MEMORY_ATTRIBUTES)', { gpa, size });
  }

  /** KVM_SET_TSS_ADDR: three pages below 4 GiB that Intel hosts need (x86_64). @throws KvmError ENOTTY, EINVAL */
  setTssAddr(gpa: U64): void {
    const result = this.calls.x86_64?.setTssAddr(this.fd, checkU64(gpa, 'gpa')) ?? -ERRNO.ENOTTY;
    this.check(result, 'ioctl(KVM_SET_TSS_ADDR)', { gpa });
  }

  /** KVM_SET_IDENTITY_MAP_ADDR (x86_64). @throws KvmError ENOTTY; EINVAL once there are vCPUs */
  setIdentityMapAddr(gpa: U64): void {
    const result = this.calls.x86_64?.setIdentityMapAddr(this.fd, checkU64(gpa, 'gpa')) ?? -ERRNO.ENOTTY;
    this.check(result, 'ioctl(KVM_SET_IDENTITY_MAP_ADDR)', { gpa });
  }

  /** KVM_CREATE_IRQCHIP: an interrupt controller in the kernel. @throws KvmError EEXIST, EINVAL */
  createIrqchip(): void {
    this.check(this.calls.createIrqchip(this.fd), 'ioctl(KVM_CREATE_IRQCHIP)');
  }

  /**
   * KVM_IOEVENTFD: a store to an address signals an eventfd, and the guest goes on without an exit. Closing takes it
   * back. @throws KvmError EINVAL, EEXIST, EBADF
   */
  ioeventfd(options: IoeventfdOptions): Registration {
    const { len, eventfd, pio = false } = options;
    const addr = checkU64(options.addr, 'addr');
    const datamatch = checkU64(options.datamatch ?? 0, 'datamatch');
    const flags = (options.datamatch === undefined ? 0 : IOEVENTFD.DATAMATCH) | (pio ? IOEVENTFD.PIO : 0);
    const result = this.calls.ioeventfd(this.fd, addr, checkU32(len, 'len'), eventfd.fd, flags, datamatch);
    if (result < 0) {
      const why =
        result === -ERRNO.EEXIST
          ? `there is an ioeventfd at ${hex(addr)} that this one would collide with`
          : explain(IOEVENTFD_RULES, { addr: BigInt(addr), len, flags }, result);
      const explanation = result === -ERRNO.EBADF && eventfd.closed ? 'the eventfd is closed' : why;
      throw this.failure(result, 'ioctl(KVM_IOEVENTFD)', { gpa: addr, explanation });
    }
    return new Registration(() => {
      if (this.closed || eventfd.closed) return;
      this.calls.ioeventfd(this.fd, addr, len, eventfd.fd, flags | IOEVENTFD.DEASSIGN, datamatch);
    });
  }

  /** KVM_IRQFD: signalling the eventfd injects an interrupt. Closing takes it back. @throws KvmError EINVAL, EBUSY, EAGAIN */
  irqfd({ eventfd, gsi, resample }: IrqfdOptions): Registration {
    checkU32(gsi, 'gsi');
    const flags = resample === undefined ? 0 : IRQFD.RESAMPLE;
    const result = this.calls.irqfd(this.fd, eventfd.fd, gsi, flags, resample?.fd ?? 0);
    const explanation =
      result === -ERRNO.EINVAL ? 'it needs an interrupt controller in the kernel: createIrqchip()' : undefined;
    this.check(result, 'ioctl(KVM_IRQFD)', { explanation });
    return new Registration(() => {
      if (!this.closed && !eventfd.closed) this.calls.irqfd(this.fd, eventfd.fd, gsi, IRQFD.DEASSIGN, 0);
    });
  }

  /**
   * KVM_REGISTER_COALESCED_MMIO: stores to a range are put aside, and come to the handlers (or to
   * {@link takeCoalescedWrites}) before the next exit. Closing takes it back.
   * @throws KvmError ENOTTY on s390x, EINVAL, ENOSPC
   */
  registerCoalescedMmio(addr: U64, size: number, { pio = false }: { readonly pio?: boolean } = {}): Registration {
    checkU64(addr, 'addr');
    const bus = pio ? 1 : 0;
    const result = this.calls.registerCoalescedMmio(this.fd, addr, checkU32(size, 'size'), bus);
    this.check(result, 'ioctl(KVM_REGISTER_COALESCED_MMIO)', { gpa: addr, size });
    this.#zones++;
    return new Registration(() => {
      this.drainCoalesced();
      this.#zones--;
      if (!this.closed) this.calls.unregisterCoalescedMmio(this.fd, addr, size, bus);
    });
  }

  /** The coalesced stores that no handler took, oldest first; they are forgotten here. */
  takeCoalescedWrites(): CoalescedWrite[] {
    this.drainCoalesced();
    return this.#coalescedWrites.splice(0);
  }

  /** Gives the coalesced stores there are to the handlers. Runs do so before each exit. */
  drainCoalesced(): void {
    if (this.#zones === 0) return;
    this.#coalescedRing()?.drain((write) => {
      const bus = write.pio ? this.ports : this.memory.mmio;
      if (!bus.write(Number(write.gpa), write.data)) this.#coalescedWrites.push(write);
    });
  }

  /** Empties the vCPUs' dirty rings for those who collect dirty pages; false when nobody does. */
  harvestDirtyRings(): boolean {
    const [collector] = this.#dirty.collectors.values();
    return collector !== undefined && collector.harvest() > 0;
  }

  /** An ioctl that isn't wrapped, over a number or a structure; its result. @throws KvmError */
  ioctl(request: number, arg: U64 | Uint8Array = 0): number {
    return this.check(this.calls.ioctlUnchecked(this.fd, checkU32(request, 'request'), arg), `ioctl(${hex(request)})`);
  }

  /** Closes the VM and its vCPUs, and lets go the memory that its slots pinned. Does nothing the second time. */
  override close(): void {
    if (this.closed) return;
    for (const vcpu of [...this.#vcpus]) vcpu.close();
    this.#hpt?.close();
    super.close();
    for (const { space, binding, dirtyPages, own } of this.#spaces.values()) {
      dirtyPages.release();
      space.unbind(binding);
      if (own) space.close();
    }
    this.memslots.clear();
  }

  /** @internal A vCPU was closed. */
  vcpuClosed(vcpu: Vcpu): void {
    this.#vcpus.delete(vcpu);
    if (this.#coalesced?.vcpu === vcpu) this.#coalesced = undefined;
  }

  [inspect.custom](_depth: number, options: object): string {
    if (this.closed) return 'Vm (closed)';
    const { backend, arch } = this.calls;
    return `Vm fd ${this.fd}, ${arch} on the ${backend === 'native' ? 'real' : 'emulated'} kernel, ${this.#vcpus.size} vCPUs\n${inspect(this.memory, options)}\n${inspect(this.memslots, options)}`;
  }

  #bound(asId: number): Bound {
    return this.#spaces.get(asId) ?? this.#bindTo(this.kvm.createAddressSpace(), asId, true);
  }

  #bindTo(space: AddressSpace, asId: number, own: boolean): Bound {
    const binding = new VmBinding(this.memslots, asId);
    // A closed VM has no memslots to keep; its memory can still be looked at.
    if (!this.closed) space.bind(binding);
    const bound = { space, binding, dirtyPages: new DirtyPages(space, binding, this.#dirty), own };
    this.#spaces.set(asId, bound);
    return bound;
  }

  #nextVcpuId(): number {
    let id = 0;
    for (const vcpu of this.#vcpus) id = Math.max(id, vcpu.id + 1);
    return id;
  }

  #coalescedRing(): CoalescedMmioRing | undefined {
    const [vcpu] = this.#vcpus;
    if (this.#coalesced === undefined && vcpu !== undefined) {
      const { pageSize, arch } = this.calls;
      const page = vcpu.mapPart(this.checkExtension('COALESCED_MMIO') * pageSize, pageSize);
      this.#coalesced = { vcpu, ring: new CoalescedMmioRing(page, arch) };
    }
    return this.#coalesced?.ring;
  }

  #explainRing(cap: number, bytes: U64, errno: number): string | undefined {
    if ((cap !== CAP.DIRTY_LOG_RING && cap !== CAP.DIRTY_LOG_RING_ACQ_REL) || errno === -ERRNO.EBADF) return undefined;
    const context = {
      bytes: BigInt(bytes),
      pageSize: this.calls.pageSize,
      maxBytes: this.checkExtension(cap),
      enabled: this.#dirty.ringBytes,
      vcpus: this.#vcpus.size,
    };
    return explain(DIRTY_RING_RULES, context, errno);
  }
}
