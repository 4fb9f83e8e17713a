import { describe, expect, it } from 'vitest';
import { GuestMemory, type HostMemory, Kvm, type MemoryLookup, RangeTable } from '../../../lib/index.ts';
import { type Part, part } from './part.ts';

const UNIT = 0x10_0000;

/** Regions of a mapping each, apart; how often the table was searched, and memory asked for, since the last time. */
function counting(kvm: Kvm, count: number, size = UNIT) {
  const table = new RangeTable<Part>();
  let [searches, windows] = [0, 0];
  for (let i = 0; i < count; i++) {
    const mapping = kvm.mapAnonymous(size);
    const seen: HostMemory = {
      hva: mapping.hva,
      window: (index) => {
        windows++;
        return mapping.window(index);
      },
      read: (offset, into) => mapping.read(offset, into),
      write: (offset, from) => mapping.write(offset, from),
      whyNot: () => 'it may not be',
    };
    table.insert(part((i + 1) * 4 * UNIT, size, seen));
  }
  const ranges: MemoryLookup<Part>['ranges'] = {
    entries: table.entries,
    length: count,
    find: (at) => {
      searches++;
      return table.find(at);
    },
    indexOf: (at) => {
      searches++;
      return table.indexOf(at);
    },
    startAt: (index) => table.startAt(index),
    endAt: (index) => table.endAt(index),
  };
  const memory = new GuestMemory({ ranges, describe: () => 'nothing here' }, { littleEndian: true, pageSize: 4096 });
  const asked = (): [searches: number, windows: number] => {
    const now: [number, number] = [searches, windows];
    [searches, windows] = [0, 0];
    return now;
  };
  return { memory, asked, start: (region: number) => (region + 1) * 4 * UNIT };
}

