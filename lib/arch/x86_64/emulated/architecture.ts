import type { ArchitectureCalls, KernelFiles } from '../../../emulated/architecture.ts';
import { type CapabilityValue, CommonArchitecture, commonCapabilities } from '../../../emulated/common.ts';
import type { HostMemory } from '../../../emulated/host-memory.ts';
import type { EmulatedMemslot } from '../../../emulated/memslots.ts';
import type { Release } from '../../../emulated/release.ts';
import type { EmulatedVcpu } from '../../../emulated/vcpu.ts';
import type { EmulatedVm } from '../../../emulated/vm.ts';
import type { MemslotContext } from '../../../rules/memslot.ts';
import type { Rule } from '../../../rules/rule.ts';
import { CAP } from '../../../uapi/capabilities.ts';
import { ERRNO } from '../../../uapi/errno.ts';
import { DIRTY_LOG, MEM, MEMORY_ATTRIBUTE_PRIVATE } from '../../../uapi/flags.ts';
import { x86_64MemslotRules } from '../rules.ts';

/** How one x86_64 KVM is built, where that shows. */
export interface X86Build {
  /** CONFIG_KVM_SMM: two address spaces. Debian has it. */
  readonly smm: boolean;
  /** CONFIG_KVM_SW_PROTECTED_VM: VM type 1 with private memory. Distributions don't have it. */
  readonly swProtectedVm: boolean;
  /** CONFIG_KVM_GENERIC_MEMORY_ATTRIBUTES, which distributions have for confidential guests' sake. */
  readonly memoryAttributes: boolean;
  /** Bits of a guest physical address. */
  readonly guestPhysicalBits: number;
  /** The MMU translates guest physical addresses itself (nested paging), so memory can be faulted in beforehand. */
  readonly tdp: boolean;
  /** Real mode goes through KVM's instruction emulator (kvm_pvm; Intel processors before unrestricted guest). */
  readonly emulatesRealMode: boolean;
}

const PAGE = 4096;
const MAX_VCPUS = 1024;
const MAX_VCPU_ID = 4096;
const MAX_DIRTY_RING_BYTES = 0x10_0000;
const SW_PROTECTED_VM = 1n;
/** What 6.18 knows: GUEST_MEMFD_FLAG_MMAP and _INIT_SHARED. */
const GUEST_MEMFD_FLAGS = 3;

export class X86Architecture extends CommonArchitecture {
  readonly arch = 'x86_64';
  readonly vcpuMmapSize = 3 * PAGE;
  override readonly coalescedMmioPage = 2;
  override readonly manualProtect = DIRTY_LOG.MANUAL_PROTECT_ENABLE | DIRTY_LOG.INITIALLY_SET;
  override readonly readonlyMem = true;
  override readonly addressSpaces: number;
  override readonly userSlots = 32764;
  readonly hvaLimit = 0x7fff_ffff_f000n;
  override readonly emulatesGuestCode: boolean;
  override readonly guestMemfdFlags: number;
  override readonly hasMemoryAttributes: boolean;
  protected readonly capabilities: ReadonlyMap<number, CapabilityValue>;
  readonly #build: X86Build;
  /** Frames that are mapped writable for a guest, though their log may have write-protected them since. */
  readonly #mapped = new WeakMap<EmulatedVm, Set<number>>();

  constructor(release: Release, build: X86Build) {
    super(release, PAGE);
    this.#build = build;
    this.addressSpaces = build.smm ? 2 : 1;
    this.emulatesGuestCode = build.emulatesRealMode;
    const guestMemfd = release.since(6, 8);
    this.guestMemfdFlags = release.since(6, 18) ? GUEST_MEMFD_FLAGS : guestMemfd ? 0 : -1;
    this.hasMemoryAttributes = guestMemfd && build.memoryAttributes;
    this.capabilities = new Map<number, CapabilityValue>([
      ...commonCapabilities(release),
      [CAP.IRQCHIP, 1],
      [CAP.NR_VCPUS, 2],
      [CAP.MAX_VCPUS, MAX_VCPUS],
      [CAP.MAX_VCPU_ID, MAX_VCPU_ID],
      [CAP.NR_MEMSLOTS, this.userSlots],
      [CAP.MP_STATE, 1],
      [CAP.COALESCED_MMIO, this.coalescedMmioPage],
      [CAP.COALESCED_PIO, 1],
      [CAP.IRQ_ROUTING, 4096],
      [CAP.IRQFD, 1],
      [CAP.IRQFD_RESAMPLE, 1],
      [CAP.IOEVENTFD_NO_LENGTH, 1],
      [CAP.READONLY_MEM, 1],
      [CAP.SYNC_REGS, 7],
      [CAP.ENABLE_CAP, release.since(6, 0) ? 1 : 0],
      [CAP.MULTI_ADDRESS_SPACE, build.smm ? (vm) => vm?.spaces.length ?? this.addressSpaces : 0],
      [CAP.MANUAL_DIRTY_LOG_PROTECT2, this.manualProtect],
      [CAP.DIRTY_LOG_RING, MAX_DIRTY_RING_BYTES],
      [CAP.DIRTY_LOG_RING_ACQ_REL, MAX_DIRTY_RING_BYTES],
      ...(guestMemfd
        ? ([
            [CAP.MEMORY_FAULT_INFO, 1],
            [CAP.VM_TYPES, build.swProtectedVm ? 3 : 1],
            [CAP.GUEST_MEMFD, (vm) => (vm === undefined || this.guestMemfd(vm.type) ? 1 : 0)],
            [
              CAP.MEMORY_ATTRIBUTES,
              (vm) =>
                (vm === undefined ? build.memoryAttributes : this.privateMemory(vm.type))
                  ? MEMORY_ATTRIBUTE_PRIVATE
                  : 0,
            ],
          ] as [number, CapabilityValue][])
        : []),
      [CAP.PRE_FAULT_MEMORY, release.since(6, 11) && build.tdp ? 1 : 0],
      [CAP.GUEST_MEMFD_FLAGS, release.since(6, 18) ? GUEST_MEMFD_FLAGS : 0],
    ]);
  }

