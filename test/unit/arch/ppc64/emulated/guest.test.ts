import { describe, expect, it } from 'vitest';
import { load, store } from '../../../../../lib/emulated/guest.ts';
import { ERRNO } from '../../../../../lib/uapi/errno.ts';
import { EXIT, MAP, MEM, PROT } from '../../../../../lib/uapi/flags.ts';
import { KVM_RUN } from '../../../../../lib/uapi/structs.ts';
import { RELOCATED, realModeVm, relocatedVm, TestVm, vrma } from './vm.ts';

describe('a guest in real mode', () => {
  it('gets entries for its memory when it has none, in the last slot of each group', () => {
    const vm = new TestVm({ order: 20 });
    vm.run(store(0x5000, 4, 0x55n));
    expect(vm.exit).toBe(-ERRNO.EINTR);
    expect(vm.kernel.readMemory(vm.hva + 0x5000, new Uint8Array(4))).toBe(4);
    const chunks = vm.read(vm.reader(), 1 << 20);
    expect(chunks.reduce((sum, { entries }) => sum + entries.length, 0)).toBe(2 ** (20 - 7));
    expect(chunks.every(({ index, entries }) => entries.length === 0 || index % 8 === 7)).toBe(true);
    const [slot] = vrma(20, 0x5000n, 0n, 7);
    // R, C, M set, PP 0, bolted (facts sheet 4.2).
    expect(vm.guestView(slot)).toEqual([0x4001_ffff_ff00_0011n, 0x5190n]);
  });

  it('gets a table of order 24 when there is none', () => {
    const vm = new TestVm();
    vm.ok(vm.ppc.configureV3Mmu(vm.vm, 0, 0));
    vm.run(store(0, 4, 1n));
    const chunks = vm.read(vm.reader(), 1 << 22);
    const end = chunks.at(-1)!;
    expect(end.index + end.entries.length + end.nInvalid).toBe(2 ** 20);
  });

  it('gets entries above 4 GiB as well', () => {
    const vm = new TestVm({ pageSize: 65536, memorySize: 2 ** 32 + (64 << 20) });
    vm.ok(vm.ppc.configureV3Mmu(vm.vm, 0, 0));
    const high = 2 ** 32 + 0x1_0008;
    expect(vm.run(store(high, 4, 7n), load(high, 4))).toEqual([undefined, 7n]);
    const bytes = new Uint8Array(4);
    vm.kernel.readMemory(vm.hva + high, bytes);
    expect([...bytes]).toEqual([7, 0, 0, 0]);
  });

  it('takes no slot that somebody has, and ends there', () => {
    const vm = new TestVm({ order: 18 });
    const [taken] = vrma(18, 0x3000n, 0n, 7);
    // An entry that is not of the VRMA.
    expect(vm.write(taken, [[0x4000_0001_2345_8001n, 0x7012n]])).toBe(24);
    expect(vm.run(load(0x2000, 4))).toEqual([0n]);
    expect(() => vm.run(load(0x3000, 4))).toThrow(/no page table entry for 0x3000/);
    expect(() => vm.run(load(0x4000, 4))).toThrow(/no page table entry for 0x4000/);
  });

  it('has R set by loads and C by stores, which a later pass and the dirty log tell', () => {
    const vm = realModeVm([0x1000n, 0x5000n, 0x7000n]);
    const fd = vm.reader();
    vm.read(fd);
    const results = vm.run(store(0x5000, 4, 0x1122_3344n), load(0x5000, 4), load(0x7000, 8));
    expect(results[1]).toBe(0x1122_3344n);
    // In the lab: 0x7012 became 0x7192 by a store.
    const entries = vm.read(fd).flatMap((chunk) => chunk.entries.map(([, r]) => r));
    expect(entries.sort()).toEqual([0x5192n, 0x7112n]);
    expect(vm.read(fd)).toEqual([]);
    expect(vm.dirty()).toEqual([5]);
    expect(vm.dirty()).toEqual([]);
    vm.run(store(0x5ffc, 4, 1n));
    expect(vm.dirty()).toEqual([5]);
  });

  it('does not dirty pages by the HTAB fd, nor does the host by its own mapping', () => {
    const vm = new TestVm({ order: 18 });
    expect(vm.dirty()).toEqual([]);
    vm.write(0, [[0x4000_0001_2345_6011n, 0x1192n]]);
    vm.kernel.writeMemory(vm.hva + 0x5000, Uint8Array.of(1));
    expect(vm.dirty()).toEqual([]);
  });

  it('leaves to user space for an address without memslot, and comes back with what that said', () => {
    const vm = realModeVm([0x1000n]);
    const [slot, entry] = vrma(18, 0x4000_0000n, 0x28n, 1);
    vm.write(slot, [entry]);
    vm.run(store(0x4000_0000, 4, 0x55n));
    expect([vm.exit, vm.exitReason]).toEqual([0, EXIT.MMIO]);
    const { mmio } = KVM_RUN;
    expect(vm.runArea.getBigUint64(mmio.phys_addr, true)).toBe(0x4000_0000n);
    expect(vm.runArea.getUint32(mmio.len, true)).toBe(4);
    expect(vm.runArea.getUint8(mmio.is_write)).toBe(1);
    const results = vm.run(load(0x4000_0004, 4));
    expect(vm.exitReason).toBe(EXIT.MMIO);
    vm.runArea.setUint32(mmio.data, 0x4433_2211, true);
    vm.kernel.run(vm.vcpu, 0);
    expect(results).toEqual([0x4433_2211n]);
  });

  it('follows the life of a memslot: memory, MMIO while it is gone, memory again', () => {
    const vm = realModeVm([0x1000n, 0x5000n]);
    const fd = vm.reader();
    vm.read(fd);
    vm.run(store(0x5000, 4, 7n));
    vm.slot(0, 0, 0);
    // R and C went into the guest's view when the page was unmapped.
    expect(vm.read(fd).flatMap((chunk) => chunk.entries.map(([, r]) => r))).toEqual([0x5192n]);
    vm.run(load(0x5000, 4));
    expect([vm.exit, vm.exitReason]).toEqual([0, EXIT.MMIO]);
    vm.slot(0, 0, vm.memorySize);
    vm.kernel.run(vm.vcpu, 0);
    const results = vm.run(load(0x5000, 4));
    expect([vm.exit, results]).toEqual([-ERRNO.EINTR, [7n]]);
  });

  it('makes memory of an entry that was MMIO when it was entered', () => {
    const vm = realModeVm([0x1000n]);
    const [slot, entry] = vrma(18, 0x800_0000n, 0x10n, 2);
    vm.write(slot, [entry]);
    vm.slot(1, 0x800_0000, 0x1_0000, 0, vm.hva + 0x10_0000);
    vm.run(store(0x800_0000, 4, 9n));
    expect(vm.exit).toBe(-ERRNO.EINTR);
    const bytes = new Uint8Array(4);
    vm.kernel.readMemory(vm.hva + 0x10_0000, bytes);
    expect([...bytes]).toEqual([9, 0, 0, 0]);
  });

  it('fails the run where the host has no page', () => {
    const vm = realModeVm([0x5000n]);
    vm.ok(vm.kernel.mprotect(vm.hva + 0x5000, 4096, PROT.READ));
    vm.run(load(0x5000, 4));
    expect(vm.exit).toBe(-ERRNO.EINTR);
    vm.run(store(0x5000, 4, 1n));
    expect([vm.exit, vm.exitReason]).toEqual([-ERRNO.EFAULT, EXIT.UNKNOWN]);
    vm.ok(vm.kernel.mprotect(vm.hva + 0x5000, 4096, PROT.READ | PROT.WRITE));
    // The same store is executed again.
    expect(vm.kernel.run(vm.vcpu, 0)).toBe(-ERRNO.EINTR);
    expect(vm.run(load(0x5000, 4))).toEqual([1n]);
  });

  it('finds nothing for an address without an entry', () => {
    const vm = realModeVm([0x1000n]);
    expect(() => vm.run(load(0x9000, 4))).toThrow(/no page table entry for 0x9000/);
  });

  it('is not run without memory at 0, from which its entries would be', () => {
    const vm = new TestVm({ order: 18 });
    vm.slot(0, 0, 0);
    vm.run(load(0, 4));
    expect([vm.exit, vm.exitReason]).toEqual([-ERRNO.EINVAL, EXIT.UNKNOWN]);
    vm.slot(0, 0x1000, vm.memorySize);
    vm.run(load(0, 4));
    expect(vm.exit).toBe(-ERRNO.EINVAL);
    vm.slot(0, 0, 0);
    const gone = vm.kernel.mmap(1 << 20, PROT.READ, MAP.PRIVATE | MAP.ANONYMOUS, -1, 0, 1 << 20, 0);
    vm.slot(0, 0, 1 << 20, 0, gone);
    vm.ok(vm.kernel.munmap(gone, 1 << 20));
    vm.run(load(0, 4));
    expect(vm.exit).toBe(-ERRNO.EINVAL);
  });

  it('is not run without PAPR', () => {
    const vm = new TestVm({ order: 18 });
    const vcpu = vm.ok(vm.kernel.createVcpu(vm.vm, 5));
    expect(vm.kernel.run(vcpu, 0)).toBe(-ERRNO.EINVAL);
  });
});

