import type { UserfaultfdCalls } from '../../lib/calls/kvm-calls.ts';
import { MADV, MAP, PROT } from '../../lib/uapi/flags.ts';
import {
  PAGE_IS,
  PM_SCAN,
  UFFD_FEATURE,
  UFFDIO_COPY_MODE,
  UFFDIO_REGISTER_MODE,
  UFFDIO_WRITEPROTECT_MODE,
} from '../../lib/uapi/userfaultfd.ts';
import { EVERYWHERE, type Scenario, type ScenarioHost } from './scenario.ts';

const RW = PROT.READ | PROT.WRITE;
const { MISSING, WP, MINOR } = UFFDIO_REGISTER_MODE;
const PAGES = 4;

const anonymous = ({ calls }: ScenarioHost, flags: number): number =>
  calls.mmap(PAGES * calls.pageSize, RW, flags | MAP.ANONYMOUS, -1, 0, 0, 0);

/** A userfaultfd that has agreed to features, where the kernel has them. */
function agreed(uffd: UserfaultfdCalls, ...features: readonly number[]): number {
  const fd = uffd.userfaultfd(0);
  uffd.uffdApi(fd, BigUint64Array.of(BigInt(features.reduce((all, feature) => all | feature, 0)), 0n));
  return fd;
}

/** Whether the kernel has a feature. */
function has(uffd: UserfaultfdCalls, feature: number): boolean {
  return uffd.uffdApi(uffd.userfaultfd(0), BigUint64Array.of(BigInt(feature), 0n)) === 0;
}