  override checkVmType(type: bigint): number {
    return type === 0n || (type === SW_PROTECTED_VM && this.#build.swProtectedVm) ? 0 : -ERRNO.EINVAL;
  }

  override privateMemory(type: bigint): boolean {
    return type === SW_PROTECTED_VM;
  }

  override guestMemfd(type: bigint): boolean {
    return this.privateMemory(type) || this.release.since(6, 18);
  }

  override memslotRules(): readonly Rule<MemslotContext>[] {
    return x86_64MemslotRules(2 ** (this.#build.guestPhysicalBits - 12) - 1);
  }

  /**
   * A guest's first access to a page maps it, writable if the host could write it at once; that makes it dirty, though it
   * is only loaded from. Private memory that nobody wrote could not be: what is loaded then is the host's page of zeros.
   */
  pageTouched(vcpu: EmulatedVcpu, slot: EmulatedMemslot, gfn: number): void {
    // KVM's own emulator maps nothing.
    if (this.emulatesGuestCode || (slot.flags & MEM.READONLY) !== 0) return;
    const { vm } = vcpu;
    let mapped = this.#mapped.get(vm);
    if (mapped === undefined) {
      mapped = new Set();
      this.#mapped.set(vm, mapped);
    }
    if (mapped.has(gfn) || !isWritable(vm.memory, vm.hostAddress(slot, gfn))) return;
    mapped.add(gfn);
    vm.markDirty(slot, gfn, vcpu);
  }

  pagesInvalidated(vm: EmulatedVm, first: number, end: number): void {
    const mapped = this.#mapped.get(vm);
    if (mapped === undefined) return;
    for (const gfn of mapped) if (gfn >= first && gfn < end) mapped.delete(gfn);
  }

  /** A slot that goes or moves takes everything that is mapped with it. */
  memslotFlushed(vm: EmulatedVm): void {
    this.#mapped.delete(vm);
  }

  override checkVcpuId(vm: EmulatedVm, id: bigint): number {
    if (id >= BigInt(MAX_VCPU_ID) || vm.vcpus.size >= MAX_VCPUS) return -ERRNO.EINVAL;
    return super.checkVcpuId(vm, id);
  }

  override createIrqchip(vm: EmulatedVm): number {
    if (vm.irqchip) return -ERRNO.EEXIST;
    if (vm.vcpus.size !== 0) return -ERRNO.EINVAL;
    vm.irqchip = true;
    return 0;
  }

  override preFaultMemory(vcpu: EmulatedVcpu, range: BigUint64Array, flags: bigint): number {
    if (!this.release.since(6, 11)) return this.unknownVcpuRequest;
    const page = BigInt(PAGE);
    const [gpa = 0n, size = 0n] = range;
    if (flags !== 0n || gpa % page !== 0n || size % page !== 0n || gpa + size >= 1n << 64n || size === 0n) {
      return -ERRNO.EINVAL;
    }
    if (!this.#build.tdp) return -ERRNO.EOPNOTSUPP;
    for (let left = size; left > 0n; left -= page) {
      const gfn = Number(range[0]! / page);
      const slot = vcpu.vm.usableSlot(gfn);
      if (slot === undefined) return left === size ? -ERRNO.ENOENT : 0;
      if (!vcpu.vm.memory.canAccess(vcpu.vm.hostAddress(slot, gfn), false)) return left === size ? -ERRNO.EFAULT : 0;
      this.pageTouched(vcpu, slot, gfn);
      range[0] = range[0]! + page;
      range[1] = left - page;
    }
    return 0;
  }

  override calls(files: KernelFiles): ArchitectureCalls {
    return {
      x86_64: {
        setTssAddr: (fd, addr) => {
          const vm = files.vm(fd);
          if (typeof vm === 'number') return vm;
          // Three pages must fit below 4 GiB.
          return BigInt(addr) > 0xffff_ffffn - BigInt(3 * PAGE) ? -ERRNO.EINVAL : 0;
        },
        setIdentityMapAddr: (fd, _addr) => {
          const vm = files.vm(fd);
          if (typeof vm === 'number') return vm;
          return vm.vcpus.size !== 0 ? -ERRNO.EINVAL : 0;
        },
      },
    };
  }
}

/** Whether the host can write a page without copying it first. Private memory that was never written is all zeros. */
function isWritable(memory: HostMemory, hva: number): boolean {
  if (!memory.canAccess(hva, true)) return false;
  if (memory.isShared(hva)) return true;
  const page = new Uint8Array(PAGE);
  memory.read(hva, page);
  return page.some((byte) => byte !== 0);
}
