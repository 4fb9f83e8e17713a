import { describe, expect, it } from 'vitest';
import { decodeSregs, encodeSregs, X86_64_SREGS_BYTES } from '../../../../../lib/arch/x86_64/model/registers.ts';
import { EmulatedKernel } from '../../../../../lib/backends/emulated.ts';
import { ERRNO } from '../../../../../lib/uapi/errno.ts';
import { MAP, MEMORY_ATTRIBUTE_PRIVATE, PROT, VM_TYPE } from '../../../../../lib/uapi/flags.ts';

const PAGE = 4096;

/** A VM with 16 pages at 0, and a vCPU. */
function machine(release: string, type = 0) {
  const kernel = new EmulatedKernel({ arch: 'x86_64', release, x86_64: { swProtectedVm: true } });
  const vm = kernel.createVm(kernel.openKvm(), type);
  const hva = kernel.mmap(16 * PAGE, PROT.READ | PROT.WRITE, MAP.PRIVATE | MAP.ANONYMOUS, -1, 0, PAGE, 0);
  expect(kernel.setUserMemoryRegion(vm, 0, 0, 0, 16 * PAGE, hva)).toBe(0);
  const vcpu = kernel.createVcpu(vm, 0);
  const preFault = (first: number, pages: number): (number | bigint)[] => {
    const range = BigUint64Array.of(BigInt(first * PAGE), BigInt(pages * PAGE));
    return [kernel.preFaultMemory(vcpu, range, 0n), range[0]! / BigInt(PAGE), range[1]! / BigInt(PAGE)];
  };
  return { kernel, vm, hva, vcpu, preFault };
}

// Recorded as guest-memfd/pre-fault.
describe('PRE_FAULT_MEMORY', () => {
  it('came with 6.11', () => {
    expect(machine('6.10').preFault(0, 1)).toEqual([-ERRNO.EINVAL, 0n, 1n]);
    expect(machine('6.11').preFault(0, 1)).toEqual([0, 1n, 0n]);
  });

  it('goes as far as there is memory that may be read', () => {
    const { kernel, hva, preFault } = machine('6.12');
    expect([preFault(0, 16), preFault(16, 1), preFault(14, 4)]).toEqual([
      [0, 16n, 0n],
      [-ERRNO.ENOENT, 16n, 1n],
      [0, 16n, 2n],
    ]);
    kernel.mprotect(hva + 3 * PAGE, PAGE, PROT.READ);
    kernel.mprotect(hva + 5 * PAGE, PAGE, PROT.NONE);
    expect([preFault(3, 1), preFault(5, 1), preFault(2, 8)]).toEqual([
      [0, 4n, 0n],
      [-ERRNO.EFAULT, 5n, 1n],
      [0, 5n, 5n],
    ]);
  });

  it('finds no page of private memory in no slot', () => {
    const { kernel, vm, preFault } = machine('6.12', VM_TYPE.X86_SW_PROTECTED);
    expect(preFault(20, 1)[0]).toBe(-ERRNO.ENOENT);
    expect(kernel.setMemoryAttributes(vm, BigInt(20 * PAGE), BigInt(PAGE), BigInt(MEMORY_ATTRIBUTE_PRIVATE), 0n)).toBe(
      0,
    );
    expect(preFault(20, 1)[0]).toBe(-ERRNO.EFAULT);
  });
});

it('control register 0 has 32 bits, which may all be set', () => {
  const { kernel, vcpu } = machine('6.12');
  const bytes = new Uint8Array(X86_64_SREGS_BYTES);
  const set = (cr0: bigint): number => {
    expect(kernel.getSregs(vcpu, bytes)).toBe(0);
    encodeSregs(bytes, { cr0 });
    return kernel.setSregs(vcpu, bytes);
  };
  expect([set(0xffff_ffffn), decodeSregs(bytes).cr0, set(0x1_ffff_ffffn)]).toEqual([0, 0xffff_ffffn, -ERRNO.EINVAL]);
});
