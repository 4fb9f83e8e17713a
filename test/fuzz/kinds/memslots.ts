import { CAP } from '../../../lib/uapi/capabilities.ts';
import { IOEVENTFD, MEM } from '../../../lib/uapi/flags.ts';
import { GUEST_UNITS, IO_OFFSET, type Kinds, list, n, SLOTS } from './kind.ts';

/** Slots, their dirty logs, and what is registered at guest addresses. */
export const MEMSLOTS: Kinds = {
  slot: {
    weight: 30,
    make: (random) => [
      random.below(SLOTS),
      random.pick([0, MEM.LOG_DIRTY_PAGES, MEM.LOG_DIRTY_PAGES, MEM.READONLY, 8]),
      random.below(GUEST_UNITS),
      random.pick([0, 1, 2, 4, 4, 8]),
      // Every slot lies inside the memory: what lies behind it is another mapping, or nothing.
      random.below(3) * 4,
      // One in sixteen is off by less than a unit.
      random.oneIn(16) ? 0x800 : 0,
    ],
    apply: ({ s, vm, hva }, o) => {
      const { unit } = s;
      const flags = n(o, 1);
      s.calls.setUserMemoryRegion(vm, n(o, 0), flags, n(o, 2) * unit + n(o, 5), n(o, 3) * unit, hva + n(o, 4) * unit);
    },
  },
  region2: {
    weight: 8,
    make: (random) => [
      random.below(SLOTS),
      random.pick([0, MEM.LOG_DIRTY_PAGES, MEM.READONLY, 8]),
      random.below(GUEST_UNITS),
      random.pick([0, 1, 4]),
      random.below(3) * 4,
    ],
    apply: ({ s, vm, hva }, o) => {
      const [gpa, size, from] = [n(o, 2) * s.unit, n(o, 3) * s.unit, hva + n(o, 4) * s.unit];
      // Without MEM.GUEST_MEMFD the last two mean nothing, whatever they are.
      s.calls.setUserMemoryRegion2(vm, n(o, 0), n(o, 1), gpa, size, from, 0xffff_ffff, 1);
    },
  },
  move: {
    weight: 10,
    make: (random) => [
      random.below(SLOTS),
      random.below(GUEST_UNITS),
      random.below(GUEST_UNITS),
      random.pick([MEM.LOG_DIRTY_PAGES, MEM.LOG_DIRTY_PAGES, 0]),
      random.pick([MEM.LOG_DIRTY_PAGES, MEM.LOG_DIRTY_PAGES, 0, MEM.READONLY]),
    ],
    apply: ({ s, vm, hva }, o) => {
      for (const [gpa, flags] of [
        [n(o, 1), n(o, 3)],
        [n(o, 2), n(o, 4)],
      ] as const) {
        s.calls.setUserMemoryRegion(vm, n(o, 0), flags, gpa * s.unit, 4 * s.unit, hva);
      }
    },
  },
  enableCap: {
    weight: 3,
    // None of these is one that a VM of these architectures could be left different by.
    make: (random) => [random.pick([CAP.READONLY_MEM, CAP.USER_MEMORY2, CAP.SYNC_MMU, 9999]), random.below(2)],
    apply: ({ s, vm }, o) => {
      s.calls.enableCap(vm, n(o, 0), n(o, 1), [0]);
    },
  },
  ioeventfd: {
    weight: 6,
    make: (random) => [
      random.below(GUEST_UNITS),
      random.pick([0, 1, 2, 4, 4, 8, 3]),
      random.pick([0, 0, 0, IOEVENTFD.DATAMATCH, IOEVENTFD.DEASSIGN, 3, IOEVENTFD.PIO, 32]),
      random.below(3),
      random.oneIn(10) ? 1 : 0,
    ],
    apply: ({ s, vm, eventfd }, o) => {
      const fd = n(o, 4) === 1 ? -1 : eventfd;
      s.calls.ioeventfd(vm, n(o, 0) * s.unit + IO_OFFSET, n(o, 1), fd, n(o, 2), n(o, 3));
    },
  },
  events: {
    weight: 3,
    make: () => [],
    apply: ({ s, eventfd }) => {
      s.calls.read(eventfd, new Uint8Array(8));
    },
  },
  delete: {
    weight: 10,
    make: (random) => [random.below(SLOTS)],
    apply: ({ s, vm }, o) => {
      s.calls.setUserMemoryRegion(vm, n(o, 0), 0, 0, 0, 0);
    },
  },
  log: {
    weight: 20,
    make: (random) => [random.below(SLOTS), random.oneIn(12) ? 7 : 0],
    apply: ({ s, vm }, o) => {
      // Room for the largest slot, so that only some buffers are too short.
      const bytes = Math.ceil((8 * s.unit) / s.calls.pageSize / 64) * 8;
      s.calls.getDirtyLog(vm, n(o, 0), new Uint8Array(n(o, 1) === 0 ? bytes : n(o, 1)));
    },
  },
  clear: {
    weight: 8,
    make: (random) => [
      random.below(SLOTS),
      random.pick([0, 0, 64, 1]),
      random.pick([1, 2, 4, 8, 64, 3]),
      random.bytes(8),
    ],
    apply: ({ s, vm }, o) => {
      s.calls.clearDirtyLog(vm, n(o, 0), n(o, 1), n(o, 2), Uint8Array.from(list(o, 3)));
    },
  },
};

/** Where dirty logs can be cleared by the page. */
export const MANUAL_PROTECT: Kinds = {
  manual: {
    weight: 2,
    make: (random) => [random.pick([0, 1, 2, 3])],
    apply: ({ s, vm }, o) => {
      s.calls.enableCap(vm, CAP.MANUAL_DIRTY_LOG_PROTECT2, 0, [n(o, 0)]);
    },
  },
};
