import { describe, expect, it } from 'vitest';
import { encodeHpte, primaryGroup, VRMA_VSID, vrmaSegment } from '../../../../../lib/arch/ppc64/model/index.ts';
import { load, store } from '../../../../../lib/emulated/guest.ts';
import { ERRNO } from '../../../../../lib/uapi/errno.ts';
import { HTAB, PROT } from '../../../../../lib/uapi/flags.ts';
import { chunk, TestVm } from './vm.ts';

// The entries with which the real kernels were asked (lab, probe A); what follows is what they answered.
const E0: [bigint, bigint] = [0x4000_0001_2345_6011n, 0x1192n];
const E9: [bigint, bigint] = [0x4000_0001_2345_8001n, 0x2010n];
const E16: [bigint, bigint] = [0x0000_0007_6543_2003n, 0x3097n];
const seen = ([v, r]: readonly [bigint, bigint]): [bigint, bigint] => [v | 0x40n, r];

function withThree(): TestVm {
  const vm = new TestVm({ order: 18 });
  expect([vm.write(0, [E0]), vm.write(9, [E9]), vm.write(16, [E16])]).toEqual([24, 24, 24]);
  return vm;
}

it('pages of 16 MiB are refused where the host has touched its own, whatever was so at the write before', () => {
  const vm = new TestVm({ order: 18 });
  const large = (page: number): [bigint, bigint] => [E9[0] | 4n, BigInt(page << 24) | 0x192n];
  const [fine, refused] = [[large(1), large(1), large(2)], -ERRNO.EIO] as const;
  expect(vm.write(8, fine)).toBe(8 + 3 * 16);
  // Elsewhere in the second page: behind the 2 MiB that are looked at.
  expect(vm.kernel.writeMemory(vm.hva + 0x120_0000, Uint8Array.of(1))).toBe(1);
  expect(vm.write(8, fine)).toBe(8 + 3 * 16);
  expect(vm.kernel.writeMemory(vm.hva + 0x11f_ffff, Uint8Array.of(1))).toBe(1);
  expect(vm.write(8, [large(2), large(1)])).toBe(refused);
  expect(vm.kernel.writeMemory(vm.hva + 0x11f_ffff, Uint8Array.of(0))).toBe(1);
  expect(vm.write(8, fine)).toBe(8 + 3 * 16);
});

it('only the 2 MiB are looked at that share a page table with the page', () => {
  const vm = new TestVm({ order: 18 });
  const large: [bigint, bigint] = [E9[0] | 4n, 0x100_0192n];
  // Not in steps that end where the page table does.
  expect(vm.kernel.mprotect(vm.hva + 0x100_0000, 4096, PROT.NONE)).toBe(0);
  vm.kernel.readMemory(vm.hva + 0x100_1000, new Uint8Array(0x1f_f000));
  for (const at of [0xff_ffff, 0x120_0000]) vm.kernel.writeMemory(vm.hva + at, Uint8Array.of(1));
  expect(vm.write(8, [large])).toBe(24);
  vm.kernel.writeMemory(vm.hva + 0x11f_ffff, Uint8Array.of(1));
  expect(vm.write(8, [large])).toBe(-ERRNO.EIO);
});

