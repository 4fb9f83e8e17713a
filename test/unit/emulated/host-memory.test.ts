import { closeSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { MemoryBacking } from '../../../lib/emulated/backing.ts';
import { EmulatedHostMemory } from '../../../lib/emulated/host-memory.ts';
import { EmulatedKernel, ERRNO, MADV, MAP, PROT } from '../../../lib/raw.ts';

const TIB = 2 ** 40;
const map = (memory: EmulatedHostMemory, length: number, align = 0): number =>
  memory.map({ length, prot: PROT.READ | PROT.WRITE, flags: MAP.PRIVATE | MAP.ANONYMOUS }, align, 0, undefined);

it('addresses come again once all have been used, and never two mappings at one', () => {
  const memory = new EmulatedHostMemory(4096);
  // Its last window is a small one.
  const length = TIB - 2 ** 30 + 0x2000;
  const kept = [map(memory, 0x3000), map(memory, 0x1000, 0x20_0000)];
  for (let round = 0; round < 24; round++) {
    const hva = map(memory, length, 0x20_0000);
    expect(hva, String(round)).toBeGreaterThan(0);
    expect(hva % 0x20_0000).toBe(0);
    expect(hva + length).toBeLessThanOrEqual(2 ** 47);
    for (const other of kept) expect(other + 0x3000 <= hva || other >= hva + length).toBe(true);
    expect(memory.write(hva + length - 8, Uint8Array.of(round))).toBe(1);
    const back = new Uint8Array(1);
    for (const other of kept) expect([memory.read(other, back), back[0]]).toEqual([1, 0]);
    if (round % 8 === 7) kept.push(map(memory, 0x1000));
    expect(memory.unmap(hva, length)).toBe(0);
  }
});

it('there is no room for more than all addresses', () => {
  const memory = new EmulatedHostMemory(4096);
  const all = [];
  for (let hva = map(memory, TIB); hva > 0; hva = map(memory, TIB)) all.push(hva);
  expect(all.length).toBe(15);
  expect(map(memory, TIB)).toBe(-12);
  for (const length of [16 * TIB, 16 * TIB + 1, 2 ** 63]) {
    expect(map(new EmulatedHostMemory(4096), length), String(length)).toBe(
      length === 16 * TIB ? 0x7000_0000_0000 : -12,
    );
  }
  expect(memory.unmap(all[3]!, TIB)).toBe(0);
  // Behind each mapping a page stays free.
  for (const length of [TIB + 0x1000, TIB + 0x2000]) expect(map(memory, length)).toBe(-12);
  expect(map(memory, TIB)).toBe(all[3]);
  expect(memory.unmap(all[14]!, TIB)).toBe(0);
  expect(map(memory, TIB)).toBe(all[14]);
  // The last one may go to the end.
  expect(memory.unmap(all[14]!, TIB)).toBe(0);
  const rest = 0x8000_0000_0000 - all[14]!;
  expect([map(memory, rest + 0x1000), map(memory, rest)]).toEqual([-12, all[14]]);
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

it('pages that nobody may access are no reservation where they are a memfd’s, or huge', () => {
  const calls = new EmulatedKernel({ arch: 'x86_64' });
  const HUGE = 0x20_0000;
  const memfd = calls.memfdCreate('hidden', HUGE, 0);
  const both = calls.mmap(HUGE, PROT.READ | PROT.WRITE, MAP.SHARED, memfd, 0, 0, 0);
  expect(calls.writeMemory(both, Uint8Array.of(7))).toBe(1);
  const { PRIVATE, SHARED, ANONYMOUS, HUGETLB } = MAP;
  for (const [flags, fd, isReservation, first] of [
    [SHARED, memfd, false, 7],
    [PRIVATE | ANONYMOUS | HUGETLB, -1, false, 0],
    [PRIVATE | ANONYMOUS, -1, true, undefined],
  ] as const) {
    const hva = calls.mmap(HUGE, PROT.NONE, flags, fd, 0, HUGE, 0);
    const into = new Uint8Array(1);
    expect(calls.readMemory(hva, into)).toBe(-ERRNO.EFAULT);
    // What is there can be had once it may be.
    expect(calls.mprotect(hva, HUGE, PROT.READ)).toBe(isReservation ? -ERRNO.ENOMEM : 0);
    if (first !== undefined) expect([calls.readMemory(hva, into), into[0]]).toEqual([1, first]);
    const put = calls.mmapFixed(hva, 4096, PROT.READ, PRIVATE | ANONYMOUS, -1, 0);
    expect(put).toBe(isReservation ? 0 : -ERRNO.EINVAL);
  }
});

it('a file’s last page has zeros behind its end, which keep nothing', () => {
  const calls = new EmulatedKernel({ arch: 'x86_64' });
  const folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-'));
  try {
    const path = join(folder, 'file');
    writeFileSync(path, Buffer.alloc(100, 1));
    const fd = openSync(path, 'r+');
    const hva = calls.mmap(8192, PROT.READ | PROT.WRITE, MAP.SHARED, fd, 0, 0, 0);
    closeSync(fd);
    const bytes = new Uint8Array(4096).fill(7);
    expect(calls.writeMemory(hva + 50, bytes)).toBe(4096 - 50);
    // What is written is the caller's, and stays what it was.
    expect(bytes.every((byte) => byte === 7)).toBe(true);
    expect([...readFileSync(path)]).toEqual([...Array(50).fill(1), ...Array(50).fill(7)]);
    expect(calls.readMemory(hva, bytes)).toBe(4096);
    expect([bytes[0], bytes[49], bytes[50], bytes[99]]).toEqual([1, 1, 7, 7]);
    expect(bytes.subarray(100).every((byte) => byte === 0)).toBe(true);
    // And behind that page is nothing.
    const { POPULATE_READ, POPULATE_WRITE } = MADV;
    expect([calls.madvise(hva, 4096, POPULATE_READ), calls.madvise(hva, 4096, POPULATE_WRITE)]).toEqual([0, 0]);
    for (const [at, length] of [
      [hva, 8192],
      [hva + 4096, 4096],
    ] as const)
      expect(calls.madvise(at, length, POPULATE_READ)).toBe(-ERRNO.EFAULT);
    expect(calls.readMemory(hva + 4096, bytes)).toBe(-ERRNO.EFAULT);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

it('a mapping may reach beyond the end of its memfd, and be given back', () => {
  const calls = new EmulatedKernel({ arch: 'x86_64' });
  const memfd = calls.memfdCreate('short', 4096, 0);
  const hva = calls.mmap(3 * 4096, PROT.READ | PROT.WRITE, MAP.SHARED, memfd, 0, 0, 0);
  const bytes = new Uint8Array(1);
  expect([calls.writeMemory(hva, Uint8Array.of(7)), calls.writeMemory(hva + 4096, bytes)]).toEqual([1, -ERRNO.EFAULT]);
  expect(calls.madvise(hva + 4096, 2 * 4096, MADV.REMOVE)).toBe(0);
  expect([calls.readMemory(hva, bytes), ...bytes]).toEqual([1, 7]);
  expect(calls.madvise(hva, 3 * 4096, MADV.REMOVE)).toBe(0);
  expect([calls.readMemory(hva, bytes), ...bytes]).toEqual([1, 0]);
  expect(calls.readMemory(hva + 4096, bytes)).toBe(-ERRNO.EFAULT);
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

const openFiles = (): number => readdirSync('/proc/self/fd').length;

it('what is protected together must all be writable to be so', () => {
  const memory = new EmulatedHostMemory(4096);
  const reserved = { length: 8192, prot: PROT.NONE, flags: MAP.PRIVATE | MAP.ANONYMOUS };
  const hva = memory.map(reserved, 0, 0, undefined);
  const put = (page: number, readOnly: boolean): number =>
    memory.mapFixed(hva + page * 4096, { length: 4096, prot: PROT.READ, flags: MAP.SHARED }, () => ({
      backing: new MemoryBacking(4096),
      offset: 0,
      readOnly,
    }));
  expect([put(0, false), put(1, true)]).toEqual([0, 0]);
  expect([memory.protect(hva, 8192, PROT.READ | PROT.WRITE), memory.canAccess(hva, true)]).toEqual([
    -ERRNO.EACCES,
    false,
  ]);
  expect([memory.protect(hva, 4096, PROT.READ | PROT.WRITE), memory.canAccess(hva, true)]).toEqual([0, true]);
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
    // It is open for as long as somebody shows it.
    const before = openFiles();
    expect([calls.munmap(shared, 4096), openFiles()]).toEqual([0, before - 1]);
    expect([calls.munmap(own, 4096), openFiles()]).toEqual([0, before - 2]);
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
    // One that nobody was given a window of is of no matter.
    const [viewed] = [0, 1].map(() => calls.mmap(4096, PROT.READ | PROT.WRITE, MAP.SHARED, memfd, 0, 0, 0));
    const only = calls.window(viewed!, 4096) as ArrayBuffer;
    expect([only.byteLength, calls.mprotect(viewed!, 4096, PROT.READ), only.byteLength]).toEqual([4096, 0, 0]);
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

describe('those who are told', () => {
  const PAGE = 4096;
  const heard: unknown[] = [];
  const watched = (length: number, flags: number = MAP.PRIVATE, prot: number = PROT.READ | PROT.WRITE) => {
    heard.length = 0;
    const memory = new EmulatedHostMemory(PAGE);
    const hva = memory.map({ length, prot, flags: flags | MAP.ANONYMOUS }, 0, 0, undefined);
    const observer = {
      touched: (at: number, bytes: number, write: boolean) => void heard.push(['touched', at - hva, bytes, write]),
      unmapped: (start: number, end: number) => void heard.push(['unmapped', start - hva, end - hva]),
    };
    const notifier = {
      invalidated: (start: number, end: number) => void heard.push(['invalidated', start - hva, end - hva]),
    };
    memory.observe(observer);
    memory.notify(notifier);
    return { memory, hva, observer, notifier };
  };
  const told = (): unknown[] => heard.splice(0);

  it('hear which bytes are accessed, which pages become others, and what goes', () => {
    const { memory, hva, observer, notifier } = watched(4 * PAGE);
    expect(memory.write(hva + PAGE - 2, new Uint8Array(4))).toBe(4);
    expect(memory.read(hva + 3 * PAGE, new Uint8Array(2 * PAGE))).toBe(PAGE);
    expect(told()).toEqual([
      ['touched', PAGE - 2, 4, true],
      ['touched', 3 * PAGE, PAGE, false],
    ]);
    const before = memory.generation;
    expect(memory.protect(hva + PAGE, PAGE, PROT.READ)).toBe(0);
    expect(told()).toEqual([['invalidated', PAGE, 2 * PAGE]]);
    expect(memory.advise(hva, 2 * PAGE - 5, MADV.DONTNEED)).toBe(0);
    expect(told()).toEqual([['invalidated', 0, 2 * PAGE]]);
    expect(memory.unmap(hva + PAGE, 2 * PAGE - 5)).toBe(0);
    expect(told()).toEqual([
      ['invalidated', PAGE, 3 * PAGE],
      ['unmapped', PAGE, 3 * PAGE],
    ]);
    expect(memory.generation).toBe(before + 3);
    memory.forget(notifier);
    memory.unobserve(observer);
    expect(memory.unmap(hva, 4 * PAGE)).toBe(0);
    expect(told()).toEqual([]);
    // There may be those who only hear of accesses.
    memory.observe({ touched: () => {} });
    expect(memory.unmap(map(memory, PAGE), PAGE)).toBe(0);
    const anonymous = { length: PAGE, prot: PROT.NONE, flags: MAP.PRIVATE | MAP.ANONYMOUS };
    const reserved = memory.map(anonymous, 0, 0, undefined);
    expect(memory.mapFixed(reserved, { ...anonymous, prot: PROT.READ }, () => undefined)).toBe(0);
  });

  it('hear of what is put into a reservation', () => {
    const { memory, hva } = watched(8 * PAGE, MAP.PRIVATE, PROT.NONE);
    const put = (first: number, pages: number, prot: number = PROT.READ): number => {
      const request = { length: pages * PAGE, prot, flags: MAP.PRIVATE | MAP.ANONYMOUS };
      return memory.mapFixed(hva + first * PAGE, request, () => undefined);
    };
    const readable = (): boolean[] => [0, 1, 2, 3].map((page) => memory.canAccess(hva + page * PAGE, false));
    expect(readable()).toEqual([false, false, false, false]);
    expect(put(1, 2)).toBe(0);
    expect(told()).toEqual([
      ['invalidated', PAGE, 3 * PAGE],
      ['unmapped', PAGE, 3 * PAGE],
    ]);
    expect(readable()).toEqual([false, true, true, false]);
    // What nobody may access is there all the same, if it is somebody's.
    const shown = new MemoryBacking(PAGE);
    new Uint8Array(shown.window(0))[0] = 7;
    const hidden = { length: PAGE, prot: PROT.NONE, flags: MAP.SHARED };
    expect(memory.mapFixed(hva + 5 * PAGE, hidden, () => ({ backing: shown, offset: 0 }))).toBe(0);
    const into = new Uint8Array(1);
    expect([memory.read(hva + 5 * PAGE, into), memory.protect(hva + 5 * PAGE, PAGE, PROT.READ)]).toEqual([0, 0]);
    expect([memory.read(hva + 5 * PAGE, into), into[0]]).toEqual([1, 7]);
    // Nothing is what a reservation is.
    expect([put(2, 1, PROT.NONE), readable()]).toEqual([0, [false, true, false, false]]);
    expect(memory.advise(hva + 2 * PAGE, PAGE, MADV.DONTNEED)).toBe(-ERRNO.ENOMEM);
    expect([put(7, 2), put(8, 1), put(-1, 1)]).toEqual(Array(3).fill(-ERRNO.EINVAL));
    expect(memory.unmap(hva + PAGE, 2 * PAGE)).toBe(0);
    expect(put(0, 8)).toBe(0);
    expect([memory.unmap(hva, 8 * PAGE), put(0, 1)]).toEqual([0, -ERRNO.EINVAL]);
  });

  it('what can be put there is whole pages, which may be huge, or why there is nothing to put', () => {
    const HUGE = 0x20_0000;
    const memory = new EmulatedHostMemory(PAGE);
    const hva = memory.map(
      { length: 4 * HUGE, prot: PROT.NONE, flags: MAP.PRIVATE | MAP.ANONYMOUS },
      HUGE,
      0,
      undefined,
    );
    const put = (
      at: number,
      length: number,
      flags: number,
      source: () => number | undefined = () => undefined,
    ): number =>
      memory.mapFixed(hva + at, { length, prot: PROT.READ, flags: MAP.PRIVATE | MAP.ANONYMOUS | flags }, source);
    expect([put(PAGE, HUGE, MAP.HUGETLB), put(HUGE, PAGE, MAP.HUGETLB), put(HUGE, HUGE, MAP.HUGETLB)]).toEqual([
      -ERRNO.EINVAL,
      -ERRNO.EINVAL,
      0,
    ]);
    expect([memory.served.unitAt(hva + HUGE), memory.served.unitAt(hva)]).toEqual([HUGE, PAGE]);
    expect([put(PAGE, PAGE - 5, 0), put(8, PAGE, 0), put(0, PAGE, 0, () => -ERRNO.EBADF)]).toEqual([
      0,
      -ERRNO.EINVAL,
      -ERRNO.EBADF,
    ]);
    // What a descriptor says comes before how large its pages would have been.
    expect(put(PAGE, PAGE, MAP.HUGETLB, () => -ERRNO.EBADF)).toBe(-ERRNO.EBADF);
    // Pages of what is put may be larger than those that were asked for.
    const source = { backing: new MemoryBacking(2 * HUGE, HUGE), offset: 0 };
    const show = (at: number, length: number): number =>
      memory.mapFixed(hva + at, { length, prot: PROT.READ, flags: MAP.SHARED }, () => source);
    expect([show(PAGE, HUGE), show(2 * HUGE, PAGE), show(2 * HUGE, HUGE)]).toEqual([-ERRNO.EINVAL, -ERRNO.EINVAL, 0]);
    const plain = map(memory, PAGE);
    const fixed = { length: PAGE, prot: PROT.READ, flags: MAP.PRIVATE | MAP.ANONYMOUS };
    expect(memory.mapFixed(plain, fixed, () => undefined)).toBe(-ERRNO.EINVAL);
  });
});

describe('pages that are accessed or given back', () => {
  const PAGE = 4096;
  const HUGE = 0x20_0000;

  it('stay what they were where others have them', () => {
    const memory = new EmulatedHostMemory(PAGE);
    const request = { length: PAGE, prot: PROT.READ | PROT.WRITE, flags: MAP.SHARED | MAP.ANONYMOUS };
    const hva = memory.map(request, 0, 0, undefined);
    const left = (advice: number): unknown => {
      memory.write(hva, Uint8Array.of(7));
      const into = new Uint8Array(1);
      return [memory.advise(hva, PAGE, advice), memory.read(hva, into), into[0]];
    };
    expect([left(MADV.DONTNEED), left(MADV.REMOVE)]).toEqual([
      [0, 1, 7],
      [0, 1, 0],
    ]);
  });

  it('are there, and no others', () => {
    const memory = new EmulatedHostMemory(PAGE);
    const hva = map(memory, 8 * PAGE);
    expect(memory.read(hva + 2 * PAGE - 1, new Uint8Array(PAGE + 1))).toBe(PAGE + 1);
    expect(memory.write(hva + 5 * PAGE, new Uint8Array(1))).toBe(1);
    const there = (): number[] => [0, 1, 2, 3, 4, 5, 6, 7].filter((page) => memory.served.isPresent(hva + page * PAGE));
    expect(there()).toEqual([1, 2, 5]);
    expect(memory.advise(hva + 6 * PAGE, 2 * PAGE, MADV.POPULATE_READ)).toBe(0);
    expect(memory.advise(hva + PAGE, PAGE, MADV.DONTNEED)).toBe(0);
    expect(there()).toEqual([2, 5, 6, 7]);
    // Where the protection changes as well, those that are accessed and no more.
    const split = map(memory, 8 * PAGE);
    expect(memory.protect(split + 2 * PAGE, PAGE, PROT.READ)).toBe(0);
    expect(memory.read(split + PAGE, new Uint8Array(3 * PAGE))).toBe(3 * PAGE);
    const inSplit = [0, 1, 2, 3, 4, 5, 6, 7].filter((page) => memory.served.isPresent(split + page * PAGE));
    expect(inSplit).toEqual([1, 2, 3]);
  });

  it('keep their protection where they are shared or huge', () => {
    const agreed = { resolvesStores: true, protectsMissing: true };
    for (const [flags, length, advice, keeps] of [
      [MAP.PRIVATE, PAGE, MADV.DONTNEED, false],
      [MAP.SHARED, PAGE, MADV.REMOVE, true],
      [MAP.PRIVATE | MAP.HUGETLB, HUGE, MADV.DONTNEED, true],
    ] as const) {
      const memory = new EmulatedHostMemory(PAGE);
      const request = { length, prot: PROT.READ | PROT.WRITE, flags: flags | MAP.ANONYMOUS };
      const hva = memory.map(request, 0, 0, undefined);
      memory.served.register({ faulted: () => {} }, hva, hva + length, 2, agreed);
      memory.served.protect(hva, hva + length, true);
      expect(memory.advise(hva, length, advice)).toBe(0);
      expect(memory.served.isProtected(hva), `${flags}`).toBe(keeps);
    }
  });

  it('are whole huge ones, of which a range may end in the middle and not begin there', () => {
    const memory = new EmulatedHostMemory(PAGE);
    const request = {
      length: 2 * HUGE,
      prot: PROT.READ | PROT.WRITE,
      flags: MAP.PRIVATE | MAP.ANONYMOUS | MAP.HUGETLB,
    };
    const hva = memory.map(request, 0, 0, undefined);
    expect(memory.write(hva, Uint8Array.of(1))).toBe(1);
    expect(memory.write(hva + HUGE, Uint8Array.of(2))).toBe(1);
    const bytes = (): number[] =>
      [0, HUGE].map((at) => {
        const into = new Uint8Array(1);
        memory.read(hva + at, into);
        return into[0]!;
      });
    expect(memory.advise(hva + PAGE, HUGE, MADV.DONTNEED)).toBe(-ERRNO.EINVAL);
    expect([memory.advise(hva, PAGE, MADV.DONTNEED), bytes()]).toEqual([0, [1, 2]]);
    expect([memory.advise(hva, HUGE + PAGE, MADV.DONTNEED), bytes()]).toEqual([0, [0, 2]]);
    // A hole may be anywhere in a page that is shared: as fallocate(2) has it, that part is zeros then.
    const shared = memory.map({ ...request, flags: MAP.SHARED | MAP.ANONYMOUS | MAP.HUGETLB }, 0, 0, undefined);
    expect(memory.write(shared, new Uint8Array(3 * PAGE).fill(1))).toBe(3 * PAGE);
    expect(memory.advise(shared + PAGE, PAGE, MADV.REMOVE)).toBe(0);
    const left = new Uint8Array(3 * PAGE);
    expect(memory.read(shared, left)).toBe(left.length);
    expect([0, 1, 2].map((page) => left[page * PAGE])).toEqual([1, 0, 1]);
  });

  it('are advised of what there is', () => {
    const memory = new EmulatedHostMemory(PAGE);
    const hva = map(memory, 4 * PAGE);
    expect([
      memory.advise(hva, PAGE, MADV.WILLNEED),
      memory.advise(hva, PAGE, 99),
      memory.advise(hva + 8, PAGE, MADV.WILLNEED),
    ]).toEqual([0, -ERRNO.EINVAL, -ERRNO.EINVAL]);
    expect([memory.advise(hva, 0, MADV.WILLNEED), memory.advise(hva, 5 * PAGE, MADV.WILLNEED)]).toEqual([
      -ERRNO.EINVAL,
      -ERRNO.EINVAL,
    ]);
    expect(memory.protect(hva + PAGE, PAGE, PROT.READ)).toBe(0);
    const { POPULATE_READ, POPULATE_WRITE } = MADV;
    expect([memory.advise(hva, 2 * PAGE, POPULATE_READ), memory.advise(hva, 2 * PAGE, POPULATE_WRITE)]).toEqual([
      0,
      -ERRNO.EINVAL,
    ]);
    expect(memory.unmap(hva + 2 * PAGE, PAGE)).toBe(0);
    for (const advice of [MADV.WILLNEED, MADV.DONTNEED, POPULATE_READ]) {
      expect(memory.advise(hva + PAGE, 2 * PAGE, advice)).toBe(-ERRNO.ENOMEM);
    }
    expect(memory.protect(hva + PAGE, 2 * PAGE, PROT.READ)).toBe(-ERRNO.ENOMEM);
    expect([memory.protect(hva, PAGE, 8), memory.protect(hva + 1, PAGE, PROT.READ)]).toEqual([
      -ERRNO.EINVAL,
      -ERRNO.EINVAL,
    ]);
  });
});
