import { expect, it } from 'vitest';
import {
  decodeSregs,
  encodeSregs,
  X86_64_SREGS_BYTES,
  type X86_64Sregs,
} from '../../../lib/arch/x86_64/model/registers.ts';
import { EmulatedKernel, ERRNO } from '../../../lib/raw.ts';
import type { Arch } from '../../../lib/uapi/arch.ts';
import { CAP } from '../../../lib/uapi/capabilities.ts';
import { GUEST_MEMFD_FLAG, VM_TYPE } from '../../../lib/uapi/flags.ts';

/** What dispatch/fixed-capabilities didn't ask: IRQFD and ONE_REG were asked of 6.12 of all five in labs, and of 6.1, 6.18 and 7.2 of x86_64. */
const answerOf = (arch: Arch, release: string, cap: number): number => {
  const kernel = new EmulatedKernel({ arch, release });
  return kernel.checkExtension(kernel.openKvm(), cap);
};

const X86_DEFAULT = 0;
const ARCHES = ['x86_64', 's390x', 'ppc64', 'aarch64', 'riscv64'] as const;

it('interrupts by eventfd are there where an interrupt controller is built in, which all recorded kernels have', () => {
  expect(ARCHES.map((arch) => answerOf(arch, '6.12', CAP.IRQFD))).toEqual([1, 1, 1, 1, 1]);
});

// `kvm_vm_ioctl_check_extension` of each architecture: powerpc answers `!xive_enabled()`, riscv doesn't list it.
it('an eventfd may tell the end of an interrupt on x86_64, s390x and aarch64; a POWER9 host and riscv64 have no such thing', () => {
  const answers = (release: string): number[] => ARCHES.map((arch) => answerOf(arch, release, CAP.IRQFD_RESAMPLE));
  expect(answers('6.12')).toEqual([1, 1, 0, 1, 0]);
  expect(answers('7.2')).toEqual([1, 1, 0, 1, 0]);
});

it.each(ARCHES)('vCPUs are recommended, as many as there may be at the most: %s', (arch) => {
  for (const release of ['6.1', '6.12', '7.2']) {
    const [recommended, most] = [answerOf(arch, release, CAP.NR_VCPUS), answerOf(arch, release, CAP.MAX_VCPUS)];
    expect(recommended).toBeGreaterThan(0);
    expect(recommended).toBeLessThanOrEqual(most);
  }
});

it('attributes are of VMs that have private memory', () => {
  const kernel = new EmulatedKernel({ arch: 'x86_64', release: '6.18', x86_64: { swProtectedVm: true } });
  const kvm = kernel.openKvm();
  const vms = [X86_DEFAULT, VM_TYPE.X86_SW_PROTECTED].map((type) => kernel.createVm(kvm, type));
  const PRIVATE = 8;
  expect([kvm, ...vms].map((fd) => kernel.checkExtension(fd, CAP.MEMORY_ATTRIBUTES))).toEqual([PRIVATE, 0, PRIVATE]);
  const set = (fd: number, attributes: number): number => kernel.setMemoryAttributes(fd, 0, 4096, attributes, 0);
  expect(vms.map((fd) => [set(fd, PRIVATE), set(fd, 0), set(fd, 1)])).toEqual([
    [-ERRNO.EINVAL, 0, -ERRNO.EINVAL],
    [0, 0, -ERRNO.EINVAL],
  ]);
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

it('an interrupt that is told of its end by an eventfd needs one', () => {
  const kernel = new EmulatedKernel({ arch: 'x86_64' });
  const vm = kernel.createVm(kernel.openKvm(), 0);
  expect(kernel.createIrqchip(vm)).toBe(0);
  const [event, resample] = [kernel.eventfd(0), kernel.eventfd(0)];
  const RESAMPLE = 2;
  expect(kernel.irqfd(vm, event, 1, RESAMPLE, 99)).toBe(-ERRNO.EBADF);
  expect(kernel.irqfd(vm, event, 1, RESAMPLE, vm)).toBe(-ERRNO.EINVAL);
  expect(kernel.irqfd(vm, event, 1, RESAMPLE, resample)).toBe(0);
});

it('special registers of x86_64 are those of a mode that there is', () => {
  const kernel = new EmulatedKernel({ arch: 'x86_64' });
  const vcpu = kernel.createVcpu(kernel.createVm(kernel.openKvm(), 0), 0);
  const reset = new Uint8Array(X86_64_SREGS_BYTES);
  expect(kernel.getSregs(vcpu, reset)).toBe(0);
  const { cs } = decodeSregs(reset);
  const set = (registers: Partial<X86_64Sregs>): number => {
    const bytes = reset.slice();
    encodeSregs(bytes, registers);
    return kernel.setSregs(vcpu, bytes);
  };
  const [PE, NW, CD, PG] = [1n, 1n << 29n, 1n << 30n, 1n << 31n];
  const PAE = 0x20n;
  const [LME, LMA] = [0x100n, 0x400n];
  const long = { cr0: PE | PG, cr4: PAE, efer: LME | LMA };
  expect(set(long)).toBe(0);
  expect(set({ ...long, cs: { ...cs, l: 1, db: 0 } })).toBe(0);
  // Long mode needs PAE, and to be active where paging is; it isn't where it is not enabled, and nor are its code segments.
  expect(set({ ...long, cr4: 0n })).toBe(-ERRNO.EINVAL);
  expect(set({ ...long, efer: LME })).toBe(-ERRNO.EINVAL);
  expect(set({ cr0: PE | PG, cr4: PAE, efer: LMA })).toBe(-ERRNO.EINVAL);
  expect(set({ cr0: PE, efer: 0n, cs: { ...cs, l: 1 } })).toBe(-ERRNO.EINVAL);
  // CR0: paging needs protection, NW needs CD, and there are 32 bits.
  expect(set({ cr0: PE | PG })).toBe(0);
  expect(set({ cr0: PG })).toBe(-ERRNO.EINVAL);
  expect(set({ cr0: PE | NW })).toBe(-ERRNO.EINVAL);
  expect(set({ cr0: PE | NW | CD })).toBe(0);
  expect(set({ cr0: PE | (1n << 32n) })).toBe(-ERRNO.EINVAL);
});
