import type { Architecture } from '../../../emulated/architecture.ts';
import { commonCapabilities, commonMachine, type Machine } from '../../../emulated/machine.ts';
import { CAP } from '../../../uapi/capabilities.ts';
import { ERRNO } from '../../../uapi/errno.ts';
import type { Release } from '../../../uapi/release.ts';
import { MEM_OP_MAX_SIZE } from '../rules.ts';
import { S390xArchVcpu } from './arch-vcpu.ts';
import { s390xCalls } from './calls.ts';
import { processPageStates } from './page-states.ts';
import { S390xVm } from './vm-state.ts';

/** Of a machine without SIGP interpretation, which the recordings are from; others have 248. */
const MAX_VCPUS = 255;

/** KVM of s390x: MEM_OP, storage keys, CMMA; no MMIO, no read-only memory, one address space. */
export function s390xArchitecture(release: Release): Architecture<S390xVm, S390xArchVcpu> {
  return {
    machine: s390xMachine(release),
    createVm: (vm) => new S390xVm(vm),
    createVcpu: (vcpu, vm) => new S390xArchVcpu(vcpu, vm),
    calls: (files) => {
      // Up to 6.19 what user space touches is noted from the beginning.
      if (!release.since(7, 0)) processPageStates(files.memory);
      return { s390x: s390xCalls(files) };
    },
  };
}

function s390xMachine(release: Release): Machine {
  const common = commonMachine('s390x', release);
  const userSlots = release.since(6, 14) ? 32766 : 32767;
  return {
    ...common,
    vcpuIds: MAX_VCPUS,
    maxVcpus: MAX_VCPUS,
    vcpuMmapSize: common.pageSize,
    unknownVcpuRequest: -ERRNO.ENOTTY,
    irqfdWithoutIrqchip: 0,
    userSlots,
    dirtyLogSurvivesFault: true,
    capabilities: new Map([
      ...commonCapabilities(release),
      [CAP.NR_VCPUS, 1],
      [CAP.MAX_VCPUS, MAX_VCPUS],
      [CAP.MAX_VCPU_ID, MAX_VCPUS],
      [CAP.ONE_REG, 1],
      [CAP.NR_MEMSLOTS, userSlots],
      [CAP.MP_STATE, 1],
      [CAP.ENABLE_CAP, 1],
      [CAP.SYNC_REGS, 1],
      [CAP.IRQFD, 1],
      [CAP.IRQFD_RESAMPLE, 1],
      [CAP.S390_GMAP, 1],
      [CAP.S390_IRQCHIP, 1],
      [CAP.S390_MEM_OP, MEM_OP_MAX_SIZE],
      [CAP.S390_SKEYS, 1],
      [CAP.S390_CMMA_MIGRATION, 1],
      [CAP.S390_MEM_OP_EXTENSION, release.since(6, 3) ? 3 : 1],
      [CAP.S390_USER_OPEREXEC, release.since(6, 19) ? 1 : 0],
      [CAP.S390_KEYOP, release.since(7, 0) ? 1 : 0],
      [CAP.S390_VSIE_ESAMODE, release.since(7, 1) ? 1 : 0],
      [CAP.PRE_FAULT_MEMORY, release.since(7, 2) ? 1 : 0],
    ]),
  };
}
