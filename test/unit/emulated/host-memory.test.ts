import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { EmulatedHostMemory } from '../../../lib/emulated/host-memory.ts';
import { EmulatedKernel, ERRNO, type KvmCalls, loadNative, MADV, MAP, PROT } from '../../../lib/raw.ts';

const TIB = 2 ** 40;
const map = (memory: EmulatedHostMemory, length: number, align = 0): number =>
  memory.map({ length, prot: PROT.READ | PROT.WRITE, flags: MAP.PRIVATE | MAP.ANONYMOUS }, align, 0, undefined);

it('addresses come again once all have been used, and never two mappings at one', () => {
  const memory = new EmulatedHostMemory(4096);
  const kept = [map(memory, 0x3000), map(memory, 0x1000, 0x20_0000)];
  for (let round = 0; round < 40; round++) {
    const hva = map(memory, TIB, 0x20_0000);
    expect(hva, String(round)).toBeGreaterThan(0);
    expect(hva % 0x20_0000).toBe(0);
    expect(hva + TIB).toBeLessThanOrEqual(2 ** 47);
    for (const other of kept) expect(other + 0x3000 <= hva || other >= hva + TIB).toBe(true);
    expect(memory.write(hva + TIB - 8, Uint8Array.of(round))).toBe(1);
    const back = new Uint8Array(1);
    for (const other of kept) expect([memory.read(other, back), back[0]]).toEqual([1, 0]);
    if (round % 8 === 7) kept.push(map(memory, 0x1000));
    expect(memory.unmap(hva, TIB)).toBe(0);
  }
});

it('there is no room for more than all addresses', () => {
  const memory = new EmulatedHostMemory(4096);
  const all = [];
  for (let hva = map(memory, TIB); hva > 0; hva = map(memory, TIB)) all.push(hva);
  expect(all.length).toBe(15);
  expect(map(memory, TIB)).toBe(-12);
  expect(memory.unmap(all[3]!, TIB)).toBe(0);
  expect(map(memory, TIB)).toBe(all[3]);
});

it('a vCPU that found no room for its descriptor leaves its number free, and its VM to nobody', () => {
  const calls = new EmulatedKernel({ arch: 'x86_64', maxFds: 3 });
  const kvm = calls.openKvm();
  const vm = calls.createVm(kvm, 0);
  const taken = calls.eventfd(0);
  expect(calls.createVcpu(vm, 0)).toBe(-24);
  calls.close(taken);
  expect(calls.createVcpu(vm, 0)).toBeGreaterThan(0);
});

const RAM = [PROT.READ | PROT.WRITE, MAP.PRIVATE | MAP.ANONYMOUS, -1, 0] as const;

