import { expect, it } from 'vitest';
import { CAP } from '../../../../../lib/uapi/capabilities.ts';
import { ERRNO } from '../../../../../lib/uapi/errno.ts';
import { machineOf } from '../../../emulated/machine-of.ts';

const machine = (release: string) => machineOf('s390x', release);

// `kvm_vm_ioctl_check_extension` in arch/s390/kvm/kvm-s390.c of Linux 6.12; what was asked of real kernels is elsewhere.
it('what every kernel has', () => {
  const { answers } = machine('6.12');
  const { SYNC_REGS, ONE_REG, ENABLE_CAP, MP_STATE, S390_GMAP, S390_IRQCHIP, S390_SKEYS, S390_CMMA_MIGRATION } = CAP;
  const caps = [SYNC_REGS, ONE_REG, ENABLE_CAP, MP_STATE, S390_GMAP, S390_IRQCHIP, S390_SKEYS, S390_CMMA_MIGRATION];
  expect(answers(...caps)).toEqual(caps.map(() => 1));
  expect(answers(CAP.S390_MEM_OP)).toEqual([65_536]);
});

it('what came with a release', () => {
  const { S390_MEM_OP_EXTENSION, S390_USER_OPEREXEC, S390_KEYOP, S390_VSIE_ESAMODE, PRE_FAULT_MEMORY } = CAP;
  const of = (release: string): number[] =>
    machine(release).answers(
      S390_MEM_OP_EXTENSION,
      S390_USER_OPEREXEC,
      S390_KEYOP,
      S390_VSIE_ESAMODE,
      PRE_FAULT_MEMORY,
    );
  expect(of('6.2')).toEqual([1, 0, 0, 0, 0]);
  expect(of('6.3')).toEqual([3, 0, 0, 0, 0]);
  expect(of('6.18')).toEqual([3, 0, 0, 0, 0]);
  expect(of('6.19')).toEqual([3, 1, 0, 0, 0]);
  expect(of('7.0')).toEqual([3, 1, 1, 0, 0]);
  expect(of('7.1')).toEqual([3, 1, 1, 1, 0]);
  expect(of('7.2')).toEqual([3, 1, 1, 1, 1]);
});

it('as many memslots and vCPUs as it says', () => {
  for (const [release, slots] of [
    ['6.13', 32_767],
    ['6.14', 32_766],
  ] as const) {
    const { kernel, vm, answers } = machine(release);
    expect(answers(CAP.NR_MEMSLOTS, CAP.MAX_VCPUS, CAP.MAX_VCPU_ID)).toEqual([slots, 255, 255]);
    const hva = kernel.mmap(0x10_0000, 3, 0x22, -1, 0, 0x10_0000, 0);
    const slot = (id: number): number => kernel.setUserMemoryRegion(vm, id, 0, id * 0x10_0000, 0x10_0000, hva);
    expect([slot(slots - 1), slot(slots)]).toEqual([0, -ERRNO.EINVAL]);
    expect([kernel.createVcpu(vm, 254) > 0, kernel.createVcpu(vm, 255)]).toEqual([true, -ERRNO.EINVAL]);
  }
});
