import { expect, it } from 'vitest';
import { CAP } from '../../../../../lib/uapi/capabilities.ts';
import { ERRNO } from '../../../../../lib/uapi/errno.ts';
import { TestVm } from './vm.ts';

// `kvm_vm_ioctl_check_extension` in arch/powerpc/kvm/powerpc.c of Linux 6.12, with HV; what was asked of real kernels is elsewhere.
it('capabilities of Book3S HV', () => {
  const { kernel, vm } = new TestVm();
  const { PPC_PAPR, PPC_ENABLE_HCALL, PPC_GET_SMMU_INFO, PPC_ALLOC_HTAB, PPC_HTAB_FD, SPAPR_RESIZE_HPT } = CAP;
  const caps = [PPC_PAPR, PPC_ENABLE_HCALL, PPC_GET_SMMU_INFO, PPC_ALLOC_HTAB, PPC_HTAB_FD, SPAPR_RESIZE_HPT];
  for (const cap of [...caps, CAP.ENABLE_CAP, CAP.ONE_REG])
    expect([cap, kernel.checkExtension(vm, cap)]).toEqual([cap, 1]);
});

it('no multiprocessing state', () => {
  const { kernel, vm } = new TestVm();
  expect(kernel.checkExtension(vm, CAP.MP_STATE)).toBe(0);
});

it('up to 2048 vCPUs', () => {
  const { kernel, vm } = new TestVm();
  expect([CAP.MAX_VCPUS, CAP.MAX_VCPU_ID].map((cap) => kernel.checkExtension(vm, cap))).toEqual([2048, 16_384]);
  expect(kernel.createVcpu(vm, 2047)).toBeGreaterThan(0);
});

it('a request of the MMU is for VMs alone, and an order of 0 never gets to the kernel', () => {
  const { kernel, vm, ppc } = new TestVm();
  const kvm = kernel.openKvm();
  const requests = (fd: number): number[] => [
    ppc.allocateHtab(fd, 18),
    ppc.allocateHtab(fd, 0),
    ppc.getHtabFd(fd, 0, 0),
    ppc.resizeHptPrepare(fd, 0, 18),
    ppc.resizeHptCommit(fd, 0, 18),
    ppc.getSmmuInfo(fd, new Uint8Array(592)),
    ppc.configureV3Mmu(fd, 0, 0n),
  ];
  expect(requests(999)).toEqual(Array(7).fill(-ERRNO.EBADF));
  expect(requests(kvm)).toEqual(Array(7).fill(-ERRNO.EINVAL));
  expect(requests(vm)).toEqual([0, -ERRNO.EINVAL, expect.any(Number), 100, -ERRNO.EIO, 0, 0]);
});
