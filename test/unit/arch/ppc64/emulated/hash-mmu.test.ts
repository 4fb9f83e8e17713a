/** Which MMU a VM has, and which table: ALLOCATE_HTAB, CONFIGURE_V3_MMU and RESIZE_HPT. */

import { describe, expect, it } from 'vitest';
import { store } from '../../../../../lib/emulated/guest.ts';
import { ERRNO } from '../../../../../lib/uapi/errno.ts';
import { commit, prepare, realModeVm, resizableVm, TestVm, valid, vrma } from './vm.ts';

const PLAIN: [bigint, bigint] = [0x4000_0001_2345_8001n, 0x2010n];

describe('ALLOCATE_HTAB', () => {
  it('takes orders 18 to 46, as far as there is memory', () => {
    const vm = new TestVm();
    const allocate = (order: number): number => vm.ppc.allocateHtab(vm.vm, order);
    expect([1, 17, 47, 60].map(allocate)).toEqual([1, 1, 1, 1].map(() => -ERRNO.EINVAL));
    expect([18, 19, 20, 24].map(allocate)).toEqual([0, 0, 0, 0]);
    // Lab: 28 and up gave ENOMEM on a host of 2 GiB.
    expect([28, 30, 46].map(allocate)).toEqual([1, 1, 1].map(() => -ERRNO.ENOMEM));
    expect(allocate(0)).toBe(-ERRNO.EINVAL);
  });

  it('loses the old table before it looks at the order', () => {
    const vm = new TestVm({ order: 18 });
    vm.write(3, [PLAIN]);
    expect(vm.ppc.allocateHtab(vm.vm, 17)).toBe(-ERRNO.EINVAL);
    expect(vm.read(vm.reader())).toEqual([]);
    expect(vm.write(3, [PLAIN])).toBe(-ERRNO.EINVAL);
  });

  it('empties a table of the same order, marks and all but the marks', () => {
    const vm = new TestVm({ order: 18 });
    const fd = vm.reader();
    vm.read(fd);
    vm.write(3, [PLAIN, PLAIN]);
    vm.ok(vm.ppc.allocateHtab(vm.vm, 18));
    expect(vm.read(fd)).toEqual([{ index: 3, entries: [], nInvalid: 2 }]);
    expect(valid(vm)).toEqual([]);
  });

  it('and writing wait for vCPUs to stop', async () => {
    const vm = new TestVm({ order: 18 });
    const [slot, entry] = vrma(18, 0x1000n, 0x10n);
    vm.write(slot, [entry]);
    const running = vm.kernel.runAsync(vm.vcpu);
    expect(vm.ppc.allocateHtab(vm.vm, 18)).toBe(-ERRNO.EBUSY);
    expect(vm.write(3, [PLAIN])).toBe(-ERRNO.EBUSY);
    expect(vm.ppc.configureV3Mmu(vm.vm, 1, 1n << 63n)).toBe(-ERRNO.EBUSY);
    expect(valid(vm)).toEqual([slot]);
    expect(vm.dirty()).toEqual([]);
    vm.kernel.kick(vm.vcpu);
    expect(await running).toBe(-ERRNO.EINTR);
    expect(vm.write(3, [PLAIN])).toBe(24);
    expect(vm.ppc.allocateHtab(vm.vm, 18)).toBe(0);
  });
});

it('a VM with radix becomes no other while a vCPU runs, which the first KVM_RUN has set up', async () => {
  const vm = new TestVm();
  const running = vm.kernel.runAsync(vm.vcpu);
  expect(vm.ppc.allocateHtab(vm.vm, 18)).toBe(-ERRNO.EBUSY);
  expect(vm.ppc.configureV3Mmu(vm.vm, 0, 0n)).toBe(-ERRNO.EBUSY);
  // What is so already is no change.
  expect(vm.ppc.configureV3Mmu(vm.vm, 3, (1n << 63n) | 24n)).toBe(0);
  expect(vm.write(3, [PLAIN])).toBe(-ERRNO.EINVAL);
  vm.kernel.kick(vm.vcpu);
  expect(await running).toBe(-ERRNO.EINTR);
  expect(vm.ppc.allocateHtab(vm.vm, 18)).toBe(0);
});

describe('CONFIGURE_V3_MMU', () => {
  it('checks flags, GR and the table size, and frees the table for radix', () => {
    const vm = new TestVm({ order: 18 });
    const configure = (flags: number, table: bigint): number => vm.ppc.configureV3Mmu(vm.vm, flags, table);
    expect(configure(8, 0n)).toBe(-ERRNO.EINVAL);
    expect(configure(1, 0n)).toBe(-ERRNO.EINVAL);
    expect(configure(0, 1n << 63n)).toBe(-ERRNO.EINVAL);
    expect(configure(3, (1n << 63n) | 25n)).toBe(-ERRNO.EINVAL);
    expect(configure(3, (1n << 63n) | 24n)).toBe(0);
    expect(vm.write(3, [PLAIN])).toBe(-ERRNO.EINVAL);
    expect(configure(0, 0n)).toBe(0);
    expect(vm.read(vm.reader())).toEqual([]);
  });
});

describe('RESIZE_HPT', () => {
  it('checks its arguments', () => {
    const vm = resizableVm();
    for (const call of [prepare, commit]) {
      expect([call(vm, 17), call(vm, 47), call(vm, 20, 1)]).toEqual([-22, -22, -22]);
    }
    expect(prepare(new TestVm(), 20)).toBe(-ERRNO.EINVAL);
    expect(commit(new TestVm({ order: 18 }), 19)).toBe(-ERRNO.EIO);
  });

  it('says 100 ms, then ready; and nothing is pending after a cancel or a commit', () => {
    const vm = resizableVm();
    expect([prepare(vm, 19), prepare(vm, 19), prepare(vm, 19)]).toEqual([100, 0, 0]);
    expect(commit(vm, 20)).toBe(-ERRNO.ENXIO);
    expect(commit(vm, 19)).toBe(-ERRNO.ENXIO);
    expect([prepare(vm, 40), prepare(vm, 40), prepare(vm, 40)]).toEqual([100, -ERRNO.ENOMEM, 100]);
    expect(commit(vm, 40)).toBe(-ERRNO.ENOMEM);
    expect([prepare(vm, 20), prepare(vm, 0), commit(vm, 20)]).toEqual([100, 0, -ERRNO.ENXIO]);
    expect([prepare(vm, 20), prepare(vm, 21), commit(vm, 20)]).toEqual([100, 100, -ERRNO.ENXIO]);
  });

  it('stays pending where a commit’s arguments are wrong', () => {
    const vm = resizableVm();
    expect([prepare(vm, 20), commit(vm, 17), commit(vm, 20, 1), commit(vm, 20)]).toEqual([100, -22, -22, 0]);
  });
});

it('what was known of a page’s changes is forgotten with ALLOCATE_HTAB', () => {
  const vm = realModeVm([0x5000n]);
  vm.run(store(0x5000, 4, 1n));
  const [slot, entry] = vrma(18, 0x5000n, 0x90n);
  vm.write(slot, [], 1);
  expect(vm.dirty()).toEqual([5]);
  vm.write(slot, [entry]);
  expect(vm.dirty()).toEqual([5]);
  vm.ok(vm.ppc.allocateHtab(vm.vm, 18));
  vm.write(slot, [entry]);
  expect(vm.dirty()).toEqual([]);
});