describe('a guest with relocation', () => {
  const { ea, slot } = RELOCATED;

  it('reads and writes through its segment', () => {
    const vm = relocatedVm({});
    const results = vm.run(store(ea, 8, 0x0102n), load(ea, 8));
    expect([vm.exit, results[1]]).toEqual([-ERRNO.EINTR, 0x0102n]);
    expect(vm.dirty()).toEqual([8]);
  });

  it('gets the segment interrupt outside of it', () => {
    expect(() => relocatedVm({}).run(load(0x2000_0000, 4))).toThrow(/no segment/);
  });

  it('is denied by PP with its key, and by AMR', () => {
    const user = 0x8000_0000_0000_4031n;
    expect(() => relocatedVm({ pp: 1 }, { msr: user }).run(store(ea, 4, 0n))).toThrow(/denied: protection/);
    expect(relocatedVm({ pp: 1 }).run(store(ea, 4, 0n))).toHaveLength(1);
    const amr = 2n << (62n - 2n * 5n);
    expect(() => relocatedVm({ key: 5 }, { amr }).run(store(ea, 4, 0n))).toThrow(/denied: key/);
    expect(relocatedVm({ key: 5 }, { amr }).run(load(ea, 4))).toEqual([0n]);
  });

  it('may store again where a fault has to make the real entry writable', () => {
    const vm = relocatedVm({ pp: 3 });
    vm.run(load(ea, 4));
    // H_PROTECT to PP 2: the real entry stays read-only until the store faults.
    expect(vm.hcall(0x18, 2n, BigInt(slot), 0n)).toEqual([0n]);
    vm.run(store(ea, 4, 3n));
    expect([vm.exit, vm.dirty()]).toEqual([-ERRNO.EINTR, [8]]);
  });
});

