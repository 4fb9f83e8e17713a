import { inspect } from 'node:util';
import { VmPpc64 } from '../arch/ppc64/handles/vm.ts';
import type { VmHpt } from '../arch/ppc64/handles/vm-hpt.ts';
import type { HtabLoops } from '../arch/ppc64/model/htab-loops.ts';
import { VmS390x } from '../arch/s390x/handles/vm.ts';
import type { VmCmma } from '../arch/s390x/handles/vm-cmma.ts';
import type { VmMemOp } from '../arch/s390x/handles/vm-mem-op.ts';
import type { VmStorageKeys } from '../arch/s390x/handles/vm-storage-keys.ts';
import { VmX86_64 } from '../arch/x86_64/handles/vm.ts';
import type { EmulatedKernel } from '../backends/emulated.ts';
import { checkSize, checkU32, checkU64, checkU64s } from '../base/arguments.ts';
import { counted } from '../base/text.ts';
import type { U64 } from '../base/u64.ts';
import { Handle } from '../calls/handle.ts';
import type { KvmCalls } from '../calls/kvm-calls.ts';
import type { DirtyPages } from '../memory/dirty-pages.ts';
import type { Mapping, MappingOptions } from '../memory/mapping.ts';
import type { Memslots, UserMemoryRegion } from '../memory/memslots.ts';
import { GUEST_MEMFD_RULES } from '../rules/guest-memfd.ts';
import { explain } from '../rules/rule.ts';
import type { AddressSpace } from '../sharing/address-space.ts';
import type { Arch } from '../uapi/arch.ts';
import { ERRNO } from '../uapi/errno.ts';
import { archCalls } from './arch-calls.ts';
import { type Capability, capNumber, ENABLE_CAP_ARGS } from './capabilities.ts';
import { GuestMemfd } from './guest-memfd.ts';
import type { VcpuExit } from './kvm-run.ts';
import type { ParkedVcpu } from './parked-vcpu.ts';
import { Vcpu } from './vcpu.ts';
import { VmDirtyTracking } from './vm-dirty-tracking.ts';
import { VmIo } from './vm-io.ts';
import { VmMemory } from './vm-memory.ts';

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
  /** Anonymous memory of `size` bytes, sparse. @throws KvmError ENOMEM */
  mapAnonymous(size: number, options?: MappingOptions): Mapping;
}

/**
 * A virtual machine. Its memory is an {@link AddressSpace}, of which it keeps the memslots; it can share one with
 * other VMs ({@link bind}). What only one architecture has is behind its name: {@link x86_64}, {@link s390x}, {@link ppc64}.
 *
 * @example
 * using vm = kvm.createVm();
 * vm.memory.addRam(0, kvm.mapAnonymous(1 << 20));
 * const vcpu = vm.createVcpu();
 */
export class Vm extends Handle {
  override readonly noun = 'the VM';
  readonly kvm: VmKvm;
  /** Ports, ioeventfds, irqfds, coalesced stores. */
  readonly io: VmIo;
  readonly #vcpus = new Set<Vcpu>();
  /** Those that were closed, by their ids. */
  readonly #parked = new Map<number, ParkedVcpu>();
  /** Of every vCPU that there was. */
  readonly #ids = new Set<number>();
  /** One more than the highest id of a vCPU that there ever was: KVM keeps them all. */
  #nextId = 0;
  readonly #dirty: VmDirtyTracking;
  readonly #memory: VmMemory;
  #ppc64: VmPpc64 | undefined;
  #s390x: VmS390x | undefined;
  #x86_64: VmX86_64 | undefined;

  constructor(kvm: VmKvm, fd: number) {
    super(kvm.calls, fd);
    this.kvm = kvm;
    this.#dirty = new VmDirtyTracking(this);
    this.#memory = new VmMemory(this, this.#dirty, () => this.io.drainCoalesced());
    this.io = new VmIo(this);
  }