/** userfaultfd(2), as far as this thread hears of it: nobody waits for a page. */
export const userfaultfdScenarios: readonly Scenario[] = [
  {
    name: 'userfaultfd/api',
    arches: EVERYWHERE,
    run: (s) => {
      const { calls } = s;
      const { uffd, pageSize } = calls;
      if (uffd === undefined) return;
      for (const flags of [0, 1, 2, 0x800]) uffd.userfaultfd(flags);
      const hva = anonymous(s, MAP.PRIVATE);
      const silent = uffd.userfaultfd(0);
      uffd.uffdRegister(silent, hva, pageSize, MISSING);
      uffd.uffdCopy(silent, hva, new Uint8Array(pageSize), 0);
      uffd.uffdZeropage(silent, hva, pageSize, 0);
      uffd.uffdWake(silent, hva, pageSize);
      uffd.uffdUnregister(silent, hva, pageSize);
      calls.read(silent, new Uint8Array(32));
      for (let bit = 0; bit < 20; bit++) agreed(uffd, 2 ** bit);
      const twice = agreed(uffd);
      uffd.uffdApi(twice, BigUint64Array.of(0n, 0n));
      calls.read(twice, new Uint8Array(32));
      calls.read(twice, new Uint8Array(31));
      calls.write(twice, new Uint8Array(8));
      const eventfd = calls.eventfd(0);
      for (const fd of [eventfd, 0x7fff_ffff]) {
        uffd.uffdApi(fd, BigUint64Array.of(0n, 0n));
        uffd.uffdRegister(fd, hva, pageSize, MISSING);
        uffd.uffdZeropage(fd, hva, pageSize, 0);
        uffd.uffdWriteprotect(fd, hva, pageSize, 0);
        uffd.uffdWake(fd, hva, pageSize);
      }
    },
  },
  {
    name: 'userfaultfd/missing',
    arches: EVERYWHERE,
    run: (s) => {
      const { calls } = s;
      const { uffd, pageSize } = calls;
      if (uffd === undefined) return;
      for (const flags of [MAP.PRIVATE, MAP.SHARED]) {
        const hva = anonymous(s, flags);
        const [second, third, last] = [1, 2, 3].map((page) => hva + page * pageSize) as [number, number, number];
        calls.writeMemory(last, Uint8Array.of(9));
        const fd = agreed(uffd, UFFD_FEATURE.MISSING_SHMEM);
        const other = agreed(uffd, UFFD_FEATURE.MISSING_SHMEM);
        for (const mode of [0, MINOR, 8, MISSING | 16]) uffd.uffdRegister(fd, hva, pageSize, mode);
        uffd.uffdRegister(fd, hva + 1, pageSize, MISSING);
        uffd.uffdRegister(fd, hva, pageSize + 1, MISSING);
        uffd.uffdRegister(fd, hva, 0, MISSING);
        uffd.uffdRegister(fd, hva, PAGES * pageSize, MISSING);
        uffd.uffdRegister(other, hva, pageSize, MISSING);
        // What is missing can't be had in this thread; what is there can.
        calls.readMemory(hva, new Uint8Array(1));
        calls.writeMemory(hva, Uint8Array.of(1));
        calls.readMemory(last, new Uint8Array(1));
        for (const advice of [MADV.POPULATE_READ, MADV.POPULATE_WRITE]) calls.madvise(hva, pageSize, advice);
        uffd.uffdCopy(fd, hva, new Uint8Array(pageSize).fill(7), 0);
        calls.readMemory(hva, new Uint8Array(2));
        uffd.uffdCopy(fd, hva, new Uint8Array(pageSize), 0);
        uffd.uffdZeropage(fd, hva, pageSize, 0);
        uffd.uffdZeropage(fd, second, pageSize, 1);
        calls.readMemory(second, new Uint8Array(2));
        for (const mode of [UFFDIO_COPY_MODE.WP, 4, 8]) uffd.uffdCopy(fd, third, new Uint8Array(pageSize), mode);
        uffd.uffdZeropage(fd, third, pageSize, 2);
        uffd.uffdCopy(fd, third + 1, new Uint8Array(pageSize), 0);
        uffd.uffdCopy(fd, third, new Uint8Array(pageSize - 1), 0);
        uffd.uffdCopy(fd, third, new Uint8Array(0), 0);
        // Until a page that is there.
        uffd.uffdCopy(fd, third, new Uint8Array(2 * pageSize).fill(5), 0);
        calls.readMemory(third, new Uint8Array(1));
        calls.readMemory(last, new Uint8Array(1));
        for (const mode of [UFFDIO_WRITEPROTECT_MODE.WP, 4]) uffd.uffdWriteprotect(fd, hva, pageSize, mode);
        uffd.uffdWake(fd, hva, PAGES * pageSize);
        uffd.uffdWake(fd, hva + 1, pageSize);
        uffd.uffdWake(fd, hva, 0);
        // What was given back is missing again.
        calls.madvise(hva, pageSize, flags === MAP.SHARED ? MADV.REMOVE : MADV.DONTNEED);
        calls.readMemory(hva, new Uint8Array(1));
        uffd.uffdUnregister(fd, hva, PAGES * pageSize);
        calls.readMemory(hva, new Uint8Array(1));
        uffd.uffdCopy(fd, second, new Uint8Array(pageSize), 0);
        uffd.uffdZeropage(fd, second, pageSize, 0);
        uffd.uffdUnregister(fd, hva, PAGES * pageSize);
        calls.read(fd, new Uint8Array(32));
      }
    },
  },
  {
    name: 'userfaultfd/protected',
    arches: EVERYWHERE,
    run: (s) => {
      const { calls } = s;
      const { uffd, pageSize } = calls;
      if (uffd === undefined) return;
      const { WP: PROTECT, DONTWAKE } = UFFDIO_WRITEPROTECT_MODE;
      for (const flags of [MAP.PRIVATE, MAP.SHARED]) {
        const hva = anonymous(s, flags);
        const second = hva + pageSize;
        calls.writeMemory(hva, new Uint8Array(PAGES * pageSize).fill(3));
        const fd = agreed(uffd, UFFD_FEATURE.PAGEFAULT_FLAG_WP, UFFD_FEATURE.WP_HUGETLBFS_SHMEM);
        uffd.uffdRegister(fd, hva, PAGES * pageSize, WP);
        if (!has(uffd, UFFD_FEATURE.PAGEFAULT_FLAG_WP)) continue;
        uffd.uffdWriteprotect(fd, hva, pageSize, PROTECT);
        calls.readMemory(hva, new Uint8Array(1));
        calls.writeMemory(hva, Uint8Array.of(1));
        calls.writeMemory(second, Uint8Array.of(1));
        for (const mode of [DONTWAKE, PROTECT | DONTWAKE, 4]) uffd.uffdWriteprotect(fd, hva, pageSize, mode);
        uffd.uffdWriteprotect(fd, hva + 1, pageSize, 0);
        uffd.uffdWriteprotect(fd, hva, 0, 0);
        uffd.uffdZeropage(fd, hva, pageSize, 0);
        uffd.uffdWriteprotect(fd, hva, pageSize, 0);
        calls.writeMemory(hva, Uint8Array.of(1));
        uffd.uffdWriteprotect(fd, second, pageSize, PROTECT);
        uffd.uffdUnregister(fd, hva, PAGES * pageSize);
        calls.writeMemory(second, Uint8Array.of(2));
        uffd.uffdWriteprotect(fd, second, pageSize, PROTECT);
      }
    },
  },
  {
    name: 'userfaultfd/written',
    arches: EVERYWHERE,
    run: (s) => {
      const { calls } = s;
      const { uffd, pageSize } = calls;
      if (uffd === undefined) return;
      const scan = (hva: number, flags: number, pages = PAGES): void => {
        uffd.pagemapScan(hva, pages * pageSize, flags, 0, PAGE_IS.WRITTEN, 0, new Uint8Array(8));
      };
      const { WP_MATCHING, CHECK_WPASYNC } = PM_SCAN;
      for (const flags of [MAP.PRIVATE, MAP.SHARED]) {
        const hva = anonymous(s, flags);
        calls.writeMemory(hva, Uint8Array.of(1));
        uffd.pagemapScan(hva, PAGES * pageSize, 0, 0, PAGE_IS.WRITTEN, 0, new Uint8Array(0));
        scan(hva, WP_MATCHING | CHECK_WPASYNC);
        scan(hva, 0);
        const fd = agreed(uffd, UFFD_FEATURE.WP_ASYNC, UFFD_FEATURE.WP_UNPOPULATED, UFFD_FEATURE.WP_HUGETLBFS_SHMEM);
        uffd.uffdRegister(fd, hva, PAGES * pageSize, WP);
        if (!has(uffd, UFFD_FEATURE.WP_ASYNC)) continue;
        scan(hva, CHECK_WPASYNC);
        scan(hva, WP_MATCHING | CHECK_WPASYNC);
        scan(hva, WP_MATCHING | CHECK_WPASYNC);
        calls.writeMemory(hva + pageSize, Uint8Array.of(1));
        calls.writeMemory(hva + 3 * pageSize, Uint8Array.of(0));
        calls.readMemory(hva, new Uint8Array(1));
        scan(hva, CHECK_WPASYNC);
        scan(hva, WP_MATCHING | CHECK_WPASYNC);
        scan(hva, WP_MATCHING | CHECK_WPASYNC);
        scan(hva, 4);
        scan(hva + 1, 0);
        scan(hva, 0, 0);
      }
    },
  },
];
