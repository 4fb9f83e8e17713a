import { MEMOP, MEMOP_FLAG } from '../../../lib/uapi/flags.ts';
import { GUEST_UNITS, type Kinds, list, n } from './kind.ts';

const GUEST_BYTES = GUEST_UNITS * 0x10_0000;

export const S390X: Kinds = {
  absolute: {
    weight: 25,
    make: (random) => [
      random.pick([MEMOP.ABSOLUTE_READ, MEMOP.ABSOLUTE_WRITE, MEMOP.ABSOLUTE_WRITE, 7]),
      random.below(GUEST_UNITS) * 0x10_0000 + random.pick([0, 0, 4090, 0xf_fffa, random.below(0x10_0000)]),
      random.pick([0, 1, 8, 16, 4096, 70_000]),
      random.pick([0, MEMOP_FLAG.CHECK_ONLY, MEMOP_FLAG.SKEY, MEMOP_FLAG.SKEY | MEMOP_FLAG.CHECK_ONLY, 8]),
      random.below(17),
      random.bytes(8),
    ],
    apply: ({ s, vm }, o) => {
      const size = n(o, 2);
      const buffer = new Uint8Array(size);
      for (let i = 0; i < size; i++) buffer[i] = list(o, 5)[i % 8]!;
      // The lab's processor doesn't enforce keys when data moves, so only what the kernel checks itself has one.
      const key = (n(o, 3) & MEMOP_FLAG.CHECK_ONLY) !== 0 || n(o, 4) > 15 ? n(o, 4) : 0;
      s.calls.s390x!.memOp(vm, n(o, 0), n(o, 1), size, n(o, 3), buffer, 0, key, null, 0);
    },
  },
  exchange: {
    weight: 6,
    make: (random) => [
      random.below(GUEST_UNITS) * 0x10_0000 + random.below(64),
      random.pick([1, 2, 4, 8, 16, 3]),
      random.below(2),
      random.pick([0, MEMOP_FLAG.SKEY, MEMOP_FLAG.SKEY, MEMOP_FLAG.SKEY | MEMOP_FLAG.CHECK_ONLY]),
    ],
    apply: ({ s, vm }, o) => {
      const size = n(o, 1);
      const value = new Uint8Array(size).fill(n(o, 2) + 1);
      const old = new Uint8Array(size).fill(n(o, 2));
      s.calls.s390x!.memOp(vm, MEMOP.ABSOLUTE_CMPXCHG, n(o, 0), size, n(o, 3), value, 0, 0, old, 0);
    },
  },
  logical: {
    weight: 15,
    make: (random) => [
      random.pick([MEMOP.LOGICAL_READ, MEMOP.LOGICAL_WRITE]),
      // A new vCPU has DAT off and 24-bit addresses.
      random.below(Math.min(GUEST_BYTES, 0x200_0000)),
      random.pick([1, 8, 4096, 9000]),
      random.pick([0, MEMOP_FLAG.CHECK_ONLY, MEMOP_FLAG.SKEY | MEMOP_FLAG.CHECK_ONLY]),
      random.below(16),
      random.below(17),
    ],
    apply: ({ s, vcpu }, o) => {
      const buffer = new Uint8Array(n(o, 2)).fill(n(o, 4));
      s.calls.s390x!.memOp(vcpu, n(o, 0), n(o, 1), n(o, 2), n(o, 3), buffer, n(o, 5), n(o, 4), null, 0);
    },
  },
  getKeys: {
    weight: 8,
    make: (random) => [random.below(GUEST_UNITS * 256), random.pick([0, 1, 4, 300])],
    apply: ({ s, vm }, o) => {
      s.calls.s390x!.getSkeys(vm, n(o, 0), n(o, 1), 0, new Uint8Array(n(o, 1)));
    },
  },
  setKeys: {
    weight: 12,
    make: (random) => {
      const count = random.pick([1, 2, 16]);
      const keys = Array.from({ length: count }, () => random.below(128) << 1);
      if (random.oneIn(10)) keys[count - 1] = 1;
      return [random.below(GUEST_UNITS * 256), keys];
    },
    apply: ({ s, vm }, o) => {
      const keys = Uint8Array.from(list(o, 1));
      s.calls.s390x!.setSkeys(vm, n(o, 0), keys.length, 0, keys);
    },
  },
};