  /** Guest physical memory. */
  get memory(): AddressSpace {
    return this.#memory.space(0);
  }

  /** Guest physical memory of another address space of the VM: 1 is that of system management mode on x86_64. */
  addressSpace(asId: number): AddressSpace {
    return this.#memory.space(asId);
  }

  /** The books of its memslots. */
  get memslots(): Memslots {
    return this.#memory.memslots;
  }

  /** Dirty tracking of {@link memory}. */
  get dirtyPages(): DirtyPages {
    return this.#memory.dirtyPages(0);
  }

  /** The vCPUs that are open. */
  get vcpus(): readonly Vcpu[] {
    return [...this.#vcpus];
  }

  /** What only a VM of x86_64 has. @throws KvmError ENOTTY on other architectures */
  get x86_64(): VmX86_64 {
    this.#x86_64 ??= new VmX86_64(this, archCalls(this.calls, 'x86_64'));
    return this.#x86_64;
  }

  /** What only a VM of s390x has. @throws KvmError ENOTTY on other architectures */
  get s390x(): VmS390x {
    this.#s390x ??= new VmS390x(this, archCalls(this.calls, 's390x'));
    return this.#s390x;
  }

  /** What only a VM of ppc64 has. @throws KvmError ENOTTY on other architectures */
  get ppc64(): VmPpc64 {
    this.#ppc64 ??= new VmPpc64(this, archCalls(this.calls, 'ppc64'), this.kvm.htabLoops);
    return this.#ppc64;
  }

  /** The hashed page table (ppc64). @throws KvmError ENOTTY on other architectures */
  get hpt(): VmHpt {
    return this.ppc64.hpt;
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

  /**
   * Uses an address space that other VMs may use too: all its regions become memslots here, now and later. What was
   * bound before is let go.
   * @throws KvmError as for adding the regions, EBADF when the VM is closed; nothing is changed then
   */
  bind(space: AddressSpace, asId = 0): void {
    this.#memory.bind(space, asId);
  }

  /**
   * KVM_CREATE_VCPU; ids count up by default. The id of a vCPU that was closed gives that vCPU anew, in the state in which it was left:
   * registers, MP state, capabilities, what the dirty ring has handed out, an exit that waits for its answer.
   * @throws KvmError EEXIST for an id that is taken (EINVAL on ppc64); EINVAL beyond the limit; EBUSY for one that was closed while it ran, until its run has
   * rejected
   */
  createVcpu(id: U64 = this.#nextId): Vcpu {
    checkU64(id, 'id');
    // Beyond every limit, and no number any more.
    if (id > Number.MAX_SAFE_INTEGER) {
      throw this.failure('createVcpu', -ERRNO.EINVAL, { explanation: this.#whyNoVcpu(id, -ERRNO.EINVAL) });
    }
    const runSize = this.kvm.vcpuMmapSize;
    const parked = this.#parked.get(Number(id));
    const vcpu =
      parked === undefined || this.closed ? this.#newVcpu(Number(id), runSize) : this.#unpark(parked, runSize);
    this.#vcpus.add(vcpu);
    return vcpu;
  }

  #newVcpu(id: number, runSize: number): Vcpu {
    const fd = this.calls.createVcpu(this.fd, id);
    if (fd < 0) throw this.failure('createVcpu', fd, { explanation: this.#whyNoVcpu(id, fd) });
    this.#ids.add(id);
    this.#nextId = Math.max(this.#nextId, id + 1);
    return new Vcpu(this, id, fd, runSize, this.#dirty.ringBytes, 0);
  }

  #unpark(parked: ParkedVcpu, runSize: number): Vcpu {
    const { id, ringNext, isBusy } = parked.state;
    if (isBusy()) {
      const explanation = `vCPU ${id} was closed while it ran, and its run has not come back yet: wait until it has`;
      throw this.failure('createVcpu', -ERRNO.EBUSY, { explanation });
    }
    this.#parked.delete(id);
    return new Vcpu(this, id, parked.giveUp(), runSize, this.#dirty.ringBytes, ringNext);
  }

  /**
   * {@link Vcpu.pause} of every vCPU: afterwards nobody is in the guest, no exit is half done, and all coalesced stores have been delivered.
   * @returns of each of {@link vcpus} INTR, or an exit that is not answered yet
   * @throws KvmError as for a vCPU
   */
  async pause(): Promise<readonly VcpuExit[]> {
    const exits = await Promise.all(this.vcpus.map((vcpu) => vcpu.pause()));
    this.io.drainCoalesced();
    return exits;
  }

  /** KVM_CHECK_EXTENSION on the VM: 0 when it is absent. @example vm.checkExtension('NR_MEMSLOTS') */
  checkExtension(cap: Capability): number {
    return this.check('checkExtension', this.calls.checkExtension(this.fd, capNumber(cap)));
  }

  /** KVM_ENABLE_CAP on the VM. @throws KvmError EINVAL, E2BIG … @example vm.enableCap('MANUAL_DIRTY_LOG_PROTECT2', [1]) */
  enableCap(cap: Capability, args: readonly U64[] = [], flags = 0): void {
    const number = capNumber(cap);
    const words = checkU64s(args, 'args', ENABLE_CAP_ARGS);
    const result = this.calls.enableCap(this.fd, number, checkU32(flags, 'flags'), words);
    if (result < 0) {
      const explanation = this.#dirty.explain(number, words[0] ?? 0, result) ?? `capability ${cap}`;
      throw this.failure('enableCap', result, { explanation });
    }
    this.#dirty.enabled(number, words[0] ?? 0);
  }

  /**
   * Gives every vCPU that is made from now on a dirty ring, in place of bitmaps.
   * @param bytes a power of two, a page to what DIRTY_LOG_RING says; 16 bytes are one entry
   * @throws KvmError EINVAL, E2BIG with the rule that was broken
   */
  enableDirtyRing(bytes: number): void {
    // KVM takes the low half of anything wider.
    checkU32(bytes, 'bytes');
    const cap = this.checkExtension('DIRTY_LOG_RING') > 0 ? 'DIRTY_LOG_RING' : 'DIRTY_LOG_RING_ACQ_REL';
    this.enableCap(cap, [bytes]);
  }

  /**
   * KVM_SET_USER_MEMORY_REGION by hand; with `guestMemfd` the second version of it. The books of memslots follow.
   * @throws KvmError EINVAL, EEXIST, ENOMEM … with the rule that was broken
   * @example vm.setUserMemoryRegion({ slot: 9, guestPhysAddr: 0x10_0000, memorySize: 0x1000, userspaceAddr: ram.hva })
   */
  setUserMemoryRegion(region: UserMemoryRegion): void {
    this.memslots.set(region);
  }

  /** KVM_CREATE_GUEST_MEMFD (x86_64 6.8+, aarch64 6.18+). @throws KvmError ENOTTY, EINVAL */
  createGuestMemfd(size: number, flags: U64 = 0): GuestMemfd {
    const fd = this.calls.createGuestMemfd(this.fd, checkSize(size, 'size'), checkU64(flags, 'flags'));
    if (fd < 0)
      throw this.failure('createGuestMemfd', fd, { size, explanation: this.#whyNoGuestMemfd(size, flags, fd) });
    const memfd = new GuestMemfd(this.calls, fd, size);
    this.memslots.addGuestMemfd(memfd);
    return memfd;
  }

  /** KVM_SET_MEMORY_ATTRIBUTES: MEMORY_ATTRIBUTE_PRIVATE, or 0 for shared. @throws KvmError ENOTTY, EINVAL */
  setMemoryAttributes(gpa: U64, size: U64, attributes: U64): void {
    checkU64(gpa, 'gpa');
    checkU64(size, 'size');
    const result = this.calls.setMemoryAttributes(this.fd, gpa, size, checkU64(attributes, 'attributes'), 0);
    this.check('setMemoryAttributes', result, { gpa, size });
  }

  /** An ioctl that isn't wrapped, over a number or a structure; its result. @throws KvmError */
  ioctl(request: number, arg: U64 | Uint8Array = 0): number {
    return this.checkIoctl(request, arg);
  }

  /** Closes the VM and its vCPUs, and lets go the memory that its slots pinned. Does nothing the second time. */
  override close(): void {
    if (this.closed) return;
    const failures: unknown[] = [];
    for (const vcpu of this.vcpus) {
      try {
        vcpu.close();
      } catch (error) {
        failures.push(error);
      }
    }
    // A handler of a last coalesced store may have closed it.
    if (!this.closed) this.#closeAll();
    if (failures.length > 0) throw failures[0];
  }

  #closeAll(): void {
    for (const parked of this.#parked.values()) parked.close();
    this.#parked.clear();
    this.#ppc64?.close();
    super.close();
    this.io.close();
    this.#memory.close();
  }

  /** @internal Empties the vCPUs' dirty rings for those who collect dirty pages; false when nobody does. */
  harvestDirtyRings(): boolean {
    return this.#dirty.harvest();
  }

  /** @internal A vCPU is about to be closed: what is in its rings would be lost with it. */
  vcpuCloses(): void {
    this.#dirty.harvest();
    this.io.drainCoalesced();
  }

  /** @internal A vCPU was closed, and where its descriptor wasn't, that is kept. */
  vcpuClosed(vcpu: Vcpu, parked: ParkedVcpu | undefined): void {
    this.#vcpus.delete(vcpu);
    this.io.vcpuClosed(vcpu);
    if (parked !== undefined) this.#parked.set(vcpu.id, parked);
  }

  override [inspect.custom](_depth: number, options: object): string {
    if (this.closed) return 'Vm (closed)';
    const { backend, arch } = this.calls;
    return `Vm fd ${this.fd}, ${arch} on the ${backend === 'native' ? 'real' : 'emulated'} kernel, ${counted(this.#vcpus.size, 'vCPU')}\n${inspect(this.memory, options)}\n${inspect(this.memslots, options)}`;
  }

  #whyNoGuestMemfd(size: number, flags: U64, errno: number): string | undefined {
    if (errno !== -ERRNO.EINVAL) return undefined;
    const known = BigInt(this.checkExtension('GUEST_MEMFD_FLAGS'));
    const context = { size: BigInt(size), flags: BigInt(flags), known, pageSize: this.calls.pageSize };
    return explain(GUEST_MEMFD_RULES, context, errno);
  }

  #whyNoVcpu(id: U64, errno: number): string | undefined {
    // For an id that is taken ppc64 says EINVAL too.
    if (errno === -ERRNO.EINVAL && !(this.calls.arch === 'ppc64' && this.#ids.has(Number(id)))) {
      const closed = this.#ids.size - this.#vcpus.size;
      const kept =
        closed === 0 ? '' : `; KVM keeps ${closed} that are closed, too: createVcpu with the id of one gives it anew`;
      return `vCPU id ${id}: ids must be below ${this.checkExtension('MAX_VCPU_ID')}, and there may be at most ${this.checkExtension('MAX_VCPUS')} vCPUs (there are ${this.#vcpus.size}${kept})`;
    }
    if (errno !== -ERRNO.EEXIST && errno !== -ERRNO.EINVAL) return undefined;
    return this.vcpus.some((vcpu) => vcpu.id === Number(id))
      ? `there is a vCPU ${id} already`
      : `there was a vCPU ${id} whose descriptor is closed, and KVM keeps its id until the VM goes; ${this.#nextId} is the next that is free`;
  }
}