describe('reading', () => {
  it('an empty table of order 18 is one header, then nothing', () => {
    const vm = new TestVm({ order: 18 });
    const fd = vm.reader();
    expect(vm.read(fd)).toEqual([{ index: 0, entries: [], nInvalid: 0x4000 }]);
    expect(vm.read(fd)).toEqual([]);
  });

  it('an empty table of order 24 is 136 bytes', () => {
    const vm = new TestVm({ order: 24 });
    const bytes = Buffer.alloc(65536);
    expect(vm.kernel.read(vm.reader(), bytes)).toBe(136);
    expect(bytes.subarray(128, 136)).toEqual(chunk(1048560, [], 16));
  });

  it('gives runs of at most 65535 entries, of either kind', () => {
    const vm = new TestVm({ order: 22 });
    const entries = Array<[bigint, bigint]>(65_535).fill(E9);
    expect([vm.write(0, entries), vm.write(65_535, [E9, E9])]).toEqual([8 + 65_535 * 16, 40]);
    const chunks = vm.read(vm.reader(), 2 << 20).map((one) => [one.index, one.entries.length, one.nInvalid]);
    expect(chunks).toEqual([
      [0, 65_535, 0],
      [65_535, 2, 65_535],
      [131_072, 0, 65_535],
      [196_607, 0, 65_535],
      [262_142, 0, 2],
    ]);
  });

  it('gives the first pass, then what changed, and HVLOCK in every entry', () => {
    const vm = new TestVm({ order: 18 });
    const early = vm.reader();
    vm.read(early);
    vm.write(0, [E0]);
    vm.write(9, [E9]);
    vm.write(16, [E16]);
    expect(vm.read(early)).toEqual([
      { index: 0, entries: [seen(E0)], nInvalid: 0 },
      { index: 9, entries: [seen(E9)], nInvalid: 0 },
      { index: 16, entries: [seen(E16)], nInvalid: 0 },
    ]);
    expect(vm.read(early)).toEqual([]);
    expect(vm.read(vm.reader())).toEqual([
      { index: 0, entries: [seen(E0)], nInvalid: 8 },
      { index: 9, entries: [seen(E9)], nInvalid: 6 },
      { index: 16, entries: [seen(E16)], nInvalid: 16384 - 17 },
    ]);
  });

  it('with BOLTED_ONLY reports the others as empty', () => {
    const vm = withThree();
    const fd = vm.reader(HTAB.BOLTED_ONLY);
    expect(vm.read(fd)).toEqual([{ index: 0, entries: [seen(E0)], nInvalid: 16383 }]);
    vm.write(5, [E9]);
    expect(vm.read(fd)).toEqual([{ index: 5, entries: [], nInvalid: 1 }]);
  });

  it('starts where it was told, and begins at 0 on the next pass', () => {
    const vm = withThree();
    const fd = vm.reader(0, 9);
    expect(vm.read(fd)[0]).toEqual({ index: 9, entries: [seen(E9)], nInvalid: 6 });
    expect(vm.read(fd)).toEqual([]);
    vm.write(2, [E9]);
    expect(vm.read(fd)).toEqual([{ index: 2, entries: [seen(E9)], nInvalid: 0 }]);
    const beyond = vm.reader(0, 2 ** 40);
    expect(vm.read(beyond)).toEqual([]);
  });

  it('needs 25 bytes for anything at all', () => {
    const vm = withThree();
    for (const count of [0, 8, 16, 24]) expect(vm.read(vm.reader(), count)).toEqual([]);
    const fd = vm.reader();
    expect(vm.read(fd, 25)).toEqual([{ index: 0, entries: [seen(E0)], nInvalid: 8 }]);
    expect(vm.read(fd, 40)).toEqual([{ index: 9, entries: [seen(E9)], nInvalid: 6 }]);
    vm.write(40, [E9, E9, E9]);
    expect(vm.read(fd, 41)).toEqual([{ index: 16, entries: [seen(E16)], nInvalid: 23 }]);
    expect(vm.read(fd, 40).map(({ entries }) => entries.length)).toEqual([1]);
    expect(vm.read(fd, 41).map(({ entries }) => entries.length)).toEqual([2]);
    expect(vm.read(fd, 65536)).toEqual([{ index: 40, entries: [seen(E9), seen(E9), seen(E9)], nInvalid: 0 }].slice(1));
  });

  it('takes marks away from other readers', () => {
    const vm = withThree();
    const [a, b] = [vm.reader(), vm.reader()];
    vm.read(a);
    vm.read(b);
    vm.write(200, [E0]);
    expect(vm.read(a)).toHaveLength(1);
    expect(vm.read(b)).toEqual([]);
  });

  it('marks nothing while nobody reads', () => {
    const vm = new TestVm({ order: 18 });
    const first = vm.reader();
    vm.read(first);
    vm.write(3, [E9]);
    vm.kernel.close(first);
    vm.write(3, [E9]);
    vm.write(4, [E9]);
    const second = vm.reader();
    expect(vm.read(second)).toHaveLength(2);
    expect(vm.read(second)).toEqual([]);
  });

  it('reports removed entries as empty', () => {
    const vm = withThree();
    const fd = vm.reader();
    vm.read(fd);
    expect(vm.write(9, [], 1)).toBe(8);
    expect(vm.read(fd)).toEqual([{ index: 9, entries: [], nInvalid: 1 }]);
    expect(vm.write(100, [], 10)).toBe(8);
    expect(vm.read(fd)).toEqual([]);
    expect(vm.write(10, [], 6)).toBe(8);
    expect(vm.read(fd)).toEqual([]);
    vm.write(9, [E9]);
    vm.write(9, [], 1);
    expect(vm.read(fd)).toEqual([{ index: 9, entries: [], nInvalid: 1 }]);
    expect(vm.write(0, [], 17)).toBe(8);
    expect(vm.read(fd)).toEqual([
      { index: 0, entries: [], nInvalid: 1 },
      { index: 16, entries: [], nInvalid: 1 },
    ]);
  });

  it('on a radix VM, or with no table, is nothing', () => {
    const vm = new TestVm();
    expect(vm.read(vm.reader())).toEqual([]);
    expect(vm.write(0, [E0])).toBe(-ERRNO.EINVAL);
    vm.ok(vm.ppc.configureV3Mmu(vm.vm, 0, 0));
    expect(vm.read(vm.reader())).toEqual([]);
    expect(vm.write(0, [E0])).toBe(-ERRNO.EINVAL);
  });

  it('begins with the table where there was none before', () => {
    const vm = new TestVm();
    const fd = vm.reader();
    expect(vm.read(fd)).toEqual([]);
    vm.ok(vm.ppc.allocateHtab(vm.vm, 18));
    expect(vm.read(fd)).toEqual([{ index: 0, entries: [], nInvalid: 0x4000 }]);
    expect(vm.read(fd)).toEqual([]);
  });

  it('survives a smaller table', () => {
    const vm = new TestVm({ order: 19 });
    const fd = vm.reader(0, 30000);
    vm.ok(vm.ppc.allocateHtab(vm.vm, 18));
    expect(vm.read(fd)).toEqual([]);
    vm.write(1, [E0]);
    expect(vm.read(fd)).toEqual([{ index: 1, entries: [seen(E0)], nInvalid: 0 }]);
  });
});

