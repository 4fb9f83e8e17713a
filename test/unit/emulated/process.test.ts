import { describe, expect, it } from 'vitest';
import { EmulatedKernel, ERRNO, MADV, MAP, POLL, PROT } from '../../../lib/raw.ts';
import { FALLOC } from '../../../lib/uapi/flags.ts';
import { UFFDIO_REGISTER_MODE } from '../../../lib/uapi/userfaultfd.ts';

const PAGE = 4096;
const CLOSED = 0x7fff_fff0;
const RW = PROT.READ | PROT.WRITE;
const { EAGAIN, EBADF, EFAULT, EFBIG, EINVAL, EMFILE, ENODEV, EOPNOTSUPP, EPERM } = ERRNO;
const ANONYMOUS = MAP.PRIVATE | MAP.ANONYMOUS;

const open = () => {
  const calls = new EmulatedKernel({ arch: 'x86_64' });
  const kvm = calls.openKvm();
  const map = (pages: number): number => calls.mmap(pages * PAGE, RW, ANONYMOUS, -1, 0, 0, 0);
  return { calls, kvm, vm: calls.createVm(kvm, 0), eventfd: calls.eventfd(0), map };
};

describe('a descriptor', () => {
  it('is read, written and waited for where its file is something to be', async () => {
    const { calls, kvm, eventfd } = open();
    const bytes = new Uint8Array(8);
    expect([calls.read(CLOSED, bytes), calls.write(CLOSED, bytes), await calls.poll(CLOSED, POLL.IN)]).toEqual(
      Array(3).fill(-EBADF),
    );
    expect([calls.read(kvm, bytes), calls.write(kvm, bytes), await calls.poll(kvm, POLL.IN)]).toEqual([
      -EINVAL,
      -EINVAL,
      -EPERM,
    ]);
    expect(calls.read(eventfd, bytes)).toBe(-EAGAIN);
    bytes[0] = 5;
    expect([calls.write(eventfd, bytes), await calls.poll(eventfd, POLL.IN)]).toEqual([8, POLL.IN]);
    bytes[0] = 0;
    expect([calls.read(eventfd, bytes), bytes[0]]).toEqual([8, 5]);
    expect([calls.close(eventfd), calls.close(eventfd)]).toEqual([0, -EBADF]);
  });

  it('has pages to allocate or to give back where it is a guest_memfd, and a range that fits files', () => {
    const { calls, kvm, vm, eventfd } = open();
    const guest = calls.createGuestMemfd(vm, 4 * PAGE, 0);
    const memfd = calls.memfdCreate('plain', PAGE, 0);
    const HOLE = FALLOC.KEEP_SIZE | FALLOC.PUNCH_HOLE;
    const hole = (
      fd: number,
      offset: number | bigint = 0,
      length: number | bigint = PAGE,
      mode: number = HOLE,
    ): number => calls.fallocate(fd, mode, offset, length);
    expect([hole(CLOSED), hole(memfd), hole(kvm), hole(eventfd), hole(guest)]).toEqual([
      -EBADF,
      -EOPNOTSUPP,
      -ENODEV,
      -ENODEV,
      0,
    ]);
    const TOP = 1n << 63n;
    for (const [offset, length] of [
      [0, 0],
      [TOP, PAGE],
      [0, TOP],
      [-1n, PAGE],
      [0, -1n],
    ] as const)
      expect([hole(kvm, offset, length), hole(guest, offset, length, 99)]).toEqual([-EINVAL, -EINVAL]);
    // What some file can do, and what none can.
    expect([8, 0x20, 0, 0x10, 0x40, 1, 0x11, 0x41, 3].map((mode) => hole(kvm, 0, PAGE, mode))).toEqual(
      Array(9).fill(-ENODEV),
    );
    expect([2, 4, 5, 9, 0x12, 0x80].map((mode) => hole(kvm, 0, PAGE, mode))).toEqual(Array(6).fill(-EOPNOTSUPP));
    expect([
      hole(guest, TOP - 0x2000n, 0x1000),
      hole(guest, TOP - 0x1000n, 0x1000),
      hole(kvm, TOP - 0x1000n, 0x1000),
    ]).toEqual([0, -EFBIG, -ENODEV]);
  });
});

