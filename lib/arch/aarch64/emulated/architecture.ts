import type { Architecture } from '../../../emulated/architecture.ts';
import { commonCapabilities, commonMachine, type Machine, PLAIN_VM } from '../../../emulated/machine.ts';
import { DIRTY_RING_MAX_BYTES } from '../../../rules/dirty-ring.ts';
import { CAP } from '../../../uapi/capabilities.ts';
import { ERRNO } from '../../../uapi/errno.ts';
import { DIRTY_LOG, GUEST_MEMFD_FLAG } from '../../../uapi/flags.ts';
import type { Release } from '../../../uapi/release.ts';
import { KVM_REGS_AARCH64 } from '../../../uapi/structs.ts';
import { Aarch64Vcpu } from './vcpu-state.ts';
import { Aarch64Vm } from './vm-state.ts';

const MAX_VCPUS = 512;
/** What CREATE_GUEST_MEMFD of 6.18 knows. */
const GUEST_MEMFD_FLAGS = GUEST_MEMFD_FLAG.MMAP | GUEST_MEMFD_FLAG.INIT_SHARED;

/** The generic memory side of aarch64: read-only slots, dirty logs with manual protect, rings with a bitmap. */
export function aarch64Architecture(release: Release): Architecture<Aarch64Vm, Aarch64Vcpu> {
  return {
    machine: aarch64Machine(release),
    createVm: () => new Aarch64Vm(),
    createVcpu: (vcpu, vm) => new Aarch64Vcpu(vcpu, vm),
  };
}

function aarch64Machine(release: Release): Machine {
  const common = commonMachine('aarch64', release);
  const coalescedMmioPage = 1;
  const manualProtect = DIRTY_LOG.MANUAL_PROTECT_ENABLE | DIRTY_LOG.INITIALLY_SET;
  const ring = release.since(6, 2);
  const guestMemfd = release.since(6, 18);
  return {
    ...common,
    vcpuMmapSize: 2 * common.pageSize,
    vcpuIds: MAX_VCPUS,
    maxVcpus: MAX_VCPUS,
    coalescedMmioPage,
    manualProtect,
    readonlyMem: true,
    unknownVmRequest: -ERRNO.EINVAL,
    oneRegOfVm: -ERRNO.ENODEV,
    unusedRegsBytes: KVM_REGS_AARCH64.structSize,
    irqfdWithoutIrqchip: -ERRNO.EAGAIN,
    vmTypes: [{ ...PLAIN_VM, guestMemfd }],
    guestMemfdFlags: guestMemfd ? GUEST_MEMFD_FLAGS : -1,
    bindsMappableOnly: true,
    capabilities: new Map([
      ...commonCapabilities(release),
      [CAP.NR_VCPUS, 1],
      [CAP.MAX_VCPUS, MAX_VCPUS],
      [CAP.MAX_VCPU_ID, MAX_VCPUS],
      [CAP.ONE_REG, 1],
      [CAP.NR_MEMSLOTS, common.userSlots],
      [CAP.MP_STATE, 1],
      [CAP.COALESCED_MMIO, coalescedMmioPage],
      [CAP.COALESCED_PIO, 1],
      [CAP.IRQFD, 1],
      [CAP.IRQFD_RESAMPLE, 1],
      [CAP.READONLY_MEM, 1],
      [CAP.MANUAL_DIRTY_LOG_PROTECT2, manualProtect],
      [CAP.DIRTY_LOG_RING_ACQ_REL, ring ? DIRTY_RING_MAX_BYTES : 0],
      [CAP.DIRTY_LOG_RING_WITH_BITMAP, ring ? 1 : 0],
      [CAP.GUEST_MEMFD, guestMemfd ? 1 : 0],
      [CAP.GUEST_MEMFD_FLAGS, guestMemfd ? GUEST_MEMFD_FLAGS : 0],
    ]),
  };
}
