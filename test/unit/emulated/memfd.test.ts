import { closeSync, openSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { EmulatedKernel, ERRNO, type KvmCalls, loadNative, MADV, MAP, PROT } from '../../../lib/raw.ts';

const addon = loadNative();
const kernels: readonly (readonly [string, KvmCalls])[] = [
  ...('calls' in addon ? [['the real kernel', addon.calls] as const] : []),
  ['the emulated kernel', new EmulatedKernel({ arch: 'x86_64' })],
];

describe.each(kernels)('a memfd on %s', (_name, calls) => {
  const RW = PROT.READ | PROT.WRITE;
  const MFD_HUGETLB = 4;
  const HUGE = 2n ** 21n;

  it('has a size below 2^63, and whole pages where they are huge', () => {
    const made = (size: bigint, flags = 0): number => {
      const fd = calls.memfdCreate('sized', size, flags);
      return fd < 0 ? fd : calls.close(fd);
    };
    expect([made(0n), made(2n ** 63n - 1n), made(2n ** 63n), made(2n ** 64n - 1n)]).toEqual([
      0,
      0,
      -ERRNO.EINVAL,
      -ERRNO.EINVAL,
    ]);
    expect([made(0n, MFD_HUGETLB), made(HUGE, MFD_HUGETLB)]).toEqual([0, 0]);
    expect([made(HUGE + 4096n, MFD_HUGETLB), made(4096n, MFD_HUGETLB)]).toEqual([-ERRNO.EINVAL, -ERRNO.EINVAL]);
  });

  it('is not mapped with huge pages unless it has them, nor is anything else', () => {
    const file = openSync(process.execPath, 'r');
    onTestFinished(() => closeSync(file));
    const closed = 0x7fff_fff0;
    const fds = [calls.memfdCreate('small', 2n * HUGE, 0), calls.eventfd(0), file, closed];
    for (const sharing of [MAP.SHARED, MAP.PRIVATE]) {
      const mapped = fds.map((fd) => calls.mmap(HUGE, PROT.READ, sharing | MAP.HUGETLB, fd, 0, 0, 0));
      expect(mapped).toEqual([-ERRNO.EINVAL, -ERRNO.EINVAL, -ERRNO.EINVAL, -ERRNO.EBADF]);
    }
    expect(calls.mmap(HUGE, PROT.READ, MAP.SHARED | MAP.HUGETLB, fds[0]!, 4096, 0, 0)).toBe(-ERRNO.EINVAL);
    for (const fd of fds.slice(0, 2)) calls.close(fd);
  });

  it('is read where it may only be written, and so is other memory', () => {
    const { pageSize } = calls;
    const memfd = calls.memfdCreate('written', pageSize, 0);
    const byte = new Uint8Array(1);
    const mapped = [
      calls.mmap(pageSize, PROT.WRITE, MAP.SHARED, memfd, 0, 0, 0),
      calls.mmap(pageSize, PROT.WRITE, MAP.PRIVATE, memfd, 0, 0, 0),
      calls.mmap(pageSize, PROT.WRITE, MAP.PRIVATE | MAP.ANONYMOUS, -1, 0, 0, 0),
      calls.mmap(pageSize, RW, MAP.PRIVATE | MAP.ANONYMOUS, -1, 0, 0, 0),
    ];
    expect(calls.mprotect(mapped[3]!, pageSize, PROT.WRITE)).toBe(0);
    for (const hva of mapped) {
      expect([calls.readMemory(hva, byte), byte[0]]).toEqual([1, 0]);
      expect(calls.writeMemory(hva, Uint8Array.of(7))).toBe(1);
      expect([calls.readMemory(hva, byte), byte[0]]).toEqual([1, 7]);
      // Nor does it become readable to who asks for that.
      expect(calls.madvise(hva, pageSize, MADV.POPULATE_READ)).toBe(-ERRNO.EINVAL);
      byte[0] = 0;
      calls.writeMemory(hva, byte);
      calls.munmap(hva, pageSize);
    }
    calls.close(memfd);
  });

  it('has its last page as a whole, which keeps what is written behind the end', () => {
    const { pageSize } = calls;
    const memfd = calls.memfdCreate('odd', 100, 0);
    const [shared, own] = [MAP.SHARED, MAP.PRIVATE].map((flags) =>
      calls.mmap(2 * pageSize, RW, flags, memfd, 0, 0, 0),
    ) as [number, number];
    const get = (hva: number, length = 1): unknown => {
      const into = new Uint8Array(length).fill(9);
      return [calls.readMemory(hva, into), ...into];
    };
    expect(calls.writeMemory(shared + 98, Uint8Array.of(1, 2, 3, 4))).toBe(4);
    expect([get(shared + 97, 6), get(own + 99, 3), get(own + pageSize - 1)]).toEqual([
      [6, 0, 1, 2, 3, 4, 0],
      [3, 2, 3, 4],
      [1, 0],
    ]);
    expect(calls.writeMemory(own + 200, Uint8Array.of(5))).toBe(1);
    expect([get(own + 101), get(own + 200), get(shared + 200)]).toEqual([
      [1, 4],
      [1, 5],
      [1, 0],
    ]);
    for (const hva of [shared, own]) expect(get(hva + pageSize)).toEqual([-ERRNO.EFAULT, 9]);
    expect(calls.readMemory(shared, new Uint8Array(2 * pageSize))).toBe(pageSize);
    for (const hva of [shared, own]) calls.munmap(hva, 2 * pageSize);
    calls.close(memfd);
  });
});

describe.each(kernels)('a private mapping of a memfd on %s', (_name, calls) => {
  const PAGE = calls.pageSize;
  const LENGTH = 3 * PAGE;
  const RW = PROT.READ | PROT.WRITE;
  let memfd: number;
  let shared: number;
  let own: number;
  beforeEach(() => {
    memfd = calls.memfdCreate('private', LENGTH, 0);
    shared = calls.mmap(LENGTH, RW, MAP.SHARED, memfd, 0, 0, 0);
    own = calls.mmap(LENGTH, RW, MAP.PRIVATE, memfd, 0, 0, 0);
  });
  afterEach(() => {
    for (const hva of [shared, own]) calls.munmap(hva, LENGTH);
    calls.close(memfd);
  });
  const put = (hva: number, ...bytes: number[]): number => calls.writeMemory(hva, Uint8Array.from(bytes));
  const get = (hva: number, length = 1): number[] => {
    const into = new Uint8Array(length);
    expect(calls.readMemory(hva, into)).toBe(length);
    return [...into];
  };

  it('shows what others write, until it is written itself, a page at a time', () => {
    put(shared + PAGE - 2, 1, 2, 3, 4);
    expect(get(own + PAGE - 2, 4)).toEqual([1, 2, 3, 4]);
    put(own + PAGE - 1, 12);
    expect(get(own + PAGE - 2, 4)).toEqual([1, 12, 3, 4]);
    expect(get(shared + PAGE - 2, 4)).toEqual([1, 2, 3, 4]);
    put(shared + PAGE - 2, 5, 6, 7, 8);
    expect(get(own + PAGE - 2, 4)).toEqual([1, 12, 7, 8]);
    expect(get(own + 2 * PAGE)).toEqual([0]);
  });

  it('shows the memfd again where its own pages were given back', () => {
    put(shared, 1);
    put(shared + PAGE, 2);
    put(own, 11);
    put(own + PAGE, 12);
    expect(calls.madvise(own, PAGE, MADV.DONTNEED)).toBe(0);
    expect([get(own), get(own + PAGE), get(shared)]).toEqual([[1], [12], [1]]);
    put(shared, 3);
    expect(get(own)).toEqual([3]);
    expect(calls.madvise(own, PAGE, MADV.REMOVE)).toBe(-ERRNO.EACCES);
    expect(calls.madvise(shared + PAGE, PAGE, MADV.REMOVE)).toBe(0);
    expect([get(own + PAGE), get(shared + PAGE)]).toEqual([[12], [0]]);
  });

  it('keeps what it has when the others go', () => {
    put(shared, 1, 2);
    put(own + 1, 12);
    calls.munmap(shared, LENGTH);
    calls.close(memfd);
    expect(get(own, 2)).toEqual([1, 12]);
    memfd = calls.memfdCreate('private', LENGTH, 0);
    shared = calls.mmap(LENGTH, RW, MAP.SHARED, memfd, 0, 0, 0);
    expect([get(own, 2), get(shared, 2)]).toEqual([
      [1, 12],
      [0, 0],
    ]);
  });
});