describe('mmap', () => {
  it('has flags and protection that there are, one way of sharing, and something to show', () => {
    const { calls, kvm, vm } = open();
    const map = (length: number, prot: number, flags: number, fd = -1, offset: number | bigint = 0): number => {
      const hva = calls.mmap(length, prot, flags, fd, offset, 0, 0);
      return hva > 0 ? 0 : hva;
    };
    expect([map(PAGE, RW, ANONYMOUS), map(PAGE, 7, MAP.SHARED | MAP.ANONYMOUS), map(1, 0, ANONYMOUS)]).toEqual([
      0, 0, 0,
    ]);
    for (const [length, prot, flags] of [
      [0, RW, ANONYMOUS],
      [PAGE, 8, ANONYMOUS],
      [PAGE, RW, MAP.ANONYMOUS],
      [PAGE, RW, MAP.SHARED | ANONYMOUS],
      [PAGE, RW, ANONYMOUS | 0x100_0000],
      // The size of huge pages is for huge pages.
      [PAGE, RW, ANONYMOUS | (21 << 26)],
    ] as const)
      expect(map(length, prot, flags), `${length}, ${prot}, ${flags}`).toBe(-EINVAL);
    expect(map(0x20_0000, RW, ANONYMOUS | MAP.HUGETLB | (21 << 26))).toBe(0);
    expect([map(PAGE, RW, MAP.SHARED, -2), map(PAGE, RW, MAP.SHARED, vm), map(PAGE, RW, MAP.SHARED, kvm)]).toEqual([
      -EINVAL,
      -ENODEV,
      -ENODEV,
    ]);
    // Without a descriptor it is anonymous, whether the flags say so or not.
    expect([map(PAGE, RW, MAP.PRIVATE), map(PAGE, RW, MAP.SHARED)]).toEqual([0, 0]);
    // Of anonymous memory the descriptor is of no matter.
    expect([map(PAGE, RW, ANONYMOUS, vm), map(PAGE, RW, ANONYMOUS, -1, 8)]).toEqual([0, -EINVAL]);
    expect([map(PAGE, RW, MAP.SHARED, 0x7fff_fff0), map(PAGE, RW, MAP.SHARED, vm, 8)]).toEqual([-EBADF, -EINVAL]);
    const memfd = calls.memfdCreate('some', 2 * PAGE, 0);
    const [whole, second] = [0, PAGE].map((offset) => calls.mmap(PAGE * 2, RW, MAP.SHARED, memfd, offset, 0, 0));
    calls.writeMemory(second!, Uint8Array.of(7));
    const back = new Uint8Array(1);
    expect([calls.readMemory(whole! + PAGE, back), back[0]]).toEqual([1, 7]);
    // Where there is no descriptor left, nobody looks at the size.
    const full = new EmulatedKernel({ arch: 'x86_64', maxFds: 1 });
    full.eventfd(0);
    expect([2 * PAGE, 2n ** 63n].map((size) => full.memfdCreate('late', size, 0))).toEqual([-EMFILE, -EMFILE]);
    expect([0x20, 0x0400_0000].map((flags) => calls.memfdCreate('wrong', PAGE, flags) > 0)).toEqual([false, true]);
  });

  it('puts into a reservation what could be mapped anywhere', () => {
    const { calls, vm } = open();
    const hva = calls.mmap(4 * PAGE, PROT.NONE, ANONYMOUS, -1, 0, 0, 0);
    const put = (prot: number, flags: number, fd = -1, offset = 0, length = PAGE): number =>
      calls.mmapFixed(hva + PAGE, length, prot, flags, fd, offset);
    expect([put(8, ANONYMOUS), put(RW, MAP.ANONYMOUS), put(RW, ANONYMOUS, -1, 0, 0)]).toEqual(Array(3).fill(-EINVAL));
    expect([
      put(RW, MAP.SHARED, vm),
      put(RW, MAP.SHARED, -2),
      put(RW, MAP.SHARED, CLOSED),
      put(RW, ANONYMOUS, -1, 8),
    ]).toEqual([-ENODEV, -EINVAL, -EBADF, -EINVAL]);
    expect([put(RW, ANONYMOUS), calls.writeMemory(hva + PAGE, Uint8Array.of(1))]).toEqual([0, 1]);
  });
});