describe('mmap', () => {
  it('is aligned to nothing, or to a power of two of at least a page', () => {
    const calls = new EmulatedKernel({ arch: 'ppc64' });
    const { pageSize } = calls;
    for (const align of [0, pageSize, 4 * pageSize]) expect(calls.mmap(pageSize, ...RAM, align, 0)).toBeGreaterThan(0);
    // Below a page; no power of two; neither.
    for (const align of [pageSize / 2, 3 * pageSize, pageSize + 8, 24])
      expect(calls.mmap(pageSize, ...RAM, align, 0), String(align)).toBe(-ERRNO.EINVAL);
  });

  it('may begin so many whole pages behind a multiple', () => {
    const calls = new EmulatedKernel({ arch: 'x86_64' });
    expect(calls.mmap(4096, ...RAM, 0x20_0000, 0x3000) % 0x20_0000).toBe(0x3000);
    for (const offset of [1, 0x800, 0x1001]) expect(calls.mmap(4096, ...RAM, 0x20_0000, offset)).toBe(-ERRNO.EINVAL);
  });

  it('of a file keeps written pages to itself where it is private: whole pages, each its own', () => {
    const calls = new EmulatedKernel({ arch: 'x86_64' });
    const folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-'));
    try {
      const path = join(folder, 'file');
      const contents = Buffer.from(Array.from({ length: 3 * 4096 }, (_, i) => (i >> 8) + 1));
      writeFileSync(path, contents);
      const fd = openSync(path, 'r+');
      const hva = calls.mmap(3 * 4096, PROT.READ | PROT.WRITE, MAP.PRIVATE, fd, 0, 0, 0);
      closeSync(fd);
      expect(calls.writeMemory(hva + 4096 + 5, Uint8Array.of(0xaa))).toBe(1);
      expect(calls.writeMemory(hva + 2 * 4096, Uint8Array.of(0xbb))).toBe(1);
      const expected = Buffer.from(contents);
      expected[4096 + 5] = 0xaa;
      expected[2 * 4096] = 0xbb;
      const back = Buffer.alloc(3 * 4096);
      expect(calls.readMemory(hva, back)).toBe(back.length);
      expect(back.equals(expected)).toBe(true);
      expect(readFileSync(path).equals(contents)).toBe(true);
      // What is given back is the file's again: that page, and no other.
      expect(calls.madvise(hva + 4096, 4096, MADV.DONTNEED)).toBe(0);
      expected[4096 + 5] = contents[4096 + 5]!;
      expect(calls.readMemory(hva, back)).toBe(back.length);
      expect(back.equals(expected)).toBe(true);
      // A file that the process doesn't share gets no holes, whatever its mapping may.
      expect(calls.madvise(hva, 4096, MADV.REMOVE)).toBe(-ERRNO.EACCES);
      expect(calls.madvise(calls.mmap(4096, ...RAM, 0, 0), 4096, MADV.REMOVE)).toBe(-ERRNO.EINVAL);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

it('a range is mapped where all of it is in one mapping', () => {
  const memory = new EmulatedHostMemory(4096);
  const [hva] = [map(memory, 0x3000), map(memory, 0x1000)];
  expect(memory.isMapped(hva!, 0x3000)).toBe(true);
  expect(memory.isMapped(hva! + 0x1000, 0x2000)).toBe(true);
  expect(memory.isMapped(hva!, 0x3001)).toBe(false);
  expect(memory.isMapped(0x1000, 1)).toBe(false);
  expect([hva! + 1, hva! + 0x2fff, 0x1000].map((at) => memory.mappedBytes(at))).toEqual([0x2fff, 1, 0]);
});

it('a file that is open for reading can be protected, and not made writable where it is shared', () => {
  const calls = new EmulatedKernel({ arch: 'x86_64' });
  const folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-'));
  try {
    const path = join(folder, 'file');
    writeFileSync(path, Buffer.alloc(4096));
    const fd = openSync(path, 'r');
    const shared = calls.mmap(4096, PROT.READ, MAP.SHARED, fd, 0, 0, 0);
    const own = calls.mmap(4096, PROT.READ, MAP.PRIVATE, fd, 0, 0, 0);
    closeSync(fd);
    expect(calls.mprotect(shared, 4096, PROT.NONE)).toBe(0);
    expect(calls.mprotect(shared, 4096, PROT.READ)).toBe(0);
    expect(calls.mprotect(shared, 4096, PROT.READ | PROT.WRITE)).toBe(-ERRNO.EACCES);
    expect(calls.mprotect(own, 4096, PROT.READ | PROT.WRITE)).toBe(0);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

it('holes are got by what is shared: private huge pages are a file’s, to which nobody may make them', () => {
  const calls = new EmulatedKernel({ arch: 'x86_64' });
  const HUGE = 0x20_0000;
  const huge = (sharing: number): number =>
    calls.mmap(HUGE, PROT.READ | PROT.WRITE, sharing | MAP.ANONYMOUS | MAP.HUGETLB, -1, 0, 0, 0);
  expect(calls.madvise(huge(MAP.PRIVATE), HUGE, MADV.REMOVE)).toBe(-ERRNO.EACCES);
  expect(calls.madvise(huge(MAP.SHARED), HUGE, MADV.REMOVE)).toBe(0);
});

describe('windows of memory', () => {
  const GIB = 2 ** 30;

  it('begin at multiples of a GiB of their mapping, and are as long or what is left', () => {
    const calls = new EmulatedKernel({ arch: 'x86_64' });
    const hva = calls.mmap(2 * GIB + 4096, ...RAM, 0, 0);
    expect(calls.window(hva + 2 * GIB, 4096)).toBeInstanceOf(ArrayBuffer);
    expect(calls.window(hva + 2 * GIB, 8192)).toBe(-ERRNO.EINVAL);
    const small = calls.mmap(2 * 4096, ...RAM, 0, 0);
    expect(calls.window(small, 2 * 4096)).toBeInstanceOf(ArrayBuffer);
    expect(calls.window(small + 4096, 4096)).toBe(-ERRNO.EINVAL);
  });

  it('are emptied where pages are given back, each in its place', () => {
    const calls = new EmulatedKernel({ arch: 'x86_64' });
    const hva = calls.mmap(2 * GIB + 3 * 4096, ...RAM, 0, 0);
    const last = hva + 2 * GIB;
    for (const page of [0, 1, 2]) expect(calls.writeMemory(last + page * 4096, Uint8Array.of(7))).toBe(1);
    expect(calls.madvise(last + 4096, 4096, MADV.DONTNEED)).toBe(0);
    const found = new Uint8Array(3 * 4096);
    expect(calls.readMemory(last, found)).toBe(found.length);
    expect([0, 1, 2].map((page) => found[page * 4096])).toEqual([7, 0, 7]);
  });

  it('of a memfd stay while another mapping shows them', () => {
    const calls = new EmulatedKernel({ arch: 'x86_64' });
    const memfd = calls.memfdCreate('shown', 4096, 0);
    const [first, second] = [0, 1].map(() => calls.mmap(4096, PROT.READ | PROT.WRITE, MAP.SHARED, memfd, 0, 0, 0));
    const window = calls.window(first!, 4096) as ArrayBuffer;
    expect(calls.window(second!, 4096)).toBe(window);
    expect(calls.mprotect(first!, 4096, PROT.READ)).toBe(0);
    expect(window.byteLength).toBe(4096);
    expect(calls.mprotect(second!, 4096, PROT.READ)).toBe(0);
    expect(window.byteLength).toBe(0);
  });

  it('are none of a guest_memfd, whose pages may go', () => {
    const calls = new EmulatedKernel({ arch: 'x86_64', release: '6.18' });
    const vm = calls.createVm(calls.openKvm(), 0);
    const memfd = calls.createGuestMemfd(vm, 4096, 3);
    expect(memfd).toBeGreaterThan(0);
    const hva = calls.mmap(4096, PROT.READ | PROT.WRITE, MAP.SHARED, memfd, 0, 0, 0);
    expect(calls.window(hva, 4096)).toBe(-ERRNO.EACCES);
  });
});

describe('arrays over memory', () => {
  it('are of a part of one mapping', () => {
    const calls = new EmulatedKernel({ arch: 'x86_64' });
    const hva = calls.mmap(2 * 4096, ...RAM, 0, 0);
    const end = hva + 2 * 4096;
    expect(calls.vmap(end - 8, 8)).toHaveLength(8);
    for (const [at, length] of [
      [end - 8, 9],
      [hva, 2 * 4096 + 1],
      [hva, 0],
      [0x1000, 8],
      [end, 8],
    ] as const)
      expect(calls.vmap(at, length), `${at.toString(16)}, ${length}`).toBe(-ERRNO.EINVAL);
  });

  it('are taken by whom they were given, and others stay', () => {
    const calls = new EmulatedKernel({ arch: 'x86_64' });
    const arrays = [0, 1].map(() => calls.vmap(calls.mmap(4096, ...RAM, 0, 0), 16) as Uint8Array);
    const [first, second] = [arrays[0]!, arrays[1]!];
    expect(calls.vunmap(Uint8Array.of(1))).toBe(-ERRNO.EINVAL);
    expect([first.length, second.length]).toEqual([16, 16]);
    expect(calls.vunmap(second)).toBe(0);
    expect([first.length, second.length]).toEqual([16, 0]);
    // Once more is nothing.
    expect(calls.vunmap(second)).toBe(0);
    expect(first.length).toBe(16);
  });
});

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
