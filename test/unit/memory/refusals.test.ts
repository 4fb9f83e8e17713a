import { describe, expect, it } from 'vitest';
import { AddressSpace, Kvm, type KvmError } from '../../../lib/index.ts';
import { EmulatedKernel, PROT } from '../../../lib/raw.ts';

const UNIT = 0x10_0000;
const PAGE = 4096;
const open = () => Kvm.open({ backend: 'emulated', arch: 'x86_64' });
const newSpace = () => new AddressSpace({ littleEndian: true, pageSize: PAGE });

/** What a call is refused with. */
function refusalOf(call: () => unknown): Partial<KvmError> {
  try {
    call();
  } catch (error) {
    const { code, syscall, gpa, size, explanation } = error as KvmError;
    return { code, syscall, gpa, size, explanation } as Partial<KvmError>;
  }
  throw new Error('it is not refused');
}

describe('a region that no VM is asked about', () => {
  it('is refused with what would be right', () => {
    using kvm = open();
    using space = newSpace();
    const mapping = kvm.mapAnonymous(2 * UNIT);
    expect(refusalOf(() => space.addRam(0x1001, mapping))).toMatchObject({
      code: 'EINVAL',
      syscall: 'addRam',
      explanation: 'gpa 0x1001, size 0x200000 and offset 0x0 must be multiples of the page size, 0x1000',
    });
    expect(refusalOf(() => space.addDevice(0, mapping, { size: 0x1800 }))).toMatchObject({
      code: 'EINVAL',
      syscall: 'addDevice',
      explanation: 'gpa 0x0, size 0x1800 and offset 0x0 must be multiples of the page size, 0x1000',
    });
    expect(refusalOf(() => space.addRam(0, mapping, { offset: 8, size: PAGE })).explanation).toBe(
      'gpa 0x0, size 0x1000 and offset 0x8 must be multiples of the page size, 0x1000',
    );
    expect(refusalOf(() => space.addRam(0, mapping, { size: 0 }))).toMatchObject({
      code: 'EINVAL',
      explanation: 'the region at 0x0 would be empty',
    });
    expect(refusalOf(() => space.addRam(UNIT, mapping, { offset: UNIT, size: UNIT + PAGE }))).toMatchObject({
      code: 'EINVAL',
      explanation: 'the slice [0x100000, 0x201000) reaches beyond the mapping, which has 0x200000 bytes',
    });
    const last = (1n << 64n) - BigInt(UNIT);
    expect(refusalOf(() => space.addRam(last, mapping, { size: UNIT }))).toMatchObject({
      code: 'EINVAL',
      explanation: '[0xfffffffffff00000, 0x10000000000000000) wraps 64 bits',
    });
    expect([...space.regions()]).toEqual([]);
    // One page less is right, as it is to a kernel.
    expect(space.addRam(last, mapping, { size: UNIT - PAGE }).size).toBe(UNIT - PAGE);
  });

  it('is refused with what is in its way', () => {
    using kvm = open();
    using space = newSpace();
    const mapping = kvm.mapAnonymous(2 * UNIT);
    space.addRam(UNIT, mapping, { size: UNIT, name: 'low' });
    space.addMmio(8 * UNIT, 0x10, {}, { name: 'uart' });
    expect(refusalOf(() => space.addRam(2 * UNIT - PAGE, mapping))).toMatchObject({
      code: 'EEXIST',
      explanation: "[0x1ff000, 0x3ff000) overlaps ram 'low' [0x100000, 0x200000)",
    });
    expect(refusalOf(() => space.addRam(7 * UNIT, mapping))).toMatchObject({
      code: 'EEXIST',
      explanation: "[0x700000, 0x900000) overlaps mmio 'uart' [0x800000, 0x800010)",
    });
    const other = space.addRam(4 * UNIT, mapping);
    expect(refusalOf(() => other.move(UNIT))).toMatchObject({ code: 'EEXIST', syscall: 'move' });
    expect(refusalOf(() => other.move(7 * UNIT))).toMatchObject({ code: 'EEXIST', syscall: 'move' });
    expect(refusalOf(() => other.move(0x123)).explanation).toBe(
      'gpa 0x123, size 0x200000 and offset 0x0 must be multiples of the page size, 0x1000',
    );
    // Its own place is not in its way.
    other.move(5 * UNIT);
    expect([...space.regions()].map(({ gpa }) => gpa)).toEqual([UNIT, 5 * UNIT, 8 * UNIT]);
  });
});

