import { checkBoolean, checkInteger, type NamesOf, takeOptions } from '../../../base/arguments.ts';
import type { X86_64Calls } from '../../../calls/kvm-calls.ts';
import type { Architecture, KernelFiles } from '../../../emulated/architecture.ts';
import {
  type Capabilities,
  commonCapabilities,
  commonMachine,
  type Machine,
  PLAIN_VM,
  type VmType,
} from '../../../emulated/machine.ts';
import { DIRTY_RING_MAX_BYTES } from '../../../rules/dirty-ring.ts';
import { CAP } from '../../../uapi/capabilities.ts';
import { ERRNO } from '../../../uapi/errno.ts';
import { DIRTY_LOG, GUEST_MEMFD_FLAG, MEMORY_ATTRIBUTE_PRIVATE, VM_TYPE } from '../../../uapi/flags.ts';
import type { Release } from '../../../uapi/release.ts';
import { x86_64MemslotRules } from '../rules.ts';
import { DEBIAN_BUILD, type X86_64Build } from './build.ts';
import { X86_64Vcpu } from './vcpu-state.ts';
import { X86_64Vm } from './vm-state.ts';

const MAX_VCPUS = 1024;
const MAX_VCPU_ID = 4096;

const BUILD_NAMES: NamesOf<X86_64Build> = {
  smm: true,
  swProtectedVm: true,
  memoryAttributes: true,
  guestPhysicalBits: true,
  tdp: true,
  svm: true,
  emulatesRealMode: true,
};

/** The addresses that processors have, in bits. */
const PHYSICAL_BITS = { least: 32, most: 52 } as const;

function checkBuild(build: X86_64Build): X86_64Build {
  const { guestPhysicalBits, ...truths } = build;
  const { least, most } = PHYSICAL_BITS;
  checkInteger(guestPhysicalBits, 'options.x86_64.guestPhysicalBits', least, most);
  for (const [name, value] of Object.entries(truths)) checkBoolean(value, `options.x86_64.${name}`);
  return build;
}

/** KVM of x86_64: memory, dirty logs and rings, port I/O; no interrupts, no paging of the guest's. */
export function x86_64Architecture(
  release: Release,
  options: Partial<X86_64Build> = {},
): Architecture<X86_64Vm, X86_64Vcpu> {
  const build = checkBuild({ ...DEBIAN_BUILD, ...takeOptions(options, BUILD_NAMES, 'options.x86_64') });
  return {
    machine: x86_64Machine(release, build),
    createVm: (vm) => new X86_64Vm(vm),
    createVcpu: (vcpu, vm) => new X86_64Vcpu(vcpu, vm, build),
    calls: (files) => ({ x86_64: x86_64Calls(files) }),
  };
}

function x86_64Machine(release: Release, build: X86_64Build): Machine {
  const common = commonMachine('x86_64', release);
  const guestMemfd = release.since(6, 8);
  const facts = {
    ...common,
    vmTypes: vmTypes(release, build),
    vcpuIds: MAX_VCPU_ID,
    maxVcpus: MAX_VCPUS,
    vcpuMmapSize: 3 * common.pageSize,
    coalescedMmioPage: 2,
    manualProtect: DIRTY_LOG.MANUAL_PROTECT_ENABLE | DIRTY_LOG.INITIALLY_SET,
    readonlyMem: true,
    userSlots: 32764,
    memslotRules: x86_64MemslotRules(2 ** (build.guestPhysicalBits - 12) - 1),
    guestMemfdFlags: release.since(6, 18) ? GUEST_MEMFD_FLAGS : guestMemfd ? 0 : -1,
    hasMemoryAttributes: guestMemfd && build.memoryAttributes,
    emulatesGuestCode: build.emulatesRealMode,
  } as const;
  return { ...facts, capabilities: capabilities(facts, build) };
}

/** What CREATE_GUEST_MEMFD of 6.18 knows. */
const GUEST_MEMFD_FLAGS = GUEST_MEMFD_FLAG.MMAP | GUEST_MEMFD_FLAG.INIT_SHARED;

