import { describe, expect, it } from 'vitest';
import { EmulatedKernel } from '../../../../../lib/backends/emulated.ts';
import { CAP } from '../../../../../lib/uapi/capabilities.ts';
import { ERRNO } from '../../../../../lib/uapi/errno.ts';

const answers = (release: string, ...caps: number[]): number[] => {
  const kernel = new EmulatedKernel({ arch: 'x86_64', release });
  const kvm = kernel.openKvm();
  return caps.map((cap) => kernel.checkExtension(kvm, cap));
};

// `kvm_vm_ioctl_check_extension` in arch/x86/kvm/x86.c of Linux 6.12; what was asked of real kernels is elsewhere.
it('what every kernel has', () => {
  expect(answers('6.12', CAP.IRQCHIP, CAP.MP_STATE, CAP.COALESCED_PIO, CAP.IOEVENTFD_NO_LENGTH)).toEqual([1, 1, 1, 1]);
  expect(answers('6.12', CAP.IRQ_ROUTING, CAP.MAX_VCPUS, CAP.MAX_VCPU_ID)).toEqual([4096, 1024, 4096]);
  // General, system and debug registers, and events.
  expect(answers('6.12', CAP.SYNC_REGS)).toEqual([7]);
});

it('what came with a release', () => {
  expect(['6.10', '6.11'].map((release) => answers(release, CAP.PRE_FAULT_MEMORY))).toEqual([[0], [1]]);
  expect(['6.17', '6.18'].map((release) => answers(release, CAP.ONE_REG, CAP.GUEST_MEMFD_FLAGS))).toEqual([
    [0, 0],
    [1, 3],
  ]);
  const MEMFD = [CAP.MEMORY_FAULT_INFO, CAP.VM_TYPES, CAP.GUEST_MEMFD, CAP.MEMORY_ATTRIBUTES];
  expect(['6.7', '6.8'].map((release) => answers(release, ...MEMFD))).toEqual([
    [0, 0, 0, 0],
    [1, 1, 1, 8],
  ]);
});

it('ids of vCPUs go further than their number', () => {
  const kernel = new EmulatedKernel({ arch: 'x86_64' });
  const vm = kernel.createVm(kernel.openKvm(), 0);
  expect(kernel.createVcpu(vm, 4095)).toBeGreaterThan(0);
  expect(kernel.createVcpu(vm, 4096)).toBe(-ERRNO.EINVAL);
});

describe('places that VMX needs', () => {
  it('are three pages below 4 GiB, and one before there are vCPUs', () => {
    const kernel = new EmulatedKernel({ arch: 'x86_64' });
    const vm = kernel.createVm(kernel.openKvm(), 0);
    const { setTssAddr, setIdentityMapAddr } = kernel.x86_64!;
    expect([0, 0xffff_d000, 0xffff_d001, 0x1_0000_0000].map((address) => setTssAddr(vm, address))).toEqual([
      0,
      0,
      -ERRNO.EINVAL,
      -ERRNO.EINVAL,
    ]);
    expect(setIdentityMapAddr(vm, 0)).toBe(0);
    kernel.createVcpu(vm, 0);
    expect([setTssAddr(vm, 0), setIdentityMapAddr(vm, 0)]).toEqual([0, -ERRNO.EINVAL]);
  });
});
