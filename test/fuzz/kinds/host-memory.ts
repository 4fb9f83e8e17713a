import { MADV, MAP, PROT } from '../../../lib/uapi/flags.ts';
import type { Random } from '../random.ts';
import { FILE_UNITS, type Kinds, list, MEMORY_UNITS, n, type Operation } from './kind.ts';

/** The process's own mappings behind the slots. */
export const HOST_MEMORY: Kinds = {
  protect: {
    weight: 2,
    make: (random) => [random.below(MEMORY_UNITS), random.pick([PROT.NONE, PROT.READ, PROT.READ | PROT.WRITE])],
    apply: ({ s, hva }, o) => {
      s.calls.mprotect(hva + n(o, 0) * s.unit, s.unit, n(o, 1));
    },
  },
  piece: {
    weight: 6,
    make: (random) => [
      random.below(MEMORY_UNITS),
      random.pick([1, 1, 1, 2, 4]),
      random.pick([MAP.PRIVATE, MAP.SHARED]),
      random.pick([PROT.READ | PROT.WRITE, PROT.READ | PROT.WRITE, PROT.READ, PROT.NONE]),
      random.below(2),
    ],
    apply: ({ s, hva }, o) => {
      const length = n(o, 1) * s.unit;
      const place = hva + n(o, 0) * s.unit;
      const memfd = n(o, 4) === 0 ? -1 : s.calls.memfdCreate('piece', length, 0);
      const flags = memfd === -1 ? n(o, 2) | MAP.ANONYMOUS | MAP.NORESERVE : n(o, 2);
      s.calls.mmapFixed(place, length, n(o, 3), flags, memfd, 0);
      if (memfd !== -1) s.calls.close(memfd);
    },
  },
  write: {
    weight: 8,
    make: (random) => [random.below(MEMORY_UNITS), random.below(4096), random.bytes(1 + random.below(8))],
    apply: ({ s, hva }, o) => {
      s.calls.writeMemory(hva + n(o, 0) * s.unit + n(o, 1), Uint8Array.from(list(o, 2)));
    },
  },
  read: {
    weight: 8,
    make: (random) => [random.below(MEMORY_UNITS), random.below(4096)],
    apply: ({ s, hva }, o) => {
      s.calls.readMemory(hva + n(o, 0) * s.unit + n(o, 1), new Uint8Array(8));
    },
  },
  /** A part of the round's file, which others show as well. */
  shown: {
    weight: 5,
    make: (random) => [
      random.below(MEMORY_UNITS),
      random.pick([1, 1, 2, 4]),
      random.pick([MAP.PRIVATE, MAP.SHARED, MAP.SHARED]),
      random.pick([PROT.READ | PROT.WRITE, PROT.READ | PROT.WRITE, PROT.READ]),
      random.below(FILE_UNITS),
    ],
    apply: ({ s, hva, file }, o) => {
      s.calls.mmapFixed(hva + n(o, 0) * s.unit, n(o, 1) * s.unit, n(o, 3), n(o, 2), file, n(o, 4) * s.unit);
    },
  },
  advise: {
    weight: 6,
    make: (random) => [
      random.below(MEMORY_UNITS),
      random.pick([0, 1, 1, 2, 4]),
      random.pick([
        ...[MADV.DONTNEED, MADV.DONTNEED, MADV.REMOVE, MADV.REMOVE, MADV.POPULATE_READ, MADV.POPULATE_WRITE],
        ...[MADV.NORMAL, MADV.WILLNEED, 99],
      ]),
      random.oneIn(12) ? 1 : 0,
    ],
    apply: ({ s, hva }, o) => {
      s.calls.madvise(hva + n(o, 0) * s.unit + n(o, 3), n(o, 1) * s.unit, n(o, 2));
    },
  },
  /** Several pieces, each of which may cross into memory of another kind. */
  gather: {
    weight: 3,
    make: (random) => pieces(random),
    apply: ({ s, hva }, o) => {
      const { hvas, lengths, total } = asPieces(o, hva, s.unit);
      s.calls.gather(hvas, lengths, new Uint8Array(total));
    },
  },
  scatter: {
    weight: 3,
    make: (random) => pieces(random),
    apply: ({ s, hva }, o) => {
      const { hvas, lengths, total } = asPieces(o, hva, s.unit);
      s.calls.scatter(hvas, lengths, new Uint8Array(total).fill(0x5a));
    },
  },
};

/** Units, offsets before or behind their beginning, and lengths. */
function pieces(random: Random): Operation['operands'] {
  const count = 1 + random.below(3);
  const each = (below: number): number[] => Array.from({ length: count }, () => random.below(below));
  return [each(MEMORY_UNITS), each(8), each(12)];
}

function asPieces(o: Operation['operands'], hva: number, unit: number) {
  const offsets = list(o, 1);
  const lengths = Uint32Array.from(list(o, 2));
  // None before the first unit: what is there is another mapping, or nothing.
  const hvas = Float64Array.from(list(o, 0), (at, i) => hva + at * unit + (at === 0 ? 0 : offsets[i]! - 4));
  return { hvas, lengths, total: lengths.reduce((sum, length) => sum + length, 0) };
}
