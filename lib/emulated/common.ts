import type { MemslotContext } from '../rules/memslot.ts';
import type { Rule } from '../rules/rule.ts';
import type { Arch } from '../uapi/arch.ts';
import { CAP } from '../uapi/capabilities.ts';
import { ERRNO } from '../uapi/errno.ts';
import type { ArchitectureCalls, EmulatedArchitecture, KernelFiles } from './architecture.ts';
import type { Release } from './release.ts';
import type { EmulatedVcpu } from './vcpu.ts';
import type { EmulatedVm } from './vm.ts';

/** A capability's value: fixed, or different on a VM fd and between VMs. */
export type CapabilityValue = number | ((vm: EmulatedVm | undefined) => number);

/** What most architectures' kernels have in common; each overrides what its own does differently. */
export abstract class CommonArchitecture implements EmulatedArchitecture {
  abstract readonly arch: Arch;
  readonly release: Release;
  readonly pageSize: number;
  readonly littleEndian: boolean = true;
  abstract readonly vcpuMmapSize: number;
  readonly coalescedMmioPage: number = 0;
  readonly unknownVmRequest: number = -ERRNO.ENOTTY;
  readonly unknownVcpuRequest: number = -ERRNO.EINVAL;
  readonly manualProtect: number = 0;
  readonly readonlyMem: boolean = false;
  readonly addressSpaces: number = 1;
  readonly userSlots: number = 32767;
  abstract readonly hvaLimit: bigint;
  readonly irqfdWithoutIrqchip: number = -ERRNO.EINVAL;
  readonly emulatesGuestCode: boolean = false;
  readonly guestMemfdFlags: number = -1;
  readonly hasMemoryAttributes: boolean = false;
  readonly unknownOneReg: number = ERRNO.EINVAL;
  protected abstract readonly capabilities: ReadonlyMap<number, CapabilityValue>;

  constructor(release: Release, pageSize: number) {
    this.release = release;
    this.pageSize = pageSize;
  }

  checkExtension(cap: number, vm: EmulatedVm | undefined): number {
    const value = this.capabilities.get(cap);
    return typeof value === 'function' ? value(vm) : (value ?? 0);
  }

  checkVmType(type: bigint): number {
    return type === 0n ? 0 : -ERRNO.EINVAL;
  }

  guestMemfd(_type: bigint): boolean {
    return false;
  }

  privateMemory(_type: bigint): boolean {
    return false;
  }

  vmCreated(_vm: EmulatedVm): void {}

  memslotRules(_vm: EmulatedVm): readonly Rule<MemslotContext>[] {
    return [];
  }

  enableVmCap(_vm: EmulatedVm, _cap: number, _args: readonly bigint[]): number {
    return -ERRNO.EINVAL;
  }

  enableVcpuCap(_vcpu: EmulatedVcpu, _cap: number, _flags: number, _args: readonly bigint[]): number {
    return -ERRNO.EINVAL;
  }

  checkVcpuId(vm: EmulatedVm, id: bigint): number {
    return vm.vcpus.has(Number(id)) ? -ERRNO.EEXIST : 0;
  }

  vcpuCreated(_vcpu: EmulatedVcpu): void {}

  createIrqchip(_vm: EmulatedVm): number {
    return -ERRNO.ENOTTY;
  }

  preFaultMemory(_vcpu: EmulatedVcpu, _range: BigUint64Array, _flags: bigint): number {
    return this.unknownVcpuRequest;
  }

  setDeviceAttr(_vm: EmulatedVm, _group: number, _attr: bigint, _value: Uint8Array | null): number {
    return -ERRNO.ENOTTY;
  }

  getDeviceAttr(_vm: EmulatedVm, _group: number, _attr: bigint, _value: Uint8Array | null): number {
    return -ERRNO.ENOTTY;
  }

  hasDeviceAttr(_vm: EmulatedVm, _group: number, _attr: bigint): number {
    return -ERRNO.ENOTTY;
  }

  calls(_files: KernelFiles): ArchitectureCalls {
    return {};
  }
}

/** Capabilities that every architecture's KVM has, with their values. */
export function commonCapabilities(release: Release): [number, CapabilityValue][] {
  return [
    [CAP.USER_MEMORY, 1],
    [CAP.DESTROY_MEMORY_REGION_WORKS, 1],
    [CAP.JOIN_MEMORY_REGIONS_WORKS, 1],
    [CAP.SYNC_MMU, 1],
    [CAP.IOEVENTFD, 1],
    [CAP.IOEVENTFD_ANY_LENGTH, 1],
    [CAP.ENABLE_CAP_VM, 1],
    [CAP.CHECK_EXTENSION_VM, 1],
    [CAP.ONE_REG, 1],
    [CAP.IMMEDIATE_EXIT, 1],
    ...(release.since(6, 8) ? ([[CAP.USER_MEMORY2, 1]] as [number, CapabilityValue][]) : []),
  ];
}
