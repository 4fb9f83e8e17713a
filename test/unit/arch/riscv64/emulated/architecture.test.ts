import { expect, it } from 'vitest';
import { CAP } from '../../../../../lib/uapi/capabilities.ts';
import { ERRNO } from '../../../../../lib/uapi/errno.ts';
import { machineOf } from '../../../emulated/machine-of.ts';

const machine = (release: string) => machineOf('riscv64', release);

// `kvm_vm_ioctl_check_extension` in arch/riscv/kvm/vm.c of Linux 6.12.
it('single registers and multiprocessing states are there', () => {
  expect(machine('6.12').answers(CAP.ONE_REG, CAP.MP_STATE)).toEqual([1, 1]);
});

it('up to 1024 vCPUs, each with an id below that', () => {
  const { kernel, vm, answers } = machine('7.2');
  expect(answers(CAP.MAX_VCPUS, CAP.MAX_VCPU_ID)).toEqual([1024, 1024]);
  // As many as the host has processors.
  expect(answers(CAP.NR_VCPUS)).toEqual([1]);
  expect(kernel.createVcpu(vm, 1023)).toBeGreaterThan(0);
  expect(kernel.createVcpu(vm, 1024)).toBe(-ERRNO.EINVAL);
});

it('a VM is made whatever its type', () => {
  const { kernel, kvm } = machine('7.2');
  expect(kernel.createVm(kvm, 0xffff_ffff)).toBeGreaterThan(0);
});

it('dirty rings came with 6.17, logs that are all set at first with 7.2', () => {
  const answers = (release: string): number[] =>
    machine(release).answers(CAP.DIRTY_LOG_RING_ACQ_REL, CAP.MANUAL_DIRTY_LOG_PROTECT2);
  expect(answers('6.16')).toEqual([0, 1]);
  expect(answers('6.17')).toEqual([0x10_0000, 1]);
  expect(answers('7.2')).toEqual([0x10_0000, 3]);
});
