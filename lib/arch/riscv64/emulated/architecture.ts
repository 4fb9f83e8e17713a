import type { Architecture } from '../../../emulated/architecture.ts';
import { commonCapabilities, commonMachine, type Machine } from '../../../emulated/machine.ts';
import { DIRTY_RING_MAX_BYTES } from '../../../rules/dirty-ring.ts';
import { CAP } from '../../../uapi/capabilities.ts';
import { ERRNO } from '../../../uapi/errno.ts';
import { DIRTY_LOG } from '../../../uapi/flags.ts';
import type { Release } from '../../../uapi/release.ts';
import { riscv64MemslotRules } from '../rules.ts';
import { Riscv64Vcpu } from './vcpu-state.ts';

const MAX_VCPUS = 1024;
/** With Sv57x4 page tables. */
const GPA_BITS = 59;

/** The generic memory side of riscv64: read-only slots, dirty logs with manual protect, since 6.17 rings. */
export function riscv64Architecture(release: Release): Architecture {
  return { machine: riscv64Machine(release), createVm: () => ({}), createVcpu: (vcpu) => new Riscv64Vcpu(vcpu) };
}

function riscv64Machine(release: Release): Machine {
  const common = commonMachine('riscv64', release);
  const coalescedMmioPage = 1;
  // 6.12 doesn't know INITIALLY_SET and 7.2 does; of the releases between none was asked.
  const manualProtect = DIRTY_LOG.MANUAL_PROTECT_ENABLE | (release.since(7, 2) ? DIRTY_LOG.INITIALLY_SET : 0);
  return {
    ...common,
    vcpuMmapSize: 2 * common.pageSize,
    vcpuIds: MAX_VCPUS,
    maxVcpus: MAX_VCPUS,
    ignoresVmType: true,
    unknownVmRequest: -ERRNO.EINVAL,
    irqfdWithoutIrqchip: 0,
    memslotRules: riscv64MemslotRules(GPA_BITS),
    coalescedMmioPage,
    manualProtect,
    readonlyMem: true,
    unknownOneReg: -ERRNO.ENOENT,
    capabilities: new Map([
      ...commonCapabilities(release),
      [CAP.NR_VCPUS, 1],
      [CAP.MAX_VCPUS, MAX_VCPUS],
      [CAP.MAX_VCPU_ID, MAX_VCPUS],
      [CAP.ONE_REG, 1],
      [CAP.NR_MEMSLOTS, common.userSlots],
      [CAP.MP_STATE, 1],
      [CAP.VM_GPA_BITS, GPA_BITS],
      [CAP.COALESCED_MMIO, coalescedMmioPage],
      [CAP.COALESCED_PIO, 1],
      [CAP.IRQFD, 1],
      [CAP.READONLY_MEM, 1],
      [CAP.MANUAL_DIRTY_LOG_PROTECT2, manualProtect],
      [CAP.DIRTY_LOG_RING_ACQ_REL, release.since(6, 17) ? DIRTY_RING_MAX_BYTES : 0],
    ]),
  };
}