describe('descriptors', () => {
  it('go one way only', () => {
    const vm = withThree();
    expect(vm.kernel.write(vm.reader(), chunk(0, [E0]))).toBe(-ERRNO.EBADF);
    expect(vm.kernel.read(vm.reader(HTAB.WRITE), new Uint8Array(100))).toBe(-ERRNO.EBADF);
    expect(vm.ppc.getHtabFd(vm.vm, 4, 0)).toBe(-ERRNO.EINVAL);
    expect(vm.ppc.getHtabFd(vm.vm, 2n ** 63n, 0)).toBe(-ERRNO.EINVAL);
  });

  it('outlive the VM descriptor', () => {
    const vm = withThree();
    const fd = vm.reader();
    vm.kernel.close(vm.vm);
    expect(vm.read(fd)).toHaveLength(3);
  });
});

describe('writing', () => {
  const order18 = (): TestVm => new TestVm({ order: 18 });
  const last = 16383;

  // Lab, probe T9; expectations from the facts sheet, 4.6.
  it.each<[string, Buffer, number]>([
    ['an index at the end', chunk(16384, [E0]), -ERRNO.EINVAL],
    ['the largest index', chunk(0xffff_ffff, [E0]), -ERRNO.EINVAL],
    ['two entries for the last slot', chunk(last, [E0, E0]), -ERRNO.EINVAL],
    ['two empty slots from the last', chunk(last, [], 2), -ERRNO.EINVAL],
    ['the last slot emptied', chunk(last, [], 1), 8],
    ['nothing, at the end', chunk(16384, []), -ERRNO.EINVAL],
    ['nothing', chunk(5, []), 8],
    ['a header without its entry', chunk(50, [E0]).subarray(0, 8), 0],
    ['a header and 7 bytes', chunk(50, [E0]).subarray(0, 15), 0],
    // The header is not counted when KVM sees whether there is room: it reads what is behind the bytes, and nothing is.
    ['a header and 8 bytes', chunk(50, [E0]).subarray(0, 16), -ERRNO.EFAULT],
    ['a header and 15 bytes', chunk(50, [E0]).subarray(0, 23), -ERRNO.EFAULT],
    ['a header and 16 bytes', chunk(50, [E0]), 24],
    ['two entries of which the second ends too early', chunk(50, [E0, E0]).subarray(0, 39), -ERRNO.EFAULT],
    ['less than a header', chunk(50, [E0]).subarray(0, 7), 0],
    ['no bytes', Buffer.alloc(0), 0],
    ['an entry without VALID', chunk(56, [[E0[0] & ~1n, E0[1]]]), -ERRNO.EINVAL],
    ['zeros', chunk(57, [[0n, 0n]]), -ERRNO.EINVAL],
    ['key 31', chunk(58, [[E9[0], E9[1] | 0x3000_0000_0000_0e00n]]), 24],
    ['a page in no memslot', chunk(59, [[E9[0], 0x1ff0_0000_0000n | 0x192n]]), 24],
    ['all RPN bits', chunk(61, [[E9[0], 0x0fff_ffff_ffff_f192n]]), 24],
    ['all ones', chunk(62, [[2n ** 64n - 1n, 2n ** 64n - 1n]]), -ERRNO.EINVAL],
    ['all ones but L', chunk(62, [[2n ** 64n - 5n, 2n ** 64n - 1n]]), -ERRNO.EIO],
    ['a reserved segment size', chunk(73, [[0x8000_0001_2345_8001n, E9[1]]]), -ERRNO.EIO],
    ['cache inhibited on memory', chunk(63, [[E9[0], 0x2028n]]), 24],
    ['a 16M page', chunk(67, [[E9[0] | 4n, 0x100_0192n]]), 24],
    ['a 16M page in no memslot', chunk(72, [[E9[0] | 4n, 0x400_0192n]]), 24],
    ['a page size that does not exist', chunk(71, [[E9[0] | 4n, 0x2192n]]), -ERRNO.EINVAL],
  ])('%s', (_what, bytes, result) => {
    expect(order18().writeBytes(bytes)).toBe(result);
  });

  it('drops HVLOCK, ABSENT and R bit 62', () => {
    const vm = order18();
    expect(vm.write(65, [[E9[0] | 0x68n, E9[1] | (1n << 62n)]])).toBe(24);
    expect(vm.read(vm.reader(0, 65))[0]?.entries).toEqual([[E9[0] | 0x48n, E9[1]]]);
  });

  // Seen on a real POWER9 host: V came back without its upper AVPN bits.
  it('has room for 68 bits of virtual address', () => {
    const vm = order18();
    expect(vm.write(65, [[0x7ff0_0001_2345_8001n, E9[1]]])).toBe(24);
    expect(vm.read(vm.reader(0, 65))[0]?.entries).toEqual([seen([0x4000_0001_2345_8001n, E9[1]])]);
  });

  it('keeps the guest’s own key for MMIO', () => {
    const vm = order18();
    const entry: [bigint, bigint] = [E9[0], 0x1ff0_0000_0000n | 0x1000_0000_0000_0392n];
    vm.write(65, [entry]);
    expect(vm.read(vm.reader(0, 65))[0]?.entries).toEqual([seen(entry)]);
  });

  it('keeps what was done before an error', () => {
    const vm = order18();
    expect(vm.write(56, [E0, [E9[0] & ~1n, E9[1]]])).toBe(-ERRNO.EINVAL);
    expect(vm.read(vm.reader(0, 56))[0]).toMatchObject({ index: 56, entries: [seen(E0)] });
  });

  it('refuses 64K pages on a touched 4K host, and takes them on a 64K one', () => {
    const entry: [bigint, bigint] = [E9[0] | 4n, 0x3_1192n];
    const small = order18();
    expect(small.write(67, [entry])).toBe(24);
    small.kernel.writeMemory(small.hva, Uint8Array.of(1));
    expect(small.write(68, [entry])).toBe(-ERRNO.EIO);
    small.kernel.mprotect(small.hva, 4096, PROT.READ);
    expect(small.write(68, [entry])).toBe(-ERRNO.EIO);
    const large = new TestVm({ order: 18, pageSize: 65536 });
    large.kernel.writeMemory(large.hva, Uint8Array.of(1));
    expect(large.write(68, [entry])).toBe(24);
  });

  it.each([
    ['neither', 0x1000_1000, 0x9_1000, -ERRNO.EIO],
    ['not the address', 0x1000_1000, 0xa_0000, -ERRNO.EIO],
    ['not the size', 0x1000_0000, 0x9_1000, -ERRNO.EIO],
    ['both', 0x1001_0000, 0xb_0000, 24],
  ])('refuses large pages of a memslot unless they divide address and size: %s', (_, gpa, size, result) => {
    const vm = new TestVm({ order: 18 });
    vm.slot(1, gpa, size);
    expect(vm.write(68, [[E9[0] | 4n, 0x1004_1192n]])).toBe(result);
  });

  // Lab: the buffer position does not advance past the entries, so the second header is read from entry bytes.
  it('takes the header of a second chunk from the first one’s entries', () => {
    const vm = order18();
    // As headers, the doublewords of this entry are {5, 0 valid, 0x1100 empty} and {0, 0 valid, 0x1020 empty}.
    const tricky: [bigint, bigint] = [0x0500_0000_0000_0011n, 0x2010n];
    vm.write(5, [E9]);
    const fd = vm.reader();
    vm.read(fd);
    // 24 bytes for the first chunk, 8 and 8 for the entry's doublewords; then the true second header is reached, and
    // with its entry counts as cut short.
    expect(vm.writeBytes(Buffer.concat([chunk(8000, [tricky]), chunk(700, [tricky])]))).toBe(40);
    const changed = vm.read(fd).map(({ index, entries }) => [index, entries.length]);
    expect(changed).toEqual([
      [5, 0],
      [8000, 1],
    ]);
  });

  // VSID 0x1ffffff of a segment of 1 TiB, whatever the page.
  it.each([
    ['is one', 0x4001_ffff_ff00_0011n, true],
    ['is one of another page', 0x4001_ffff_fffe_ff91n, true],
    ['has another VSID', 0x4001_ffff_fe00_0011n, false],
    ['has another VSID by its upper half', 0x4000_ffff_ff00_0011n, false],
    ['is of a segment of 256 MiB', 0x0001_ffff_ff00_0011n, false],
  ])('makes the MMU ready by an entry that is of the VRMA: %s', (_, v, ready) => {
    const vm = order18();
    const resize = (): number => vm.ppc.resizeHptCommit(vm.vm, 0, 19);
    expect(resize()).toBe(-ERRNO.EIO);
    expect(vm.write(5, [[v, 0x1012n]])).toBe(24);
    expect(resize()).toBe(ready ? -ERRNO.ENXIO : -ERRNO.EIO);
  });

  it('says by the first entry of the VRMA how large its pages are', () => {
    const vm = new TestVm({ order: 18, pageSize: 65536 });
    const offset = 0x3_0000;
    const fields = { vsid: VRMA_VSID, segmentSize: '1T', offset, ra: offset, baseShift: 16, bolted: true } as const;
    const { v, r } = encodeHpte(fields);
    expect(vm.write(primaryGroup(vrmaSegment(16), offset, 18) * 8, [[v, r]])).toBe(24);
    vm.run(store(offset + 8, 4, 0x55n));
    expect([vm.exit, vm.dirty(), vm.run(load(offset + 8, 4))]).toEqual([-ERRNO.EINTR, [3], [0x55n]]);
  });

  it('puts entries, and empties the slots behind them', () => {
    const vm = order18();
    vm.write(100, [E9, E9, E9, E9, E9, E9]);
    expect(vm.write(101, [E0, E0], 2)).toBe(40);
    const [chunk] = vm.read(vm.reader(0, 100));
    expect(chunk).toEqual({ index: 100, entries: [seen(E9), seen(E0), seen(E0)], nInvalid: 2 });
  });

  it('of an entry that is refused changes nothing where none was, and takes away the one that was', () => {
    const vm = order18();
    vm.kernel.writeMemory(vm.hva, Uint8Array.of(1));
    const refused: [bigint, bigint] = [E9[0] | 4n, 0x3_1192n];
    vm.write(9, [E9]);
    const fd = vm.reader();
    vm.read(fd);
    expect([vm.write(8, [refused]), vm.read(fd)]).toEqual([-ERRNO.EIO, []]);
    expect([vm.write(9, [refused]), vm.read(fd)]).toEqual([-ERRNO.EIO, [{ index: 9, entries: [], nInvalid: 1 }]]);
  });
});
