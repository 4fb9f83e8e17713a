import { PAGE_IS, PM_SCAN, UFFD_FEATURE, UFFDIO_REGISTER_MODE } from '../../../lib/uapi/userfaultfd.ts';
import { type Kinds, MEMORY_UNITS, n, type Operation, type Round } from './kind.ts';

const { PAGEFAULT_FLAG_WP, MISSING_SHMEM, WP_HUGETLBFS_SHMEM, WP_UNPOPULATED, WP_ASYNC } = UFFD_FEATURE;
const { MISSING, WP } = UFFDIO_REGISTER_MODE;
const PROTECTING = PAGEFAULT_FLAG_WP | WP_HUGETLBFS_SHMEM;
/** Which userfaultfds a round may have. */
const UFFDS = 2;

const uffdOf = ({ own }: Round, o: Operation['operands']): number => own.get(`uffd ${n(o, 0)}`) ?? -1;

/** Two userfaultfds over the memory. Nobody else may touch it meanwhile: who meets a missing page in the kernel waits for ever. */
export const USERFAULTFD: Kinds = {
  uffd: {
    weight: 8,
    make: (random) => [
      random.below(UFFDS),
      random.pick([
        ...[0, MISSING_SHMEM, MISSING_SHMEM | PROTECTING, MISSING_SHMEM | PROTECTING],
        ...[MISSING_SHMEM | PROTECTING | WP_UNPOPULATED, PROTECTING | WP_UNPOPULATED | WP_ASYNC, WP_ASYNC],
      ]),
    ],
    apply: (round, o) => {
      const { uffd, close } = round.s.calls;
      if (uffd === undefined) return;
      const before = uffdOf(round, o);
      if (before >= 0) close.call(round.s.calls, before);
      const fd = uffd.userfaultfd(0);
      round.own.set(`uffd ${n(o, 0)}`, fd);
      uffd.uffdApi(fd, BigUint64Array.of(BigInt(n(o, 1)), 0n));
    },
  },
  register: {
    weight: 14,
    make: (random) => [
      random.below(UFFDS),
      random.below(MEMORY_UNITS),
      random.pick([1, 2, 4, 8, 0]),
      random.pick([MISSING, MISSING, WP, WP, MISSING | WP, 0, 16]),
    ],
    apply: (round, o) => {
      const { s, hva } = round;
      s.calls.uffd?.uffdRegister(uffdOf(round, o), hva + n(o, 1) * s.unit, n(o, 2) * s.unit, n(o, 3));
    },
  },
  unregister: {
    weight: 5,
    make: (random) => [random.below(UFFDS), random.below(MEMORY_UNITS), random.pick([1, 2, 4, 0])],
    apply: (round, o) => {
      const { s, hva } = round;
      s.calls.uffd?.uffdUnregister(uffdOf(round, o), hva + n(o, 1) * s.unit, n(o, 2) * s.unit);
    },
  },
  copy: {
    weight: 14,
    make: (random) => [
      random.below(UFFDS),
      random.below(MEMORY_UNITS),
      random.pick([1, 1, 2, 3]),
      random.pick([0, 0, 1, 2, 4]),
      random.below(256),
    ],
    apply: (round, o) => {
      const { s, hva } = round;
      const bytes = new Uint8Array(n(o, 2) * s.calls.pageSize).fill(n(o, 4));
      s.calls.uffd?.uffdCopy(uffdOf(round, o), hva + n(o, 1) * s.unit, bytes, n(o, 3));
    },
  },
  zeropage: {
    weight: 8,
    make: (random) => [
      random.below(UFFDS),
      random.below(MEMORY_UNITS),
      random.pick([1, 1, 2]),
      random.pick([0, 0, 1, 2]),
    ],
    apply: (round, o) => {
      const { s, hva } = round;
      s.calls.uffd?.uffdZeropage(uffdOf(round, o), hva + n(o, 1) * s.unit, n(o, 2) * s.calls.pageSize, n(o, 3));
    },
  },
  writeprotect: {
    weight: 12,
    make: (random) => [
      random.below(UFFDS),
      random.below(MEMORY_UNITS),
      random.pick([1, 1, 2, 4]),
      random.pick([1, 1, 0, 2, 3, 4]),
    ],
    apply: (round, o) => {
      const { s, hva } = round;
      s.calls.uffd?.uffdWriteprotect(uffdOf(round, o), hva + n(o, 1) * s.unit, n(o, 2) * s.unit, n(o, 3));
    },
  },
  wake: {
    weight: 2,
    make: (random) => [random.below(UFFDS), random.below(MEMORY_UNITS), random.pick([0, 1, 2])],
    apply: (round, o) => {
      const { s, hva } = round;
      s.calls.uffd?.uffdWake(uffdOf(round, o), hva + n(o, 1) * s.unit, n(o, 2) * s.unit);
    },
  },
  scan: {
    weight: 8,
    make: (random) => [
      random.below(MEMORY_UNITS),
      random.pick([1, 2, 4, 0]),
      random.pick([PM_SCAN.CHECK_WPASYNC, PM_SCAN.CHECK_WPASYNC | PM_SCAN.WP_MATCHING, PM_SCAN.WP_MATCHING, 4]),
    ],
    apply: ({ s, hva }, o) => {
      const [units, place] = [n(o, 1), hva + n(o, 0) * s.unit];
      const bitmap = new Uint8Array(Math.ceil((units * s.unit) / s.calls.pageSize / 8));
      // What the emulated kernel knows of pages is only this, and of those that nobody protects not whether their page table is there.
      s.calls.uffd?.pagemapScan(place, units * s.unit, n(o, 2), 0, PAGE_IS.WRITTEN, 0, bitmap);
    },
  },
};
