import { describe, expect, it } from 'vitest';
import { load, store } from '../../../../../lib/emulated/guest.ts';
import { CAP } from '../../../../../lib/uapi/capabilities.ts';
import { ERRNO } from '../../../../../lib/uapi/errno.ts';
import { MEM, PROT } from '../../../../../lib/uapi/flags.ts';
import { TestVm } from './vm.ts';

describe('PPC_ENABLE_HCALL', () => {
  /** All that KVM of these releases knows, and others. */
  const [KNOWN, OTHERS] = [
    [0x04, 0x08, 0x0c, 0x10, 0x14, 0x18, 0x2c, 0x124],
    [0, 1, 0x05, 0x1c, 0x58, 0x120, 0x128, 2 ** 32 + 4],
  ];

  it('is for the hypercalls that KVM can answer, on or off', () => {
    const vm = new TestVm();
    const enable = (...args: (number | bigint)[]): number => vm.kernel.enableCap(vm.vm, CAP.PPC_ENABLE_HCALL, 0, args);
    for (const on of [0, 1]) {
      expect(KNOWN.map((nr) => enable(nr, on))).toEqual(KNOWN.map(() => 0));
      expect(OTHERS.map((nr) => enable(nr, on))).toEqual(OTHERS.map(() => -ERRNO.EINVAL));
    }
    expect([enable(4, 2), enable(4, 2n ** 63n)]).toEqual([-ERRNO.EINVAL, -ERRNO.EINVAL]);
    // What is left out is 0: off.
    expect(enable(4)).toBe(0);
    expect(enable()).toBe(-ERRNO.EINVAL);
  });

  it('is the only capability that a VM enables', () => {
    const vm = new TestVm();
    for (const cap of [CAP.PPC_PAPR, CAP.MANUAL_DIRTY_LOG_PROTECT2])
      expect(vm.kernel.enableCap(vm.vm, cap, 0, [4, 1])).toBe(-ERRNO.EINVAL);
  });

  it('of a vCPU is PAPR, without flags', () => {
    const vm = new TestVm();
    const vcpu = vm.ok(vm.kernel.createVcpu(vm.vm, 3));
    expect(vm.kernel.enableCap(vcpu, CAP.PPC_ENABLE_HCALL, 0, [4, 1])).toBe(-ERRNO.EINVAL);
    expect(vm.kernel.enableCap(vcpu, CAP.PPC_PAPR, 1, [])).toBe(-ERRNO.EINVAL);
    expect(vm.kernel.run(vcpu, 0)).toBe(-ERRNO.EINVAL);
    expect(vm.kernel.enableCap(vcpu, CAP.PPC_PAPR, 0, [])).toBe(0);
  });
});

// Recorded as guest-loads/first-and-again and guest-loads/slots-that-change.
describe('the first access of a radix guest maps a page, writable and dirty where the host can write it', () => {
  it('a load too, and no second one', () => {
    const vm = new TestVm();
    vm.run(load(0x3000, 4), load(0x5000, 4), store(0x7000, 4, 1n));
    expect(vm.dirty()).toEqual([3, 5, 7]);
    vm.run(load(0x3000, 4), load(0x4ffc, 4), store(0x5000, 4, 1n));
    expect(vm.dirty()).toEqual([4, 5]);
  });

  it('not where the host cannot', () => {
    const vm = new TestVm();
    vm.ok(vm.kernel.mprotect(vm.hva + 0x3000, 4096, PROT.READ));
    vm.run(load(0x3000, 4), load(0x4000, 4));
    expect(vm.dirty()).toEqual([4]);
    vm.ok(vm.kernel.mprotect(vm.hva + 0x3000, 4096, PROT.READ | PROT.WRITE));
    vm.run(load(0x3000, 4));
    expect(vm.dirty()).toEqual([3]);
  });

  it('and again when the log has begun anew, or the slot has moved', () => {
    const vm = new TestVm();
    const touched = (): number[] => {
      vm.run(load(0x3000, 4));
      return vm.dirty();
    };
    expect([touched(), touched()]).toEqual([[3], []]);
    vm.slot(0, 0, vm.memorySize, 0);
    vm.slot(0, 0, vm.memorySize, MEM.LOG_DIRTY_PAGES);
    expect([touched(), touched()]).toEqual([[3], []]);
    vm.slot(0, 0x1000_0000, vm.memorySize, MEM.LOG_DIRTY_PAGES);
    vm.slot(0, 0, vm.memorySize, MEM.LOG_DIRTY_PAGES);
    expect([touched(), touched()]).toEqual([[3], []]);
  });
});
