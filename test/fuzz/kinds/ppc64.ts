import { GUEST_UNITS, type Kinds, n } from './kind.ts';

/** HPTEs of 4K pages with their bits put together from what a table may hold; one chunk per write. */
export const PPC64: Kinds = {
  htabWrite: {
    weight: 20,
    make: (random) => [
      random.pick([0, 8, 16, random.below(0x4000), 0x3ff8, 0x3ffe, 0x4000, 0xffff_ffff]),
      random.below(4),
      random.below(3),
      random.below(GUEST_UNITS),
      random.pick([0x11, 0x11, 0x01, 0x13, 0x10]),
    ],
    apply: ({ s, vm }, o) => {
      const fd = s.calls.ppc64!.getHtabFd(vm, 2, 0);
      const valid = n(o, 1);
      const chunk = new DataView(new ArrayBuffer(8 + 16 * valid));
      chunk.setUint32(0, n(o, 0), true);
      chunk.setUint16(4, valid, true);
      chunk.setUint16(6, n(o, 2), true);
      for (let i = 0; i < valid; i++) {
        chunk.setBigUint64(8 + 16 * i, 0x4000_0000_0000_0000n | (BigInt(n(o, 0) + i) << 12n) | BigInt(n(o, 4)), false);
        chunk.setBigUint64(16 + 16 * i, (BigInt(n(o, 3)) << 12n) | 0x196n, false);
      }
      s.calls.write(fd, new Uint8Array(chunk.buffer));
      s.calls.close(fd);
    },
  },
  /** Less than a header is no chunk; a header without entries is one that does nothing. */
  htabHeader: {
    weight: 4,
    make: (random) => [random.pick([0, 1, 7, 8, 8]), random.pick([0, 0x3fff, 0x4000, 0x4001, 0xffff_ffff])],
    apply: ({ s, vm }, o) => {
      const fd = s.calls.ppc64!.getHtabFd(vm, 2, 0);
      const header = new DataView(new ArrayBuffer(8));
      header.setUint32(0, n(o, 1), true);
      s.calls.write(fd, new Uint8Array(header.buffer, 0, n(o, 0)));
      s.calls.close(fd);
    },
  },
  htabRead: {
    weight: 12,
    make: (random) => [random.pick([0, 1]), random.pick([0, 0, 8, 0x4000]), random.pick([24, 25, 64, 4096])],
    apply: ({ s, vm }, o) => {
      const fd = s.calls.ppc64!.getHtabFd(vm, n(o, 0), n(o, 1));
      for (let pass = 0; pass < 3; pass++) s.calls.read(fd, new Uint8Array(n(o, 2)));
      s.calls.close(fd);
    },
  },
  allocate: {
    weight: 3,
    // Order 0 oopses known kernels; 28 and more is too much for small hosts.
    make: (random) => [random.pick([17, 18, 19, 18, 47])],
    apply: ({ s, vm }, o) => {
      s.calls.ppc64!.allocateHtab(vm, n(o, 0));
    },
  },
};
