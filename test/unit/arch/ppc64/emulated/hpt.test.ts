import { describe, expect, it } from 'vitest';
import { rehashedSlot } from '../../../../../lib/arch/ppc64/emulated/rehash.ts';
import { encodeHpte, Htab, primaryGroup, vrmaSegment } from '../../../../../lib/arch/ppc64/model/index.ts';
import { load, store } from '../../../../../lib/emulated/guest.ts';
import { CAP } from '../../../../../lib/uapi/capabilities.ts';
import { ERRNO } from '../../../../../lib/uapi/errno.ts';
import { EXIT, MAP, MEM, PROT } from '../../../../../lib/uapi/flags.ts';
import { chunk, commit, prepare, realModeVm, resizableVm, TestVm, valid, vrma } from './vm.ts';

const BOLTED: [bigint, bigint] = [0x4000_0001_2345_6011n, 0x1192n];
const PLAIN: [bigint, bigint] = [0x4000_0001_2345_8001n, 0x2010n];

it('a reader goes on behind what it has read, whatever others read and change meanwhile', () => {
  const vm = new TestVm({ order: 18 });
  const [first, second] = [vm.reader(), vm.reader()];
  for (const fd of [first, second]) vm.read(fd);
  const change = (slot: number) => vm.ok(vm.write(slot, [PLAIN]));
  const slots = (fd: number, count?: number): number[] =>
    vm.read(fd, count).flatMap(({ index, entries }) => entries.map((_, i) => index + i));
  for (const slot of [8, 9]) change(slot);
  // Room for one entry.
  expect(slots(first, 32)).toEqual([8]);
  change(8);
  expect(slots(second)).toEqual([8, 9]);
  change(8);
  // The other took the mark of 9; 8 is of the next pass.
  expect(slots(first)).toEqual([]);
  expect(slots(first)).toEqual([8]);
});

describe('RESIZE_HPT', () => {
  it('takes the offset of a large page from V, wherever the entry stands', () => {
    const [vsid, offset, table] = [0x1234n, 5n << 24n, new Htab(18)];
    const entry = encodeHpte({ vsid, segmentSize: '1T', offset, ra: 0, baseShift: 24 });
    // Where its hash leads in the larger table, though no search would find it where it is.
    const hash = vsid ^ (vsid << 25n) ^ 5n;
    for (const slot of [0, 8 * 77 + 3, table.entryCount - 1]) {
      table.set(slot, entry);
      expect(rehashedSlot(table, slot, 20)).toBe(Number(hash & 0x1fffn) * 8 + (slot % 8));
    }
  });

  it('keeps the bolted entries, where their hash leads in the new table', () => {
    const vm = resizableVm();
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
    const vm = resizableVm();
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
      const vm = resizableVm();
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
    const vm = resizableVm();
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