describe('memory', () => {
  it('is moved by one piece, or by many up to the first that can’t be moved whole', () => {
    const { calls, map } = open();
    const hva = map(2);
    const end = hva + 2 * PAGE;
    expect([calls.writeMemory(hva, Uint8Array.of(1, 2, 3)), calls.writeMemory(end - 1, Uint8Array.of(4, 5))]).toEqual([
      3, 1,
    ]);
    const nothing = new Uint8Array(0);
    for (const at of [hva, 0x1000])
      expect([calls.readMemory(at, nothing), calls.writeMemory(at, nothing)]).toEqual([0, 0]);
    expect([calls.readMemory(0x1000, new Uint8Array(1)), calls.writeMemory(end, new Uint8Array(1))]).toEqual([
      -EFAULT,
      -EFAULT,
    ]);
    const into = new Uint8Array(4);
    const at = (...hvas: number[]): Float64Array => Float64Array.from(hvas);
    const of = (...lengths: number[]): Uint32Array => Uint32Array.from(lengths);
    expect([calls.gather(at(hva + 1, end - 1, hva), of(2, 1, 1), into), ...into]).toEqual([3, 2, 3, 4, 1]);
    expect([calls.gather(at(hva, end - 1, hva), of(1, 2, 1), into), into[0]]).toEqual([1, 1]);
    expect(calls.scatter(at(end - 2, hva + 8), of(2, 2), Uint8Array.of(9, 8, 7, 6))).toBe(2);
    expect([calls.gather(at(end - 2, hva + 8), of(2, 2), into), ...into]).toEqual([2, 9, 8, 7, 6]);
    // Nothing of a piece that does not fit is moved.
    expect(calls.scatter(at(hva, end - 1), of(1, 2), Uint8Array.of(5, 5, 5))).toBe(1);
    expect([calls.gather(at(hva, end - 1), of(1, 1), into), into[0], into[1]]).toEqual([2, 5, 8]);
    expect([calls.munmap(hva, 2 * PAGE), calls.munmap(hva, 2 * PAGE)]).toEqual([0, -EINVAL]);
    expect([calls.mprotect(hva, PAGE, PROT.READ), calls.madvise(hva, PAGE, MADV.NORMAL)]).toEqual([-EINVAL, -EINVAL]);
  });

  it('that somebody serves is to be tried again, unless it may not be accessed that way', () => {
    const { calls, map } = open();
    const hva = map(2);
    const uffd = calls.uffd!.userfaultfd(0);
    expect(calls.uffd!.uffdApi(uffd, BigUint64Array.of(0n, 0n))).toBe(0);
    expect(calls.uffd!.uffdRegister(uffd, hva, 2 * PAGE, UFFDIO_REGISTER_MODE.MISSING)).toBe(0);
    const asked = (at: number): number[] => [
      calls.readMemory(at, new Uint8Array(1)),
      calls.writeMemory(at, new Uint8Array(1)),
    ];
    expect(asked(hva)).toEqual([-EAGAIN, -EAGAIN]);
    expect(calls.mprotect(hva, PAGE, PROT.READ)).toBe(0);
    expect([asked(hva), asked(hva + PAGE)]).toEqual([
      [-EAGAIN, -EFAULT],
      [-EAGAIN, -EAGAIN],
    ]);
  });

  it('is had as windows and as arrays, which may be given back', () => {
    const { calls, map } = open();
    const hva = map(1);
    const window = calls.window(hva, PAGE);
    expect([calls.view(hva, PAGE) === window, calls.view(hva, 8), calls.window(0x1000, PAGE)]).toEqual([
      true,
      -EINVAL,
      -EINVAL,
    ]);
    const array = calls.vmap(hva + 8, 16) as Uint8Array;
    expect([array.length, array.byteOffset, array.buffer === window]).toEqual([16, 8, true]);
    expect([calls.vunmap(array), array.length]).toEqual([0, 0]);
  });
});