describe('where an access was', () => {
  it('is remembered: nothing is searched for the next one in the same region', () => {
    using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
    const { memory, asked, start } = counting(kvm, 1);
    memory.writeU32(start(0) + 8, 7);
    expect(asked()).toEqual([1, 1]);
    for (const at of [start(0), start(0) + UNIT - 4, start(0) + 8]) memory.readU32(at);
    expect(memory.readU32(BigInt(start(0) + 8))).toBe(7);
    memory.gather(Float64Array.of(start(0), start(0) + 16), 8, new Uint8Array(16));
    expect(memory.read(start(0) + 8, new Uint8Array(64))).toBe(64);
    memory.atomicLoad(start(0), 4);
    expect(asked()).toEqual([0, 0]);
    memory.dropViews();
    memory.readU32(start(0));
    expect(asked()).toEqual([1, 1]);
    // Of memory that has no views of its own the window is one.
    expect([...memory.slice(start(0) + 8, 4)]).toEqual([7, 0, 0, 0]);
  });

  it('is what pieces have that come before one without memory, also when that one is what gives regions their places', () => {
    using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
    for (let seeks = 0; seeks < 8; seeks++) {
      const { memory, start } = counting(kvm, 4);
      memory.writeU32(start(3), 0x0403_0201);
      for (let i = 0; i < seeks; i++) memory.readU8(start(i % 4));
      const into = new Uint8Array(12);
      expect(() => memory.gather(Float64Array.of(start(3), start(3) + 2, start(0) + UNIT), 4, into)).toThrow(
        expect.objectContaining({ code: 'EFAULT', gpa: start(0) + UNIT }),
      );
      expect([...into.subarray(0, 6)]).toEqual([1, 2, 3, 4, 3, 4]);
    }
  });

  it('ends where the region does, whose mapping goes on', () => {
    using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
    const ranges = new RangeTable<Part>();
    const mapping = kvm.mapAnonymous(UNIT);
    ranges.insert({ ...part(UNIT, UNIT / 2, mapping), offset: UNIT / 4 });
    const memory = new GuestMemory({ ranges, describe: () => 'nothing here' }, { littleEndian: true, pageSize: 4096 });
    for (let round = 0; round < 2; round++) {
      memory.writeU8(UNIT + UNIT / 2 - 1, 6 + round);
      memory.writeU8(UNIT, 7 + round);
      expect([memory.readU8(UNIT + UNIT / 2 - 1), memory.readU8(UNIT)]).toEqual([6 + round, 7 + round]);
      for (const gpa of [UNIT - 1, UNIT + UNIT / 2])
        expect(() => memory.readU8(gpa)).toThrow(expect.objectContaining({ code: 'EFAULT' }));
      expect(() => memory.readU16(UNIT + UNIT / 2 - 1)).toThrow(expect.objectContaining({ code: 'EFAULT' }));
    }
    expect([mapping.view(0)![UNIT / 4], mapping.view(0)![(3 * UNIT) / 4 - 1]]).toEqual([8, 7]);
  });

  it('is one window of 1 GiB of a larger mapping', () => {
    using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
    const { memory, asked, start } = counting(kvm, 1, 2 ** 30 + UNIT);
    const second = start(0) + 2 ** 30;
    memory.writeU32(second + 8, 9);
    expect(asked()).toEqual([1, 1]);
    for (const at of [second, second + 8, second + UNIT - 4]) memory.readU32(at);
    expect(asked()).toEqual([0, 0]);
    expect([memory.readU32(start(0)), memory.readU32(second + 8)]).toEqual([0, 9]);
    expect(memory.translate(second + 8)?.offset).toBe(2 ** 30 + 8);
  });

  it('is looked for again where others change the map, before each kind of access', () => {
    using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
    const [one, other] = [kvm.mapAnonymous(UNIT), kvm.mapAnonymous(UNIT)];
    one.write(0, new Uint8Array(64).fill(1));
    other.write(0, new Uint8Array(64).fill(2));
    const ranges = new RangeTable<Part>();
    // There may have been changes before it.
    const generation = Int32Array.of(5);
    let refreshed = 0;
    let shown = part(0, UNIT, one);
    ranges.insert(shown);
    const memory = new GuestMemory(
      {
        ranges,
        describe: () => 'nothing here',
        remote: {
          generation,
          refresh: () => {
            refreshed++;
            ranges.remove(shown);
            shown = part(0, UNIT, shown.mapping === one ? other : one);
            ranges.insert(shown);
          },
        },
      },
      { littleEndian: true, pageSize: 4096 },
    );
    const into = new Uint8Array(8);
    const gathered = (gpas: ArrayLike<number>): number => {
      memory.gather(gpas, 4, into);
      return into[4]!;
    };
    const reads: readonly (() => number | undefined)[] = [
      () => memory.readU8(8),
      () => memory.read(8, 1)[0],
      () => gathered([0, 8]),
      () => gathered(Float64Array.of(0, 8)),
      () => memory.slice(8, 1)[0],
      () => memory.atomicLoad(8, 1),
      () => (memory.translate(8)!.region.mapping === one ? 1 : 2),
      () => {
        memory.read(8, into);
        return into[0];
      },
    ];
    let expected = 1;
    for (const [number, read] of reads.entries()) {
      expect([read(), refreshed], `${read}`).toEqual([expected, number]);
      generation[0]!++;
      expected = 3 - expected;
      expect([read(), read(), refreshed], `${read}`).toEqual([expected, expected, number + 1]);
    }
    for (const write of [() => memory.scatter(Float64Array.of(8), 1, Uint8Array.of(9)), () => memory.writeU8(8, 9)]) {
      generation[0]!++;
      write();
      generation[0]!++;
      expect(memory.readU8(8)).not.toBe(9);
    }
  });

  it('is the right part of each mapping, of regions that show the middle of one each', () => {
    using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
    const ranges = new RangeTable<Part>();
    const mappings = [1, 2, 3].map((i) => {
      const mapping = kvm.mapAnonymous(16 * UNIT);
      ranges.insert({ ...part(32 * UNIT * i, 8 * UNIT, mapping), offset: 4 * UNIT });
      return mapping;
    });
    const memory = new GuestMemory({ ranges, describe: () => 'nothing here' }, { littleEndian: true, pageSize: 4096 });
    for (let round = 1; round < 5; round++) {
      for (const [i, mapping] of mappings.entries()) {
        for (const at of [0, 5 * UNIT, 8 * UNIT - 4]) {
          const value = 0x0101_0101 * (16 * i + round);
          memory.writeU32(32 * UNIT * (i + 1) + at, value);
          expect(memory.readU32(32 * UNIT * (i + 1) + at)).toBe(value);
          expect([...mapping.view(0)!.subarray(4 * UNIT + at, 4 * UNIT + at + 4)]).toEqual(
            new Array(4).fill(16 * i + round),
          );
        }
      }
    }
  });

  it('is not needed for nothing, anywhere', () => {
    using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
    for (const touched of [0, 3]) {
      const { memory, start } = counting(kvm, 4);
      // Enough for regions to have places, of which only one was accessed.
      for (let i = 0; i < 4 * touched; i++) memory.readU8(start(i % 2));
      for (const gpa of [0, start(0), start(1), start(2), start(3), 100 * UNIT]) {
        expect(memory.read(gpa, new Uint8Array(0))).toBe(0);
        expect(memory.write(gpa, new Uint8Array(0))).toBe(0);
      }
    }
  });

  it('has no part of its window beside the region, for pieces that are looked for together either', () => {
    using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
    const ranges = new RangeTable<Part>();
    // Of each mapping the middle is shown, and less by each region.
    const regions = [8, 6, 4, 2].map((units, i) => {
      const mapping = kvm.mapAnonymous(16 * UNIT);
      return { ...part(32 * UNIT * (i + 1), units * UNIT, mapping), offset: 4 * UNIT };
    });
    for (const region of regions) ranges.insert(region);
    const memory = new GuestMemory({ ranges, describe: () => 'nothing here' }, { littleEndian: true, pageSize: 4096 });
    const refused = (at: number, after: number): void => {
      expect(() => memory.gather(Float64Array.of(after, at), 8, new Uint8Array(16)), String(at)).toThrow(
        expect.objectContaining({ code: 'EFAULT' }),
      );
      const into = new Uint8Array(24);
      memory.gather(Float64Array.of(after, after + 8, after), 8, into);
    };
    for (const order of [regions, regions.toReversed()]) {
      for (const { start, end } of order) {
        memory.dropViews();
        for (let round = 0; round < 8; round++) for (const region of order) if (round > 5) memory.readU8(region.start);
        for (const [at, after] of [
          [start - 8, start],
          [start - 4, start],
          [start - UNIT, start + 64],
          [end, end - 16],
          [end - 4, end - 16],
          [end + UNIT, start],
        ] as const) {
          memory.dropViews();
          refused(at, after);
          // Now each has a place of its own.
          for (let i = 0; i < 8; i++) memory.readU8(order[i % 4]!.start);
          refused(at, after);
        }
      }
    }
  });

  it('is of no matter to the next one, wherever that is', () => {
    using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
    const { memory, start } = counting(kvm, 5);
    const regions = [0, 1, 2, 3, 4];
    for (const region of regions) memory.writeU8(start(region) + 8, region + 1);
    const holes = [8, start(0) - 8, start(0) + UNIT, start(2) - 8, start(4) + UNIT, 2 ** 50];
    const byte = new Uint8Array(1);
    const gathered = (gpa: number): number => {
      memory.gather(Float64Array.of(gpa), 1, byte);
      return byte[0]!;
    };
    for (let round = 0; round < 3; round++) {
      for (const before of regions) {
        for (const region of regions) {
          memory.readU8(start(before));
          expect(gathered(start(region) + 8)).toBe(region + 1);
        }
        for (const hole of holes) {
          memory.readU8(start(before));
          expect(() => gathered(hole)).toThrow(expect.objectContaining({ code: 'EFAULT', gpa: hole }));
        }
      }
    }
  });

  it('is not said of an access that did nothing', () => {
    using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
    const { memory, start } = counting(kvm, 1);
    expect(() => memory.readU32(8)).toThrow(expect.objectContaining({ explanation: '0x8: nothing here' }));
    expect(() => memory.readU32(start(0) - 1)).toThrow(
      expect.objectContaining({ explanation: '0x3fffff: nothing here' }),
    );
    expect(() => memory.readU32(start(0) + UNIT - 1)).toThrow(
      expect.objectContaining({ explanation: '0x500000: nothing here (1 of 4 bytes are done)' }),
    );
    // Of no bytes nothing is missing, wherever that is.
    for (const gpa of [0, start(0), 2n ** 63n]) expect(memory.readExact(gpa, 0)).toHaveLength(0);
    memory.dropViews();
    expect(memory.readExact(0, 0)).toHaveLength(0);
  });

  it('is one place, until there were more accesses elsewhere than there are regions; then each has its own', () => {
    using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
    const { memory, asked, start } = counting(kvm, 4);
    for (const region of [0, 3, 0, 3]) memory.writeU8(start(region), region + 1);
    expect(asked()).toEqual([4, 4]);
    for (const region of [0, 1, 2, 3]) memory.readU8(start(region) + 1);
    // Each was searched for once more, and had its memory given.
    expect(asked()).toEqual([4, 4]);
    for (let i = 0; i < 50; i++) {
      for (const region of [3, 1, 0, 2]) {
        for (const offset of [0, 5, UNIT - 1]) memory.readU8(start(region) + offset);
      }
    }
    expect([memory.readU8(start(0)), memory.readU8(start(3))]).toEqual([1, 4]);
    expect(asked()).toEqual([0, 0]);
  });

  it.each([3, 5, 8, 13])('is found without a search in each of %i regions', (count) => {
    using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
    const { memory, asked, start } = counting(kvm, count);
    const readAll = (): void => {
      for (let region = 0; region < count; region++) {
        for (const offset of [0, 5, UNIT - 1]) memory.readU8(start(region) + offset);
      }
    };
    for (let round = 0; round < 3; round++) readAll();
    asked();
    readAll();
    expect(asked()).toEqual([0, 0]);
  });

  it('is none where no region is, before the first, between them and behind the last, with places and without', () => {
    using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
    const { memory, start } = counting(kvm, 4);
    const holes = [0, start(0) - 1, start(0) + UNIT, start(3) - 1, start(3) + UNIT, 2 ** 52, 2n ** 53n + 1n, 1n << 63n];
    for (let round = 0; round < 3; round++) {
      for (const hole of holes) {
        expect(() => memory.readU8(hole)).toThrow(expect.objectContaining({ code: 'EFAULT', size: 1 }));
        expect(memory.read(hole, new Uint8Array(0))).toBe(0);
        expect(() => memory.gather(Float64Array.of(start(1), Number(hole)), 1, new Uint8Array(2))).toThrow(
          /^EFAULT|"gpas\[1\]"/,
        );
      }
      for (const region of [0, 1, 2, 3]) memory.readU8(start(region));
    }
    expect(memory.read(0, new Uint8Array(0))).toBe(0);
    memory.dropViews();
    expect(memory.read(0, new Uint8Array(0))).toBe(0);
  });

  it('is never where another region begins or ends: what lies far into its mapping tells nothing of the next', () => {
    using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
    using space = kvm.createAddressSpace();
    const far = UNIT - 4096;
    for (let i = 0; i < 4; i++) {
      space.addRam(i * UNIT, kvm.mapAnonymous(UNIT), { offset: i % 2 === 0 ? far : 0, size: 4096 });
    }
    // Until each has a place.
    for (let i = 0; i < 40; i++) space.readU8((i % 4) * UNIT);
    for (const start of [0, UNIT, 2 * UNIT, 3 * UNIT]) {
      const missing = start + 8192;
      expect(() => space.gather(Float64Array.of(start, missing), 8, new Uint8Array(16))).toThrow(
        expect.objectContaining({ code: 'EFAULT', gpa: missing }),
      );
    }
  });

  it('is not known of a region at 0 that was not met since each has a place: of no bytes there, all are read', () => {
    using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
    using space = kvm.createAddressSpace();
    for (let i = 0; i < 4; i++) space.addRam(i * UNIT, kvm.mapAnonymous(4096));
    for (let i = 0; i < 40; i++) space.readU8((1 + (i % 3)) * UNIT);
    expect(space.read(0, new Uint8Array(0))).toBe(0);
    expect(space.readU8(0)).toBe(0);
  });
});