it('several entries of one 64K host page are collected as one page', () => {
  const vm = realModeVm([0x1_1000n, 0x1_2000n, 0x1_3000n], 65536);
  vm.run(store(0x1_1000, 4, 1n), store(0x1_3000, 4, 1n));
  expect(vm.dirty()).toEqual([1]);
  vm.write(vrma(18, 0x1_3000n, 0n)[0], [], 1);
  vm.run(store(0x1_2000, 4, 1n));
  expect(vm.dirty()).toEqual([1]);
});

it('the log keeps a page whose entry was removed after the store, and loses it with ALLOCATE_HTAB', () => {
  const vm = realModeVm([0x5000n, 0x6000n]);
  vm.run(store(0x5000, 4, 1n), store(0x6000, 4, 1n));
  vm.write(vrma(18, 0x5000n, 0n)[0], [], 1);
  vm.ok(vm.ppc.allocateHtab(vm.vm, 18));
  expect(vm.dirty()).toEqual([5]);
});

it('a page that was changed through an entry is so for the next one that says C, as the kernel’s reverse map has it', () => {
  const vm = realModeVm([0x5000n, 0x6000n]);
  vm.run(store(0x5000, 4, 1n));
  const [slot, [v, r]] = vrma(18, 0x5000n, 0n);
  vm.write(slot, [], 1);
  expect(vm.dirty()).toEqual([5]);
  const [other, [otherV, otherR]] = vrma(18, 0x6000n, 0n);
  vm.write(other, [], 1);
  const CHANGED = 0x80n;
  expect(vm.hcall(0x08, 0x40_0000_0000n >> 1n, BigInt(slot), v, r | CHANGED)[0]).toBe(0n);
  expect(vm.hcall(0x08, 0x40_0000_0000n >> 1n, BigInt(other), otherV, otherR | CHANGED)[0]).toBe(0n);
  expect(vm.dirty()).toEqual([5]);
});

it('turning the log on again reports what was changed meanwhile', () => {
  const vm = realModeVm([0x5000n]);
  vm.slot(0, 0, vm.memorySize, 0);
  vm.run(store(0x5000, 4, 1n));
  vm.slot(0, 0, vm.memorySize, MEM.LOG_DIRTY_PAGES);
  expect(vm.dirty()).toEqual([5]);
});