/** Ordinary VMs, and those with private memory. */
function vmTypes(release: Release, { smm, swProtectedVm }: X86_64Build): VmType[] {
  const guestMemfd = release.since(6, 18);
  const plain: VmType = {
    ...PLAIN_VM,
    addressSpaces: smm ? 2 : 1,
    guestMemfd,
    capabilities: new Map([
      [CAP.GUEST_MEMFD, guestMemfd ? 1 : 0],
      [CAP.MEMORY_ATTRIBUTES, 0],
    ]),
  };
  const swProtected: VmType = {
    ...PLAIN_VM,
    type: BigInt(VM_TYPE.X86_SW_PROTECTED),
    guestMemfd: true,
    privateMemory: true,
    capabilities: new Map([
      [CAP.MULTI_ADDRESS_SPACE, smm ? 1 : 0],
      [CAP.GUEST_MEMFD_FLAGS, guestMemfd ? GUEST_MEMFD_FLAG.MMAP : 0],
    ]),
  };
  return swProtectedVm ? [plain, swProtected] : [plain];
}

function capabilities(machine: Omit<Machine, 'capabilities'>, build: X86_64Build): Capabilities {
  const { release } = machine;
  const guestMemfd = release.since(6, 8);
  return new Map([
    ...commonCapabilities(release),
    [CAP.IRQCHIP, 1],
    [CAP.NR_VCPUS, 2],
    [CAP.MAX_VCPUS, MAX_VCPUS],
    [CAP.MAX_VCPU_ID, MAX_VCPU_ID],
    [CAP.NR_MEMSLOTS, machine.userSlots],
    [CAP.MP_STATE, 1],
    [CAP.COALESCED_MMIO, machine.coalescedMmioPage],
    [CAP.COALESCED_PIO, 1],
    [CAP.IRQ_ROUTING, 4096],
    [CAP.IRQFD, 1],
    [CAP.IRQFD_RESAMPLE, 1],
    [CAP.IOEVENTFD_NO_LENGTH, 1],
    [CAP.READONLY_MEM, 1],
    [CAP.SYNC_REGS, 7],
    [CAP.ONE_REG, release.since(6, 18) ? 1 : 0],
    [CAP.ENABLE_CAP, 1],
    [CAP.MULTI_ADDRESS_SPACE, build.smm ? 2 : 0],
    [CAP.MANUAL_DIRTY_LOG_PROTECT2, machine.manualProtect],
    [CAP.DIRTY_LOG_RING, DIRTY_RING_MAX_BYTES],
    [CAP.DIRTY_LOG_RING_ACQ_REL, DIRTY_RING_MAX_BYTES],
    [CAP.MEMORY_FAULT_INFO, guestMemfd ? 1 : 0],
    [CAP.VM_TYPES, guestMemfd ? (build.swProtectedVm ? 3 : 1) : 0],
    [CAP.GUEST_MEMFD, guestMemfd ? 1 : 0],
    [CAP.MEMORY_ATTRIBUTES, machine.hasMemoryAttributes ? MEMORY_ATTRIBUTE_PRIVATE : 0],
    [CAP.PRE_FAULT_MEMORY, release.since(6, 11) && build.tdp ? 1 : 0],
    [CAP.GUEST_MEMFD_FLAGS, release.since(6, 18) ? GUEST_MEMFD_FLAGS : 0],
  ]);
}

function x86_64Calls(files: KernelFiles<X86_64Vm, X86_64Vcpu>): X86_64Calls {
  const onVm = (fd: number, call: (vm: X86_64Vm) => number): number => {
    const vm = files.vm(fd);
    return typeof vm === 'number' ? vm : call(vm);
  };
  return {
    // Three pages must fit below 4 GiB.
    setTssAddr: (fd, addr) => onVm(fd, () => (BigInt(addr) > 0x1_0000_0000n - 0x3000n ? -ERRNO.EINVAL : 0)),
    setIdentityMapAddr: (fd, _addr) => onVm(fd, (vm) => (vm.hasVcpus ? -ERRNO.EINVAL : 0)),
  };
}