describe('an access where no memory is', () => {
  it('is of a closed space when that has let its memory go, and not before', () => {
    using kvm = open();
    const space = newSpace();
    space.addRam(0, kvm.mapAnonymous(UNIT));
    const binding = space.bind();
    space.close();
    expect(space.readU8(0)).toBe(0);
    expect(refusalOf(() => space.readU8(UNIT))).toMatchObject({ code: 'EFAULT' });
    binding.release();
    const closed = { code: 'EBADF', explanation: 'the address space is closed' };
    for (const access of [
      () => space.readU8(0),
      () => space.writeU64(0, 1),
      () => space.readExact(0, 8),
      () => space.atomicLoad(0, 4),
      () => [...space.slices(0, 8)],
      () => space.gather([0], 4, new Uint8Array(4)),
    ]) {
      expect(refusalOf(access)).toMatchObject(closed);
    }
  });

  it('is refused with what is there, or next to it', () => {
    using kvm = open();
    using space = newSpace();
    const nearest = (gpa: number | bigint) => refusalOf(() => space.readU8(gpa)).explanation;
    expect(nearest(0x500)).toBe('0x500: there are no memory regions');
    const mapping = kvm.mapAnonymous(UNIT);
    space.addRam(UNIT, mapping, { name: 'a' });
    expect(nearest(0x500)).toBe("0x500: there is no memory; the nearest is ram 'a' [0x100000, 0x200000)");
    expect(nearest(2 * UNIT)).toBe("0x200000: there is no memory; the nearest is ram 'a' [0x100000, 0x200000)");
    space.addRam(4 * UNIT, mapping, { name: 'b' });
    expect(nearest(3 * UNIT)).toBe(
      "0x300000: there is no memory; the nearest is ram 'a' [0x100000, 0x200000) and ram 'b' [0x400000, 0x500000)",
    );
    expect(nearest(9 * UNIT)).toBe("0x900000: there is no memory; the nearest is ram 'b' [0x400000, 0x500000)");
    space.addMmio(0x400, 0x200, {}, { name: 'uart' });
    expect(nearest(0x500)).toBe("0x500: that is mmio 'uart' [0x400, 0x600), which has no memory");
    expect(nearest(1n << 63n)).toMatch(/^0x8000000000000000: there is no memory; the nearest is ram 'b'/);
  });

  it('says whether it was to be read or written, and why the page may not be', () => {
    using kvm = open();
    using space = newSpace();
    const mapping = kvm.mapAnonymous(4 * PAGE);
    space.addRam(0, mapping);
    mapping.protect(PAGE, PAGE, PROT.READ);
    mapping.protect(2 * PAGE, PAGE, PROT.NONE);
    expect(space.readU8(PAGE)).toBe(0);
    expect(refusalOf(() => space.writeU8(PAGE + 1, 1))).toMatchObject({
      code: 'EFAULT',
      syscall: 'write',
      gpa: PAGE + 1,
      explanation:
        '0x1001: ram [0x0, 0x4000) has a page there that cannot be written: it is protected, unmapped, or beyond the end of its file',
    });
    expect(refusalOf(() => space.readU32(2 * PAGE - 1))).toMatchObject({
      code: 'EFAULT',
      syscall: 'read',
      gpa: 2 * PAGE,
      size: 3,
      explanation:
        '0x2000: ram [0x0, 0x4000) has a page there that cannot be read: it is protected, unmapped, or beyond the end of its file (1 of 4 bytes are done)',
    });
    expect(refusalOf(() => space.slice(0, 8))).toMatchObject({
      code: 'EACCES',
      explanation: '0x0 is in ram [0x0, 0x4000), which is not mapped directly: use read and write',
    });
    expect(refusalOf(() => space.atomicLoad(8, 4))).toMatchObject({ code: 'EACCES' });
    expect(refusalOf(() => space.atomicLoad(UNIT, 4))).toMatchObject({ code: 'EFAULT', syscall: 'read' });
  });
});

