import { expect, it } from 'vitest';
import { EmulatedKernel, ERRNO } from '../../../lib/raw.ts';
import type { Arch } from '../../../lib/uapi/arch.ts';
import { CAP } from '../../../lib/uapi/capabilities.ts';
import { GUEST_MEMFD_FLAG, VM_TYPE } from '../../../lib/uapi/flags.ts';

/** What dispatch/fixed-capabilities didn't ask real kernels for. */
const answerOf = (arch: Arch, release: string, cap: number): number => {
  const kernel = new EmulatedKernel({ arch, release });
  return kernel.checkExtension(kernel.openKvm(), cap);
};

const X86_DEFAULT = 0;
const ARCHES = ['x86_64', 's390x', 'ppc64', 'aarch64', 'riscv64'] as const;

it('interrupts by eventfd are there where an interrupt controller is built in, which all recorded kernels have', () => {
  expect(ARCHES.map((arch) => answerOf(arch, '6.12', CAP.IRQFD))).toEqual([1, 1, 1, 1, 1]);
});

it('single registers came to x86_64 with 6.18, long after the others', () => {
  expect(ARCHES.map((arch) => answerOf(arch, '6.12', CAP.ONE_REG))).toEqual([0, 1, 1, 1, 1]);
  expect(answerOf('x86_64', '6.18', CAP.ONE_REG)).toBe(1);
});

it('a run can be ended before it begins everywhere', () => {
  expect(ARCHES.map((arch) => answerOf(arch, '6.12', CAP.IMMEDIATE_EXIT))).toEqual([1, 1, 1, 1, 1]);
});

it('a guest_memfd may begin shared only where nothing is private', () => {
  const flagsOf = (release: string, type: number): number => {
    const kernel = new EmulatedKernel({ arch: 'x86_64', release, x86_64: { swProtectedVm: true } });
    const vm = kernel.createVm(kernel.openKvm(), type);
    expect(vm).toBeGreaterThan(0);
    return kernel.checkExtension(vm, CAP.GUEST_MEMFD_FLAGS);
  };
  const { MMAP, INIT_SHARED } = GUEST_MEMFD_FLAG;
  expect(flagsOf('6.18', X86_DEFAULT)).toBe(MMAP | INIT_SHARED);
  expect(flagsOf('6.18', VM_TYPE.X86_SW_PROTECTED)).toBe(MMAP);
  // The flags came with the capability.
  expect([X86_DEFAULT, VM_TYPE.X86_SW_PROTECTED].map((type) => flagsOf('6.12', type))).toEqual([0, 0]);
});

it('a request of VMs is for VMs alone', () => {
  const kernel = new EmulatedKernel({ arch: 'x86_64' });
  const { setTssAddr, setIdentityMapAddr } = kernel.x86_64!;
  const kvm = kernel.openKvm();
  const vm = kernel.createVm(kvm, 0);
  for (const [fd, result] of [
    [99, -ERRNO.EBADF],
    [kvm, -ERRNO.EINVAL],
    [vm, 0],
  ] as const)
    expect([setTssAddr(fd, 0xffff_0000), setIdentityMapAddr(fd, 0xffff_0000)]).toEqual([result, result]);
});
