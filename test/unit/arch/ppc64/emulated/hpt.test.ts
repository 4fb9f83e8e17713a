import { describe, expect, it } from 'vitest';
import { encodeHpte, primaryGroup, vrmaSegment } from '../../../../../lib/arch/ppc64/model/index.ts';
import { load, store } from '../../../../../lib/emulated/guest.ts';
import { CAP } from '../../../../../lib/uapi/capabilities.ts';
import { ERRNO } from '../../../../../lib/uapi/errno.ts';
import { EXIT, MAP, MEM, PROT } from '../../../../../lib/uapi/flags.ts';
import { chunk, realModeVm, TestVm, vrma } from './vm.ts';

const BOLTED: [bigint, bigint] = [0x4000_0001_2345_6011n, 0x1192n];
const PLAIN: [bigint, bigint] = [0x4000_0001_2345_8001n, 0x2010n];

const valid = (vm: TestVm): number[] =>
  vm.read(vm.reader(), 1 << 20).flatMap(({ index, entries }) => entries.map((_, i) => index + i));

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
  /** A VM with a table of order 18 that counts as set up, and an entry that is bolted and one that isn't. */
  function resizable(): TestVm {
    const vm = new TestVm({ order: 18 });
    const [slot, entry] = vrma(18, 0x1000n, 0x10n);
    vm.write(slot, [entry]);
    vm.write(9, [PLAIN]);
    return vm;
  }
  const prepare = (vm: TestVm, order: number, flags = 0): number => vm.ppc.resizeHptPrepare(vm.vm, flags, order);
  const commit = (vm: TestVm, order: number, flags = 0): number => vm.ppc.resizeHptCommit(vm.vm, flags, order);

  it('checks its arguments', () => {
    const vm = resizable();
    for (const call of [prepare, commit]) {
      expect([call(vm, 17), call(vm, 47), call(vm, 20, 1)]).toEqual([-22, -22, -22]);
    }
    expect(prepare(new TestVm(), 20)).toBe(-ERRNO.EINVAL);
    expect(commit(new TestVm({ order: 18 }), 19)).toBe(-ERRNO.EIO);
  });

  it('says 100 ms, then ready; and nothing is pending after a cancel or a commit', () => {
    const vm = resizable();
    expect([prepare(vm, 19), prepare(vm, 19), prepare(vm, 19)]).toEqual([100, 0, 0]);
    expect(commit(vm, 20)).toBe(-ERRNO.ENXIO);
    expect(commit(vm, 19)).toBe(-ERRNO.ENXIO);
    expect([prepare(vm, 40), prepare(vm, 40), prepare(vm, 40)]).toEqual([100, -ERRNO.ENOMEM, 100]);
    expect(commit(vm, 40)).toBe(-ERRNO.ENOMEM);
    expect([prepare(vm, 20), prepare(vm, 0), commit(vm, 20)]).toEqual([100, 0, -ERRNO.ENXIO]);
    expect([prepare(vm, 20), prepare(vm, 21), commit(vm, 20)]).toEqual([100, 100, -ERRNO.ENXIO]);
  });

  it('stays pending where a commit’s arguments are wrong', () => {
    const vm = resizable();
    expect([prepare(vm, 20), commit(vm, 17), commit(vm, 20, 1), commit(vm, 20)]).toEqual([100, -22, -22, 0]);
  });

  it('keeps the bolted entries, where their hash leads in the new table', () => {
    const vm = resizable();
    const fd = vm.reader();
    vm.read(fd);
    prepare(vm, 21);
    expect(commit(vm, 21)).toBe(0);
    const [slot, entry] = vrma(21, 0x1000n, 0x10n);
    expect(valid(vm)).toEqual([slot]);
    expect(vm.guestView(slot)).toEqual(entry);
    // The guest goes on as if nothing had been.
    vm.run(store(0x1000, 4, 5n));
    expect(vm.run(load(0x1000, 4))).toEqual([5n]);
    prepare(vm, 18);
    expect(commit(vm, 18)).toBe(0);
    expect(valid(vm)).toEqual([vrma(18, 0x1000n, 0x10n)[0]]);
  });

  it('keeps the mark of what was changed, for those who read on', () => {
    const vm = resizable();
    const fd = vm.reader();
    const [slot, [v, r]] = vrma(18, 0x2000n, 0x10n);
    vm.write(slot, [[v, r]]);
    vm.read(fd);
    vm.write(slot, [[v, r | 0x4n]]);
    prepare(vm, 21);
    expect(commit(vm, 21)).toBe(0);
    expect(vm.read(fd)).toEqual([{ index: vrma(21, 0x2000n, 0n)[0], entries: [[v | 0x40n, r | 0x4n]], nInvalid: 0 }]);
    expect(vm.read(fd)).toEqual([]);
  });

  // The hash of Power ISA 3.0, book III, 5.7.9.2; what of the offset is in no doubleword comes from where the entry is.
  describe.each([
    ['256M', 12, 0x123_4000n],
    ['256M', 16, 0xabc_0000n],
    ['256M', 24, 0xb00_0000n],
    ['1T', 12, 0x12_3456_7000n],
    ['1T', 16, 0xfe_dcba_0000n],
    ['1T', 24, 0xab_cd00_0000n],
  ] as const)('an entry of a segment of %s with pages of 2^%i bytes', (segmentSize, baseShift, offset) => {
    // As many bits as a virtual address of 68 has room for.
    const vsid = segmentSize === '1T' ? 0xa34_5678n : 0xa1_2345_6789n;
    const hash = vsid ^ (segmentSize === '1T' ? vsid << 25n : 0n) ^ (offset >> BigInt(baseShift));
    it.each([false, true])('goes on where it is found, a secondary one: %s', (secondary) => {
      const vm = resizable();
      const place = (order: number): number =>
        Number((secondary ? ~hash : hash) & ((1n << BigInt(order - 7)) - 1n)) * 8 + 3;
      const fields = { vsid, segmentSize, offset, baseShift, ra: 0x100_0000, bolted: true, secondary } as const;
      const { v, r } = encodeHpte(fields);
      vm.write(place(18), [[v, r]]);
      for (const order of [21, 19]) {
        prepare(vm, order);
        expect(commit(vm, order)).toBe(0);
        expect(vm.guestView(place(order))).toEqual([v, r]);
      }
    });
  });

  it('keeps a bolted entry that leads to no memory', () => {
    const vm = resizable();
    const [, [v]] = vrma(18, 0x7000n, 0x10n);
    const entry: [bigint, bigint] = [v, 0x4000_0000_0012n];
    vm.write(vrma(18, 0x7000n, 0n)[0], [entry]);
    prepare(vm, 20);
    expect(commit(vm, 20)).toBe(0);
    expect(vm.guestView(vrma(20, 0x7000n, 0n)[0])).toEqual(entry);
  });

  it('fails when two bolted entries meet in a smaller table', () => {
    const vm = new TestVm({ order: 22 });
    const groups = [0x1000n, 0x1000n + (1n << 23n)].map((ea) => {
      const [slot, entry] = vrma(22, ea, 0x10n);
      vm.write(slot, [entry]);
      return primaryGroup(vrmaSegment(), Number(ea), 18);
    });
    expect(groups[0]).toBe(groups[1]);
    prepare(vm, 18);
    expect(commit(vm, 18)).toBe(-ERRNO.ENOSPC);
    expect(valid(vm)).toHaveLength(2);
    expect(vm.run(load(0x1000, 4))).toEqual([0n]);
  });
});

