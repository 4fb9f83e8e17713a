import { expect, it } from 'vitest';
import { CAP } from '../../../../../lib/uapi/capabilities.ts';
import { ERRNO } from '../../../../../lib/uapi/errno.ts';
import { GUEST_MEMFD_FLAG } from '../../../../../lib/uapi/flags.ts';
import { machineOf } from '../../../emulated/machine-of.ts';

const machine = (release: string) => machineOf('aarch64', release);

// `kvm_vm_ioctl_check_extension` in arch/arm64/kvm/arm.c of Linux 6.12.
it('single registers and multiprocessing states are there', () => {
  expect(machine('6.12').answers(CAP.ONE_REG, CAP.MP_STATE)).toEqual([1, 1]);
});

it('up to 512 vCPUs, each with an id below that', () => {
  const { kernel, vm, answers } = machine('7.2');
  expect(answers(CAP.MAX_VCPUS, CAP.MAX_VCPU_ID)).toEqual([512, 512]);
  expect(kernel.createVcpu(vm, 511)).toBeGreaterThan(0);
  expect(kernel.createVcpu(vm, 512)).toBe(-ERRNO.EINVAL);
});

it('dirty rings came with 6.2, a mappable guest_memfd with 6.18', () => {
  const RING = [CAP.DIRTY_LOG_RING_ACQ_REL, CAP.DIRTY_LOG_RING_WITH_BITMAP];
  const MEMFD = [CAP.GUEST_MEMFD, CAP.GUEST_MEMFD_FLAGS];
  const answers = (release: string): number[] => machine(release).answers(...RING, ...MEMFD);
  const flags = GUEST_MEMFD_FLAG.MMAP | GUEST_MEMFD_FLAG.INIT_SHARED;
  expect(answers('6.1')).toEqual([0, 0, 0, 0]);
  expect(answers('6.2')).toEqual([0x10_0000, 1, 0, 0]);
  expect(answers('6.17')).toEqual([0x10_0000, 1, 0, 0]);
  expect(answers('6.18')).toEqual([0x10_0000, 1, 1, flags]);
});

it('before 6.18 there is no guest_memfd, whatever its flags', () => {
  for (const [release, made] of [
    ['6.17', false],
    ['6.18', true],
  ] as const) {
    const { kernel, vm } = machine(release);
    const results = [0, 1, 3].map((flags) => kernel.createGuestMemfd(vm, 0x4000, flags));
    if (made) expect(Math.min(...results)).toBeGreaterThan(0);
    else expect(results).toEqual(Array(3).fill(-ERRNO.EINVAL));
    expect(kernel.createGuestMemfd(vm, 0x4000, 4)).toBe(-ERRNO.EINVAL);
  }
});

it('a VM has no attributes', () => {
  const { kernel, vm } = machine('7.2');
  expect(kernel.hasDeviceAttr(vm, 0, 0n)).toBe(-ERRNO.ENXIO);
  expect(kernel.setDeviceAttr(vm, 0, 0n, new Uint8Array(8))).toBe(-ERRNO.ENXIO);
});

it('read-only slots, and what is stored in them leaves to user space', () => {
  const { kernel, vm } = machine('7.2');
  expect(kernel.setUserMemoryRegion(vm, 0, 2, 0, 0, 0)).toBe(-ERRNO.EINVAL);
  const hva = kernel.mmap(4096, 3, 0x22, -1, 0, 4096, 0);
  expect(kernel.setUserMemoryRegion(vm, 0, 2, 0, 4096, hva)).toBe(0);
});
