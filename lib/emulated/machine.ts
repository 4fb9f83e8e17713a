import { type DirtyLogContext, getDirtyLogRules } from '../rules/dirty-log.ts';
import type { MemslotContext } from '../rules/memslot.ts';
import type { Rule } from '../rules/rule.ts';
import { ARCH_FACTS, type Arch } from '../uapi/arch.ts';
import { CAP } from '../uapi/capabilities.ts';
import { ERRNO } from '../uapi/errno.ts';
import type { Release } from '../uapi/release.ts';

/** What CHECK_EXTENSION answers; capabilities that aren't here are 0. */
export type Capabilities = ReadonlyMap<number, number>;

/** A type of VM, as CREATE_VM takes it. */
export interface VmType {
  readonly type: bigint;
  readonly addressSpaces: number;
  /** Its slots may have a guest_memfd. */
  readonly guestMemfd: boolean;
  /** It tells private pages from shared ones. */
  readonly privateMemory: boolean;
  /** What CHECK_EXTENSION answers otherwise on its fd than on that of /dev/kvm. */
  readonly capabilities: Capabilities;
}

/** Facts of an emulated machine and of its kernel, as data: whatever is a number, a name, or a list of either. */
export interface Machine {
  readonly arch: Arch;
  readonly release: Release;
  readonly pageSize: number;
  readonly littleEndian: boolean;
  readonly capabilities: Capabilities;
  /** The types of VM there are. */
  readonly vmTypes: readonly VmType[];
  /** CREATE_VM doesn't look at the type: it makes the first one. */
  readonly ignoresVmType: boolean;
  /** vCPU ids are below this. */
  readonly vcpuIds: number;
  /** vCPUs that a VM may have. */
  readonly maxVcpus: number;
  readonly vcpuMmapSize: number;
  /** Page of the vCPU's mapping that holds the coalesced-MMIO ring; 0 where there is none. */
  readonly coalescedMmioPage: number;
  /** What an unknown request on a VM fd gets. */
  readonly unknownVmRequest: number;
  /** What an unknown request on a vCPU fd gets. */
  readonly unknownVcpuRequest: number;
  /** What GET_ONE_REG and SET_ONE_REG get for an id that isn't there. */
  readonly unknownOneReg: number;
  /** What GET_ONE_REG gets on a VM fd, where its number is another request's there. */
  readonly oneRegOfVm?: number;
  /** Bytes that SET_REGS reads before it says that there is no such thing. */
  readonly unusedRegsBytes?: number;
  /** What CREATE_VCPU gets for an id that is taken. */
  readonly duplicateVcpuId: number;
  /** What IRQFD gets on a VM without an interrupt controller; 0 where it does without. */
  readonly irqfdWithoutIrqchip: number;
  /** Memslots of an address space. */
  readonly userSlots: number;
  readonly readonlyMem: boolean;
  /** First address that is not a user-space address of the process. */
  readonly hvaLimit: bigint;
  /** The architecture's own memslot checks. */
  readonly memslotRules: readonly Rule<MemslotContext>[];
  /** Bits that MANUAL_DIRTY_LOG_PROTECT2 knows; 0 where there is no CLEAR_DIRTY_LOG. */
  readonly manualProtect: number;
  /** The checks of GET_DIRTY_LOG. */
  readonly dirtyLogRules: readonly Rule<DirtyLogContext>[];
  /** GET_DIRTY_LOG clears what it has copied; else it clears first, and what can't be copied is lost. */
  readonly dirtyLogSurvivesFault: boolean;
  /** Flags that CREATE_GUEST_MEMFD knows; −1 where the kernel has no guest_memfd. */
  readonly guestMemfdFlags: number;
  /** A slot's guest_memfd must be one that can be mapped. */
  readonly bindsMappableOnly: boolean;
  readonly hasMemoryAttributes: boolean;
  /** Guest code goes through KVM's instruction emulator, to which a page that the host lacks looks like a device. */
  readonly emulatesGuestCode: boolean;
}

/** A VM as every architecture has it. */
export const PLAIN_VM: VmType = {
  type: 0n,
  addressSpaces: 1,
  guestMemfd: false,
  privateMemory: false,
  capabilities: new Map(),
};

/** What most architectures' machines have in common; each names what its own has differently. */
export function commonMachine(arch: Arch, release: Release) {
  const { pageSizes, littleEndian, hvaLimit } = ARCH_FACTS[arch];
  return {
    arch,
    release,
    pageSize: pageSizes[0]!,
    littleEndian,
    hvaLimit,
    vmTypes: [PLAIN_VM],
    ignoresVmType: false,
    coalescedMmioPage: 0,
    unknownVmRequest: -ERRNO.ENOTTY,
    unknownVcpuRequest: -ERRNO.EINVAL,
    unknownOneReg: -ERRNO.EINVAL,
    duplicateVcpuId: -ERRNO.EEXIST,
    irqfdWithoutIrqchip: -ERRNO.EINVAL,
    userSlots: 32767,
    readonlyMem: false,
    memslotRules: [],
    manualProtect: 0,
    dirtyLogRules: getDirtyLogRules(arch),
    dirtyLogSurvivesFault: false,
    guestMemfdFlags: -1,
    bindsMappableOnly: false,
    hasMemoryAttributes: false,
    emulatesGuestCode: false,
  } satisfies Partial<Machine>;
}

/** Capabilities that every architecture's KVM has, with their values. */
export function commonCapabilities(release: Release): [number, number][] {
  return [
    [CAP.USER_MEMORY, 1],
    [CAP.DESTROY_MEMORY_REGION_WORKS, 1],
    [CAP.JOIN_MEMORY_REGIONS_WORKS, 1],
    [CAP.SYNC_MMU, 1],
    [CAP.IOEVENTFD, 1],
    [CAP.IOEVENTFD_ANY_LENGTH, 1],
    [CAP.ENABLE_CAP_VM, 1],
    [CAP.CHECK_EXTENSION_VM, 1],
    [CAP.IMMEDIATE_EXIT, 1],
    [CAP.USER_MEMORY2, release.since(6, 8) ? 1 : 0],
  ];
}