it('GET_SMMU_INFO has the page sizes of POWER9', () => {
  const vm = new TestVm();
  const info = Buffer.alloc(592, 0xee);
  expect(vm.ppc.getSmmuInfo(vm.vm, info)).toBe(0);
  expect([info.readBigUInt64LE(0), info.readUInt32LE(8), info.readUInt16LE(12), info.readUInt16LE(14)]).toEqual([
    3n,
    32,
    32,
    32,
  ]);
  const words = (from: number, count: number): number[] =>
    Array.from({ length: count }, (_, i) => info.readUInt32LE(from + i * 4));
  expect(words(16, 8)).toEqual([12, 0, 12, 0, 24, 0x38, 0, 0]);
  expect(words(88, 8)).toEqual([16, 0x110, 16, 1, 24, 8, 0, 0]);
  expect(words(160, 6)).toEqual([24, 0x100, 24, 0, 0, 0]);
  expect(info.subarray(232).every((byte) => byte === 0)).toBe(true);
  expect(vm.ppc.getSmmuInfo(vm.vm, Buffer.alloc(591))).toBe(-ERRNO.EFAULT);
  expect(vm.ppc.getSmmuInfo(vm.vm, null)).toBe(-ERRNO.EFAULT);
});

it('a stream read from one VM makes the same table in another', () => {
  const source = new TestVm({ order: 18 });
  source.write(0, [BOLTED, PLAIN, BOLTED]);
  source.write(16000, [PLAIN]);
  const target = new TestVm({ order: 18 });
  for (const { index, entries, nInvalid } of source.read(source.reader())) {
    const bytes = chunk(index, entries, nInvalid);
    expect(target.writeBytes(bytes)).toBe(bytes.length);
  }
  expect(target.read(target.reader())).toEqual(source.read(source.reader()));
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

it('what the log has taken of an entry stays in the guest’s view, and readers are told of it once', () => {
  const vm = realModeVm([0x5000n]);
  const fd = vm.reader();
  vm.read(fd);
  vm.run(store(0x5000, 4, 1n));
  expect(vm.dirty()).toEqual([5]);
  const [slot] = vrma(18, 0x5000n, 0n);
  expect(vm.guestView(slot)[1]).toBe(0x5192n);
  expect(vm.read(fd)).toMatchObject([{ index: slot, entries: [[expect.any(BigInt), 0x5192n]] }]);
  expect(vm.read(fd)).toEqual([]);
});

it('what the processor had noted of a page that the host took is no news once the guest has cleared it', () => {
  const vm = realModeVm([0x5000n]);
  const CLEAR = [0x10, 0x14];
  for (const nr of CLEAR) vm.ok(vm.kernel.enableCap(vm.vm, CAP.PPC_ENABLE_HCALL, 0, [nr, 1]));
  vm.run(store(0x5000, 4, 1n));
  vm.ok(vm.kernel.mprotect(vm.hva + 0x5000, 4096, PROT.NONE));
  vm.run(load(0x5000, 4));
  expect(vm.exit).toBe(-ERRNO.EFAULT);
  for (const nr of CLEAR) vm.hcall(nr, 0n, BigInt(vrma(18, 0x5000n, 0n)[0]));
  const fd = vm.reader();
  // R and C are clear, though the entry that the host took away had them.
  expect(vm.read(fd).flatMap(({ entries }) => entries.map(([, r]) => r))).toEqual([0x5012n]);
  expect(vm.read(fd)).toEqual([]);
});

it('a page that several entries map is dirty by each of them, also by one that a fault made writable', () => {
  const vm = realModeVm([0x5000n]);
  const [first] = vrma(18, 0x5000n, 0n);
  const [second, [v]] = vrma(18, 0x6000n, 0n);
  vm.write(second, [[v, 0x5012n]]);
  const PROTECT = 0x18;
  vm.run(load(0x6000, 4));
  for (const pp of [3n, 2n]) expect(vm.hcall(PROTECT, pp, BigInt(second), 0n)).toEqual([0n]);
  for (const address of [0x6000, 0x5000, 0x6000]) {
    vm.run(store(address, 4, 1n));
    expect(vm.dirty()).toEqual([5]);
  }
  vm.write(first, [], 1);
  vm.run(store(0x6000, 4, 2n));
  expect(vm.dirty()).toEqual([5]);
  vm.slot(0, 0, 0);
  vm.run(load(0x6000, 4));
  expect([vm.exit, vm.exitReason]).toEqual([0, EXIT.MMIO]);
});

it('slot 0 is a slot like any other: its entry maps a page together with another one', () => {
  const vm = realModeVm([0x7f_f000n, 0x5000n]);
  expect(vrma(18, 0x7f_f000n, 0n)[0]).toBe(0);
  const [slot, [v]] = vrma(18, 0x5000n, 0n);
  vm.write(slot, [[v, 0x7f_f012n]]);
  for (const address of [0x7f_f000, 0x5000]) {
    vm.run(store(address, 4, 1n));
    expect(vm.dirty()).toEqual([0x7ff]);
  }
});

it('what an entry that goes has noted is told of its own memslot’s page', () => {
  const vm = realModeVm([]);
  const [slot, [v, r]] = vrma(18, 0x800_5000n, 0x10n);
  vm.slot(0, 0, 0);
  vm.slot(1, 0x800_0000, 1 << 20, MEM.LOG_DIRTY_PAGES);
  for (const page of [5, 6, 7]) {
    vm.write(slot, [[v, r + BigInt(page - 5) * 0x1000n]]);
    expect(vm.dirty(1)).toEqual(page === 5 ? [] : [page - 1]);
    vm.run(store(0x800_5000, 4, 1n));
  }
});

it('each memslot knows the entries of its own pages', () => {
  const vm = realModeVm([0x5000n]);
  // Both are in one group of the table.
  const [slot, entry] = vrma(18, 0x800_5000n, 0x10n, 1);
  const flags = MAP.PRIVATE | MAP.ANONYMOUS;
  const other = vm.kernel.mmap(1 << 20, PROT.READ | PROT.WRITE, flags, -1, 0, 1 << 20, 0);
  vm.slot(1, 0x800_0000, 1 << 20, MEM.LOG_DIRTY_PAGES, other);
  vm.write(slot, [entry]);
  const dirty = (): number[][] => [vm.dirty(0), vm.dirty(1)];
  const stores = [store(0x5000, 4, 1n), store(0x800_5000, 4, 2n)];
  vm.run(...stores);
  expect(dirty()).toEqual([[5], [5]]);
  vm.run(stores[1]!);
  expect(dirty()).toEqual([[], [5]]);
  vm.run(stores[0]!);
  expect(dirty()).toEqual([[5], []]);
  vm.write(slot, [], 1);
  vm.run(stores[0]!);
  expect(dirty()).toEqual([[5], []]);
  expect(vm.run(load(0x5000, 4))).toEqual([1n]);
});

it('H_REMOVE gives all of the guest’s second doubleword', () => {
  const vm = realModeVm([0x5000n]);
  const r = 0x3fff_ffff_ffff_fe12n;
  vm.reader();
  expect(vm.hcall(8, 0x80_0000_0000n, 7n, PLAIN[0], r)).toEqual([0n, 7n]);
  expect(vm.hcall(4, 0n, 7n, 0n)).toEqual([0n, PLAIN[0], r]);
});
