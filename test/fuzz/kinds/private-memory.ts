import { FALLOC, GUEST_MEMFD_FLAG, MAP, MEM, MEMORY_ATTRIBUTE_PRIVATE, PROT } from '../../../lib/uapi/flags.ts';
import { FILE_UNITS, GUEST_UNITS, type Kinds, MEMORY_UNITS, n, type Round, SLOTS } from './kind.ts';

const { MMAP, INIT_SHARED } = GUEST_MEMFD_FLAG;

const guestMemfd = ({ own }: Round): number => own.get('guest_memfd') ?? -1;

/** guest_memfd, what pages are by their attributes, and pages that are mapped before anybody asks for them. */
export const PRIVATE_MEMORY: Kinds = {
  guestMemfd: {
    weight: 6,
    make: (random) => [random.pick([FILE_UNITS, FILE_UNITS, 2, 0]), random.pick([0, 0, MMAP | INIT_SHARED, MMAP, 4])],
    apply: (round, o) => {
      const { s, vm, own } = round;
      const fd = s.calls.createGuestMemfd(vm, n(o, 0) * s.unit, n(o, 1));
      if (fd < 0) return;
      if (guestMemfd(round) >= 0) s.calls.close(guestMemfd(round));
      own.set('guest_memfd', fd);
    },
  },
  bound: {
    weight: 16,
    make: (random) => [
      random.below(SLOTS),
      random.pick([0, 0, 0, MEM.LOG_DIRTY_PAGES, MEM.READONLY]),
      random.below(GUEST_UNITS),
      random.pick([1, 2, 4, 8, 0]),
      random.below(3) * 4,
      random.pick([0, 0, 1, 4, FILE_UNITS]),
    ],
    apply: (round, o) => {
      const { s, vm, hva } = round;
      const [gpa, size, from] = [n(o, 2) * s.unit, n(o, 3) * s.unit, hva + n(o, 4) * s.unit];
      const flags = MEM.GUEST_MEMFD | n(o, 1);
      s.calls.setUserMemoryRegion2(vm, n(o, 0), flags, gpa, size, from, guestMemfd(round), n(o, 5) * s.unit);
    },
  },
  attributes: {
    weight: 14,
    make: (random) => [
      random.below(GUEST_UNITS),
      random.pick([1, 2, 8, 16, 0]),
      random.pick([0, MEMORY_ATTRIBUTE_PRIVATE, MEMORY_ATTRIBUTE_PRIVATE, 4]),
      random.oneIn(12) ? 1 : 0,
      random.oneIn(12) ? 1 : 0,
    ],
    apply: ({ s, vm }, o) => {
      s.calls.setMemoryAttributes(vm, n(o, 0) * s.unit + n(o, 3), n(o, 1) * s.unit, n(o, 2), n(o, 4));
    },
  },
  privateHole: {
    weight: 6,
    make: (random) => [
      random.pick([FALLOC.PUNCH_HOLE | FALLOC.KEEP_SIZE, FALLOC.KEEP_SIZE, 0, FALLOC.PUNCH_HOLE]),
      random.below(FILE_UNITS + 1),
      random.pick([1, 2, 0]),
      random.oneIn(12) ? 8 : 0,
    ],
    apply: (round, o) => {
      const { s } = round;
      s.calls.fallocate(guestMemfd(round), n(o, 0), n(o, 1) * s.unit, n(o, 2) * s.unit + n(o, 3));
    },
  },
  privateShown: {
    weight: 5,
    make: (random) => [random.below(MEMORY_UNITS), random.pick([1, 2, 4]), random.below(FILE_UNITS), random.below(2)],
    apply: (round, o) => {
      const { s, hva } = round;
      const flags = n(o, 3) === 0 ? MAP.SHARED : MAP.PRIVATE;
      const prot = PROT.READ | PROT.WRITE;
      s.calls.mmapFixed(hva + n(o, 0) * s.unit, n(o, 1) * s.unit, prot, flags, guestMemfd(round), n(o, 2) * s.unit);
    },
  },
  preFault: {
    weight: 6,
    make: (random) => [
      random.below(GUEST_UNITS),
      random.pick([1, 2, 4, 0]),
      random.pick([0, 0, 0, 1]),
      random.oneIn(12) ? 1 : 0,
    ],
    apply: ({ s, vcpu }, o) => {
      const range = BigUint64Array.of(BigInt(n(o, 0) * s.unit + n(o, 3)), BigInt(n(o, 1) * s.unit));
      s.calls.preFaultMemory(vcpu, range, n(o, 2));
    },
  },
};
