import { readFileSync, writeFileSync } from 'node:fs';
import type { TestContext } from 'vitest';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { AddressSpace, Mapping, TrackedWrites } from '../../../lib/index.ts';
import type { KvmCalls } from '../../../lib/raw.ts';
import {
  MADV,
  MAP,
  PAGE_IS,
  PM_SCAN,
  UFFD_FEATURE,
  UFFDIO_REGISTER_MODE,
  UFFDIO_WRITEPROTECT_MODE,
} from '../../../lib/raw.ts';
import { addon, RW, runChild } from '../native/real.ts';
import { UFFD_KERNELS, type UffdKernel } from './uffd-host.ts';

const HUGE = 0x20_0000;

const freeHugePages = (): number =>
  Number(/HugePages_Free:\s+(\d+)/.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1] ?? 0);

const POOL = '/proc/sys/vm/nr_hugepages';
/** Pages that the tests want, at most. */
const WANTED = 8;

const EINVAL = -22;
const EACCES = -13;
const EEXIST = -17;

/** Who isn't root can't give the host a pool. */
function requirePool(test: TestContext, pages: number): void {
  const free = freeHugePages();
  test.skip(free < pages, `this host's pool has ${free} free huge pages, not ${pages}: sudo sysctl vm.nr_hugepages=8`);
}

/** A kernel's calls, where the pool has so many pages. */
function withPool({ isReal, callsOf }: UffdKernel, test: TestContext, pages: number): KvmCalls {
  const calls = callsOf(test);
  if (isReal) requirePool(test, pages);
  return calls;
}

it('says how to get huge pages where the pool has too few', (test) => {
  const calls = addon(test);
  expect(() => Mapping.hugetlb(calls, (freeHugePages() + 1) * HUGE)).toThrow(
    expect.objectContaining({ code: 'ENOMEM', explanation: expect.stringContaining('vm.nr_hugepages') }),
  );
});

// Here and not in native/: all who use the pool come one after the other.
it('huge pages that somebody else takes out of a memfd make no copy fatal, and there are no views of them', (test) => {
  addon(test);
  const child = runChild('huge-pages');
  if (child.stdout.startsWith('skip: ')) test.skip(child.stdout.slice(6).trim());
  expect(child).toMatchObject({ status: 0, signal: null, stderr: '' });
});