describe('a slice', () => {
  it('is as long as a piece of memory is, and the error says how long that is', () => {
    using kvm = open();
    using space = newSpace();
    space.addRam(0, kvm.mapAnonymous(UNIT));
    space.addRam(UNIT, kvm.mapAnonymous(UNIT));
    expect(space.slice(UNIT - 8, 8)).toHaveLength(8);
    expect(() => space.slice(UNIT - 8, 9)).toThrow(/"length" is out of range. It must be at most 8 at 0xffff8/);
    expect([...space.slices(UNIT - 8, 24)].map(({ length }) => length)).toEqual([8, 16]);
    expect(space.slice(5, 0)).toHaveLength(0);
    const none = { code: 'EFAULT', syscall: 'read', size: 1, gpa: 2 * UNIT };
    const explanation = '0x200000: there is no memory; the nearest is ram [0x100000, 0x200000)';
    for (const beyond of [() => space.slice(2 * UNIT, 1), () => [...space.slices(2 * UNIT - 1, 2)]]) {
      expect(refusalOf(beyond)).toMatchObject({ ...none, explanation });
    }
  });
});

describe('a piece of a reservation', () => {
  it('is refused with what is wrong: alignment, its end, or its kind', () => {
    using kvm = open();
    using reservation = kvm.reserve(4 * UNIT);
    expect(refusalOf(() => reservation.mapAnonymous(0x800, PAGE)).explanation).toBe(
      '0x800 is not a multiple of the page size, 0x1000',
    );
    expect(refusalOf(() => reservation.mapAnonymous(4 * UNIT - PAGE, 2 * PAGE))).toMatchObject({
      code: 'EINVAL',
      explanation: '[0x3ff000, 0x401000) reaches beyond the reservation, which has 0x400000 bytes',
    });
    const huge = refusalOf(() => reservation.mapHugetlb(PAGE, 2 * UNIT));
    expect([huge.code, huge.explanation]).toEqual([
      'EINVAL',
      "[0x1000, 0x201000) of the reservation can't show hugetlb memory: whole pages of its size, which may be huge, are needed",
    ]);
    using odd = kvm.reserve(4 * UNIT + PAGE);
    expect(refusalOf(() => odd.mapHugetlb(2 * UNIT + PAGE, 2 * UNIT)).explanation).toMatch(/can't show hugetlb memory/);
    expect(reservation.pieces).toEqual([]);
    // What ends where the reservation does is right.
    reservation.mapAnonymous(4 * UNIT - PAGE, PAGE);
    expect(reservation.pieces).toHaveLength(1);
  });

  it('is not asked of the kernel beyond its end, where another may be', () => {
    const kernel = new EmulatedKernel({ arch: 'x86_64' });
    using kvm = Kvm.open({ calls: kernel });
    using reservation = kvm.reserve(4 * UNIT);
    let asked = 0;
    kernel.mmapFixed = () => {
      asked++;
      return 0;
    };
    for (const [offset, size] of [
      [4 * UNIT - PAGE, 2 * PAGE],
      [4 * UNIT, PAGE],
      [0, 4 * UNIT + PAGE],
      [8 * UNIT, UNIT],
    ] as const) {
      expect(() => reservation.mapAnonymous(offset, size)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
      expect(() => reservation.unmapPart(offset, size)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
    }
    expect([asked, reservation.pieces]).toEqual([0, []]);
    reservation.mapAnonymous(0, 4 * UNIT);
    reservation.mapAnonymous(4 * UNIT - PAGE, PAGE);
    expect(asked).toBe(2);
  });

  it('is told by what is at an address, and by what is not', () => {
    using kvm = open();
    using reservation = kvm.reserve(4 * UNIT);
    reservation.mapAnonymous(PAGE, PAGE);
    reservation.mapMemfd(3 * PAGE, PAGE);
    const why = (offset: number) => reservation.whyNot(offset);
    expect(why(0)).toBe('nothing is at 0x0 of its reservation');
    expect(why(PAGE - 1)).toBe('nothing is at 0xfff of its reservation');
    expect(why(PAGE)).toBe('the anonymous memory there is protected, or ends before');
    expect(why(2 * PAGE - 1)).toBe('the anonymous memory there is protected, or ends before');
    expect(why(2 * PAGE)).toBe('nothing is at 0x2000 of its reservation');
    expect(why(3 * PAGE)).toBe('the memfd memory there is protected, or ends before');
    expect(why(4 * PAGE)).toBe('nothing is at 0x4000 of its reservation');
  });

  it('leaves no piece where it is anonymous and cannot be accessed, which is as if nothing were there', () => {
    using kvm = open();
    using reservation = kvm.reserve(4 * UNIT);
    reservation.mapAnonymous(0, UNIT);
    reservation.mapAnonymous(PAGE, PAGE, { prot: PROT.NONE });
    expect(reservation.pieces.map(({ offset, size }) => [offset, size])).toEqual([
      [0, PAGE],
      [2 * PAGE, UNIT - 2 * PAGE],
    ]);
    reservation.mapMemfd(PAGE, PAGE, { prot: PROT.NONE });
    expect(reservation.pieces.map(({ offset, kind }) => [offset, kind])).toEqual([
      [0, 'anonymous'],
      [PAGE, 'memfd'],
      [2 * PAGE, 'anonymous'],
    ]);
  });

  it('leaves those before and behind it as they are', () => {
    using kvm = open();
    using reservation = kvm.reserve(4 * UNIT);
    const booked = () => reservation.pieces.map(({ offset, size, prot }) => [offset / PAGE, size / PAGE, prot]);
    const { READ, WRITE } = PROT;
    for (const page of [0, 4, 8, 12]) reservation.mapMemfd(page * PAGE, 2 * PAGE);
    reservation.mapMemfd(5 * PAGE, PAGE, { prot: READ });
    expect(booked()).toEqual([
      [0, 2, READ | WRITE],
      [4, 1, READ | WRITE],
      [5, 1, READ],
      [8, 2, READ | WRITE],
      [12, 2, READ | WRITE],
    ]);
    // What begins where the part ends isn't in it.
    reservation.protect(4 * PAGE, PAGE, READ | WRITE);
    expect(booked()).toHaveLength(5);
    reservation.protect(8 * PAGE, PAGE, READ);
    reservation.unmapPart(4 * PAGE, PAGE);
    expect(booked()).toEqual([
      [0, 2, READ | WRITE],
      [5, 1, READ],
      [8, 1, READ],
      [9, 1, READ | WRITE],
      [12, 2, READ | WRITE],
    ]);
  });

  it('is given back by its kind, in the range alone', () => {
    using kvm = open();
    using reservation = kvm.reserve(4 * UNIT);
    reservation.mapAnonymous(0, 2 * PAGE);
    reservation.mapMemfd(3 * PAGE, 2 * PAGE);
    const bytes = Uint8Array.of(7);
    const offsets = [0, PAGE, 3 * PAGE, 4 * PAGE];
    const read = (offset: number) => {
      const byte = new Uint8Array(1);
      reservation.read(offset, byte);
      return byte[0];
    };
    for (const offset of offsets) reservation.write(offset, bytes);
    reservation.discard(PAGE, 3 * PAGE);
    expect(offsets.map(read)).toEqual([7, 0, 0, 7]);
    reservation.discard();
    expect(offsets.map(read)).toEqual([0, 0, 0, 0]);
  });
});

describe('a mapping', () => {
  it('is refused what is no whole pages, or beyond its end', () => {
    using kvm = open();
    using mapping = kvm.mapAnonymous(4 * PAGE);
    expect(refusalOf(() => mapping.protect(0x10, PAGE, PROT.READ))).toMatchObject({
      code: 'EINVAL',
      size: PAGE,
      explanation:
        "offset 0x10 and length 0x1000 must be multiples of the page size 0x1000 inside the mapping's 0x4000 bytes",
    });
    expect(refusalOf(() => mapping.discard(3 * PAGE, 2 * PAGE)).explanation).toBe(
      "offset 0x3000 and length 0x2000 must be multiples of the page size 0x1000 inside the mapping's 0x4000 bytes",
    );
    mapping.discard(3 * PAGE, PAGE);
    expect(() => mapping.read(4 * PAGE + 1, new Uint8Array(1))).toThrow(
      /"offset" is out of range. It must be at most the mapping's 0x4000 bytes/,
    );
    expect(mapping.read(4 * PAGE, new Uint8Array(1))).toBe(0);
    expect(mapping.read(4 * PAGE - 3, new Uint8Array(8))).toBe(3);
    expect(mapping.write(4 * PAGE - 3, new Uint8Array(8))).toBe(3);
  });

  it('is refused once it is closed', () => {
    using kvm = open();
    using space = newSpace();
    const mapping = kvm.mapAnonymous(4 * PAGE);
    mapping.close();
    expect(refusalOf(() => mapping.protect(0, PAGE, PROT.READ))).toMatchObject({ code: 'EBADF', size: 4 * PAGE });
    expect(refusalOf(() => space.addRam(0, mapping))).toMatchObject({ code: 'EBADF', syscall: 'addRam' });
    expect(mapping.read(0, new Uint8Array(1))).toBe(0);
    expect(mapping.fd).toBe(-1);
    const reservation = kvm.reserve(4 * PAGE);
    reservation.close();
    expect(refusalOf(() => reservation.discard())).toMatchObject({ code: 'EBADF', syscall: 'madvise' });
    using vm = kvm.createVm();
    const closed = newSpace();
    closed.close();
    expect(refusalOf(() => closed.hold())).toMatchObject({ code: 'EBADF', syscall: 'bind' });
    expect(refusalOf(() => vm.bind(closed))).toMatchObject({ code: 'EBADF', syscall: 'bind' });
    vm.close();
    expect(refusalOf(() => vm.memory.readU8(0))).toMatchObject({ code: 'EBADF', syscall: 'access' });
  });
});

it('options of a region are named where they are wrong', () => {
  using kvm = open();
  using space = newSpace();
  const ram = kvm.mapAnonymous(UNIT);
  const guestMemfd = { fd: 1, size: -1 };
  expect(() => space.addRam(0, ram, { guestMemfdOffset: -1 })).toThrow('"options.guestMemfdOffset"');
  expect(() => space.addRam(0, ram, { guestMemfd })).toThrow('"options.guestMemfd.size"');
});

it('what cannot be mapped is not said to be a guest_memfd', () => {
  using kvm = open();
  using eventFd = kvm.createEventFd();
  const refused = refusalOf(() => kvm.mapDevice(eventFd.fd, { size: PAGE }));
  expect(refused.code).toBe('ENODEV');
  expect(String(refused.explanation)).not.toContain('guest_memfd');
});

it('a file that is not written to is opened for reading, which a program that runs allows', () => {
  using kvm = open();
  const program = process.execPath;
  using shared = kvm.mapFile(program, { prot: PROT.READ, size: PAGE });
  using own = kvm.mapFile(program, { shared: false, size: PAGE });
  const bytes = new Uint8Array(4);
  for (const mapping of [shared, own]) {
    expect(mapping.read(0, bytes)).toBe(4);
    expect([...bytes]).toEqual([0x7f, 0x45, 0x4c, 0x46]);
  }
  expect(() => kvm.mapFile(program, { size: PAGE })).toThrow(expect.objectContaining({ code: 'ETXTBSY' }));
});

describe('holes', () => {
  it('end where they are asked to, whatever is there', () => {
    using kvm = open();
    using space = newSpace();
    expect([...space.holes()]).toEqual([{ gpa: 0, size: 1n << 64n }]);
    expect([...space.holes(PAGE)]).toEqual([{ gpa: 0, size: PAGE }]);
    expect([...space.holes(0)]).toEqual([]);
    const { MAX_SAFE_INTEGER } = Number;
    expect([...space.holes(MAX_SAFE_INTEGER)]).toEqual([{ gpa: 0, size: MAX_SAFE_INTEGER }]);
    expect([...space.holes(2n ** 53n)]).toEqual([{ gpa: 0, size: 2n ** 53n }]);
    expect(() => [...space.holes(-1)]).toThrow('"end"');
    space.addRam(UNIT, kvm.mapAnonymous(UNIT));
    expect([...space.holes(UNIT)]).toEqual([{ gpa: 0, size: UNIT }]);
    expect([...space.holes(UNIT + PAGE)]).toEqual([{ gpa: 0, size: UNIT }]);
    expect([...space.holes(2 * UNIT)]).toEqual([{ gpa: 0, size: UNIT }]);
    expect([...space.holes(2 * UNIT + 1)]).toEqual([
      { gpa: 0, size: UNIT },
      { gpa: 2 * UNIT, size: 1 },
    ]);
    expect([...space.holes(UNIT / 2)]).toEqual([{ gpa: 0, size: UNIT / 2 }]);
    // None is between neighbours, nor before a region at 0.
    space.addRam(2 * UNIT, kvm.mapAnonymous(UNIT));
    expect([...space.holes(4 * UNIT)]).toEqual([
      { gpa: 0, size: UNIT },
      { gpa: 3 * UNIT, size: UNIT },
    ]);
    space.addMmio(0, UNIT, {});
    expect([...space.holes(3 * UNIT)]).toEqual([]);
    expect([...space.holes(3 * UNIT + 1)]).toEqual([{ gpa: 3 * UNIT, size: 1 }]);
  });
});
