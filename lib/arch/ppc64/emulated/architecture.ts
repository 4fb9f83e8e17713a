import type { Ppc64Calls } from '../../../calls/kvm-calls.ts';
import type { Architecture, KernelFiles } from '../../../emulated/architecture.ts';
import { commonCapabilities, commonMachine, type Machine, PLAIN_VM } from '../../../emulated/machine.ts';
import { copyOut } from '../../../emulated/user-memory.ts';
import { refusal } from '../../../rules/rule.ts';
import { CAP } from '../../../uapi/capabilities.ts';
import { ERRNO } from '../../../uapi/errno.ts';
import { VM_TYPE } from '../../../uapi/flags.ts';
import type { Release } from '../../../uapi/release.ts';
import { HTAB_FD_RULES } from '../rules.ts';
import type { HashMmu } from './hash-mmu.ts';
import { HtabFile } from './htab-file.ts';
import { smmuInfo } from './smmu-info.ts';
import { Ppc64Vcpu } from './vcpu-state.ts';
import { Ppc64Vm } from './vm-state.ts';

const MAX_VCPUS = 2048;

/** ppc64, Book3S HV on a little-endian POWER9 host. */
export function ppc64Architecture(release: Release, pageSize?: number): Architecture<Ppc64Vm, Ppc64Vcpu> {
  return {
    machine: ppc64Machine(release, pageSize),
    createVm: (vm) => new Ppc64Vm(vm),
    createVcpu: (vcpu, vm) => new Ppc64Vcpu(vcpu, vm),
    calls: (files) => ({ ppc64: ppc64Calls(files) }),
  };
}

function ppc64Machine(release: Release, size: number | undefined): Machine {
  const common = commonMachine('ppc64', release);
  const pageSize = size ?? common.pageSize;
  return {
    ...common,
    pageSize,
    vmTypes: [PLAIN_VM, { ...PLAIN_VM, type: BigInt(VM_TYPE.PPC_HV) }],
    vcpuIds: MAX_VCPUS,
    maxVcpus: MAX_VCPUS,
    vcpuMmapSize: pageSize,
    duplicateVcpuId: -ERRNO.EINVAL,
    irqfdWithoutIrqchip: -ERRNO.EAGAIN,
    capabilities: new Map([
      ...commonCapabilities(release),
      [CAP.NR_VCPUS, 1],
      [CAP.MAX_VCPUS, MAX_VCPUS],
      [CAP.MAX_VCPU_ID, MAX_VCPUS * 8],
      [CAP.ONE_REG, 1],
      [CAP.NR_MEMSLOTS, common.userSlots],
      [CAP.ENABLE_CAP, 1],
      [CAP.IRQFD, 1],
      [CAP.PPC_PAPR, 1],
      [CAP.PPC_ENABLE_HCALL, 1],
      [CAP.PPC_GET_SMMU_INFO, 1],
      [CAP.PPC_ALLOC_HTAB, 1],
      [CAP.PPC_HTAB_FD, 1],
      [CAP.SPAPR_RESIZE_HPT, 1],
    ]),
  };
}

function ppc64Calls(files: KernelFiles<Ppc64Vm, Ppc64Vcpu>): Ppc64Calls {
  const onMmu = (fd: number, call: (mmu: HashMmu) => number): number => {
    const vm = files.vm(fd);
    return typeof vm === 'number' ? vm : call(vm.mmu);
  };
  return {
    // Known kernels crash on order 0, so neither this one nor the addon ever gets to see it.
    allocateHtab: (fd, order) => {
      const vm = files.vm(fd);
      if (order === 0 && vm !== -ERRNO.EBADF) return -ERRNO.EINVAL;
      return typeof vm === 'number' ? vm : vm.mmu.allocate(order);
    },
    getHtabFd: (fd, flags, startIndex) => onMmu(fd, (mmu) => openHtab(files, mmu, BigInt(flags), Number(startIndex))),
    resizeHptPrepare: (fd, flags, shift) => onMmu(fd, (mmu) => mmu.prepareResize(BigInt(flags), shift)),
    resizeHptCommit: (fd, flags, shift) => onMmu(fd, (mmu) => mmu.commitResize(BigInt(flags), shift)),
    getSmmuInfo: (fd, info) => onMmu(fd, () => copyOut(smmuInfo(), info)),
    configureV3Mmu: (fd, flags, table) => onMmu(fd, (mmu) => mmu.configure(BigInt(flags), BigInt(table))),
  };
}

function openHtab(files: KernelFiles<Ppc64Vm, Ppc64Vcpu>, mmu: HashMmu, flags: bigint, startIndex: number): number {
  const refused = refusal(HTAB_FD_RULES, { flags });
  if (refused !== 0) return refused;
  return files.open(new HtabFile(mmu, Number(flags), startIndex));
}