describe('with pages in the pool', () => {
  // Root has the pool hold them for as long as these take; where that can't be, each says what it misses.
  let pool: string | undefined;
  beforeAll(() => {
    const missing = WANTED - freeHugePages();
    if (process.getuid?.() !== 0 || missing <= 0) return;
    const before = readFileSync(POOL, 'utf8').trim();
    try {
      writeFileSync(POOL, String(Number(before) + missing));
      pool = before;
    } catch {
      // Containers show it read-only.
    }
  });
  afterAll(() => {
    if (pool !== undefined) writeFileSync(POOL, pool);
  });

  it('maps huge pages of the pool', (test) => {
    const calls = addon(test);
    requirePool(test, 1);
    const free = freeHugePages();
    using space = new AddressSpace({ littleEndian: true, pageSize: calls.pageSize });
    space.addRam(0, Mapping.hugetlb(calls, HUGE));
    space.writeU64(HUGE - 8, 0x1122_3344_5566_7788n);
    expect(space.readU64(HUGE - 8)).toBe(0x1122_3344_5566_7788n);
    expect(freeHugePages()).toBe(free - 1);
  });

  describe.each(UFFD_KERNELS)('huge pages on $name', (kernel) => {
    it('are told by TrackedWrites as wholes, whatever part of one was written', (test) => {
      const calls = withPool(kernel, test, 3);
      using ram = Mapping.hugetlb(calls, 3 * HUGE);
      ram.write(HUGE + 5, Uint8Array.of(1));
      using writes = new TrackedWrites(ram);
      expect(writes.collect().count).toBe(0);
      ram.write(2 * HUGE + 4096 * 7, Uint8Array.of(1));
      ram.read(HUGE, new Uint8Array(8));
      expect(writes.collect().runs()).toEqual([{ offset: 2 * HUGE, length: HUGE }]);
      expect(writes.collect().count).toBe(0);
      ram.write(HUGE - 1, Uint8Array.of(1, 1));
      expect(writes.collect().runs()).toEqual([{ offset: 0, length: 2 * HUGE }]);
      ram.discard(2 * HUGE, HUGE);
      expect(writes.collect().runs()).toEqual([{ offset: 2 * HUGE, length: HUGE }]);
    });

    it('are registered, protected, told and given back as wholes', (test) => {
      const calls = withPool(kernel, test, 3);
      const uffd = calls.uffd!;
      const { pageSize } = calls;
      const size = 3 * HUGE;
      const hva = calls.mmap(size, RW, MAP.PRIVATE | MAP.ANONYMOUS | MAP.HUGETLB, -1, 0, 0, 0);
      const fd = uffd.userfaultfd(0);
      test.onTestFinished(() => {
        calls.close(fd);
        calls.munmap(hva, size);
      });
      /** How many pages are told of a range. */
      const told = (flags: number, from = 0, length = size): number =>
        uffd.pagemapScan(hva + from, length, flags, 0, PAGE_IS.WRITTEN, 0, new Uint8Array(size / pageSize / 8));
      const first = (): number => {
        const byte = new Uint8Array(1);
        calls.readMemory(hva, byte);
        return byte[0]!;
      };
      const HUGE_PAGES = HUGE / pageSize;
      // What isn't there was not written.
      expect(told(0)).toBe(0);
      calls.writeMemory(hva, Uint8Array.of(7));
      expect(told(0)).toBe(HUGE_PAGES);

      expect(calls.madvise(hva, pageSize, MADV.DONTNEED)).toBe(0);
      expect(first()).toBe(7);
      expect(calls.madvise(hva + pageSize, HUGE - pageSize, MADV.DONTNEED)).toBe(EINVAL);
      expect(calls.madvise(hva, HUGE, MADV.REMOVE)).toBe(EACCES);

      uffd.uffdApi(fd, BigUint64Array.of(BigInt(UFFD_FEATURE.WP_ASYNC | UFFD_FEATURE.WP_HUGETLBFS_SHMEM), 0n));
      expect(uffd.uffdRegister(fd, hva, pageSize, UFFDIO_REGISTER_MODE.WP)).toBe(EINVAL);
      expect(uffd.uffdRegister(fd, hva, size, UFFDIO_REGISTER_MODE.WP)).toBe(0);
      expect(uffd.uffdWriteprotect(fd, hva, pageSize, UFFDIO_WRITEPROTECT_MODE.WP)).toBe(EINVAL);
      expect(uffd.uffdWriteprotect(fd, hva, size, UFFDIO_WRITEPROTECT_MODE.WP)).toBe(0);
      expect(told(0)).toBe(0);
      calls.readMemory(hva + HUGE, new Uint8Array(1));
      calls.writeMemory(hva + 2 * HUGE + pageSize, Uint8Array.of(0));
      expect(told(0)).toBe(HUGE_PAGES);
      expect(told(0, 2 * HUGE + 4 * pageSize, 3 * pageSize)).toBe(3);
      // Only a whole one is protected anew, and so only that is told.
      expect(told(PM_SCAN.WP_MATCHING, 2 * HUGE + 4 * pageSize, 3 * pageSize)).toBe(0);
      expect(told(0)).toBe(HUGE_PAGES);
      expect(told(PM_SCAN.WP_MATCHING)).toBe(HUGE_PAGES);
      expect(told(0)).toBe(0);
      // What is given back keeps its protection.
      expect(calls.madvise(hva, HUGE + pageSize, MADV.DONTNEED)).toBe(0);
      expect(first()).toBe(0);
      expect(told(0)).toBe(0);
      expect(uffd.uffdUnregister(fd, hva, pageSize)).toBe(EINVAL);
      expect(uffd.uffdWriteprotect(fd, hva, size, 0)).toBe(0);
      expect(told(0)).toBe(3 * HUGE_PAGES);
    });

    it('are brought as wholes, and never as zeros', (test) => {
      const calls = withPool(kernel, test, 2);
      const uffd = calls.uffd!;
      const hva = calls.mmap(2 * HUGE, RW, MAP.PRIVATE | MAP.ANONYMOUS | MAP.HUGETLB, -1, 0, 0, 0);
      const fd = uffd.userfaultfd(0);
      test.onTestFinished(() => {
        calls.close(fd);
        calls.munmap(hva, 2 * HUGE);
      });
      // A load alone brings one.
      calls.readMemory(hva + HUGE + 1, new Uint8Array(1));
      uffd.uffdApi(fd, BigUint64Array.of(BigInt(UFFD_FEATURE.MISSING_HUGETLBFS), 0n));
      expect(uffd.uffdRegister(fd, hva, 2 * HUGE, UFFDIO_REGISTER_MODE.MISSING)).toBe(0);
      expect(uffd.uffdZeropage(fd, hva, HUGE, 0)).toBe(EINVAL);
      expect(uffd.uffdCopy(fd, hva, new Uint8Array(calls.pageSize), 0)).toBe(EINVAL);
      expect(uffd.uffdCopy(fd, hva, new Uint8Array(HUGE).fill(5), 0)).toBe(HUGE);
      expect(uffd.uffdCopy(fd, hva + HUGE, new Uint8Array(HUGE), 0)).toBe(EEXIST);
      const bytes = new Uint8Array(2);
      expect([calls.readMemory(hva + HUGE - 1, bytes), [...bytes]]).toEqual([2, [5, 0]]);
    });
  });
});
