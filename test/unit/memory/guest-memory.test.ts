import { describe, expect, it } from 'vitest';
import { GuestMemory, type HostMemory, Kvm, type MemoryLookup, RangeTable } from '../../../lib/index.ts';
import { WrittenPages } from '../../../lib/memory/written-pages.ts';
import { EmulatedKernel, ERRNO } from '../../../lib/raw.ts';

const UNIT = 0x10_0000;

type Part = { start: number; end: number; size: number; offset: number; mapping: HostMemory };

const part = (start: number, size: number, mapping: HostMemory): Part => ({
  start,
  end: start + size,
  size,
  offset: 0,
  mapping,
});

it('reads and writes wherever a lookup finds memory, with no map to manage and no KVM behind it', () => {
  const bytes = new Uint8Array(64);
  const copied: HostMemory = {
    hva: 0x1000,
    window: () => undefined,
    read: (offset, into) => {
      into.set(bytes.subarray(offset, offset + into.length));
      return into.length;
    },
    write: (offset, from) => {
      bytes.set(from, offset);
      return from.length;
    },
    whyNot: () => 'it is far away',
  };
  const ranges = new RangeTable<Part>();
  ranges.insert(part(0x5000, 64, copied));
  const memory = new GuestMemory({ ranges, describe: () => 'nothing here' }, { littleEndian: false, pageSize: 4096 });
  memory.writeU32(0x5004, 0x0102_0304);
  expect([...bytes.subarray(4, 8)]).toEqual([1, 2, 3, 4]);
  expect(memory.readU16(0x5005)).toBe(0x0203);
  expect(memory.translate(0x5010)).toMatchObject({ offset: 0x10, hva: 0x1010, fd: -1, available: 48 });
  expect(memory.gpasOf(0x1010)).toEqual([0x5010]);
  expect([0xfff, 0x1000, 0x103f, 0x1040].map((hva) => memory.gpasOf(hva))).toEqual([[], [0x5000], [0x503f], []]);
  expect(() => memory.readU8(0x5040)).toThrow(expect.objectContaining({ code: 'EFAULT' }));
  expect(() => memory.readU8(0x5040)).toThrow(/nothing here/);
});

it('two can look at one map, and each forgets where it was when that changes', () => {
  using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
  const [one, other] = [kvm.mapAnonymous(UNIT), kvm.mapAnonymous(UNIT)];
  const ranges = new RangeTable<Part>();
  const lookup: MemoryLookup<Part> = { ranges, describe: () => 'nothing' };
  const [a, b] = [1, 2].map(() => new GuestMemory(lookup, { littleEndian: true, pageSize: 4096 })) as [
    GuestMemory<Part>,
    GuestMemory<Part>,
  ];
  const first = part(0, UNIT, one);
  ranges.insert(first);
  a.writeU8(7, 1);
  expect(b.readU8(7)).toBe(1);
  ranges.remove(first);
  ranges.insert(part(0, UNIT, other));
  for (const memory of [a, b]) memory.dropViews();
  expect([a.readU8(7), b.readU8(7)]).toEqual([0, 0]);
});

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

  it('ends where the region does, whose mapping goes on', () => {
    using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
    const ranges = new RangeTable<Part>();
    const mapping = kvm.mapAnonymous(UNIT);
    ranges.insert({ ...part(UNIT, UNIT / 2, mapping), offset: UNIT / 4 });
    const memory = new GuestMemory({ ranges, describe: () => 'nothing here' }, { littleEndian: true, pageSize: 4096 });
    for (let round = 0; round < 2; round++) {
      memory.writeU8(UNIT + UNIT / 2 - 1, 7);
      memory.writeU8(UNIT, 8);
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
});

describe('what is written', () => {
  /** Notes what it is told. */
  class Told extends WrittenPages {
    override readonly announces = true;
    told: unknown[] = [];
    override announce(): void {
      this.told.push('announced');
    }
    override mark(gpa: number | bigint, length: number): void {
      this.told.push([Number(gpa), length]);
    }
  }

  it('is announced before and marked after, once, by all that writes; and nothing by what reads', () => {
    using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
    const ranges = new RangeTable<Part>();
    ranges.insert(part(0, UNIT, kvm.mapAnonymous(UNIT)));
    const written = new Told(4096);
    written.on = true;
    const memory = new GuestMemory({ ranges, describe: () => '' }, { littleEndian: true, pageSize: 4096, written });
    const toldBy = (call: () => unknown): unknown[] => {
      written.told = [];
      call();
      return written.told;
    };
    expect(toldBy(() => memory.atomicStore(8, 4, 1))).toEqual(['announced', [8, 4]]);
    expect(toldBy(() => memory.compareExchange(8, 4, 1, 2))).toEqual(['announced', [8, 4]]);
    expect(toldBy(() => memory.compareExchange(8, 4, 1, 2))).toEqual(['announced']);
    expect(toldBy(() => memory.writeU16(6, 1))).toEqual(['announced', [6, 2]]);
    expect(toldBy(() => memory.write(5, new Uint8Array(100)))).toEqual(['announced', [5, 100]]);
    expect(toldBy(() => memory.fill(5, 7, 1))).toEqual(['announced', [5, 7]]);
    expect(toldBy(() => memory.copy(64, 0, 9))).toEqual(['announced', [64, 9]]);
    for (const list of [[0, 64], Float64Array.of(0, 64)])
      expect(toldBy(() => memory.scatter(list, 8, new Uint8Array(16)))).toEqual([
        'announced',
        [0, 8],
        'announced',
        [64, 8],
      ]);
    expect(
      toldBy(() => {
        memory.atomicLoad(8, 4);
        memory.readU32(8);
        memory.read(8, 4);
        memory.gather([0, 64], 8, new Uint8Array(16));
        memory.translate(8);
      }),
    ).toEqual([]);
  });
});

it('what is longer than any array is written up to where memory ends', () => {
  using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
  using space = kvm.createAddressSpace();
  space.addRam(0, kvm.mapAnonymous(UNIT));
  const failed = expect.objectContaining({ code: 'EFAULT', syscall: 'write', gpa: UNIT });
  expect(() => space.fill(UNIT - 70_000, 2 ** 50, 7)).toThrow(failed);
  expect([space.readU8(UNIT - 70_001), space.readU8(UNIT - 70_000), space.readU8(UNIT - 1)]).toEqual([0, 7, 7]);
  expect(() => space.copy(8, 0, 2 ** 50)).toThrow(expect.objectContaining({ code: 'EFAULT' }));
  expect(() => space.writeExact(UNIT - 2, new Uint8Array(5))).toThrow(failed);
  expect(() => space.writeExact(UNIT - 2, new Uint8Array(5))).toThrow(
    expect.objectContaining({ size: 3, explanation: expect.stringContaining('2 of 5 bytes are done') }),
  );
});

describe('a copy', () => {
  it.each([
    ['where nothing is', 2 * UNIT, UNIT],
    ['that ends where nothing is', UNIT - 4, UNIT],
  ])('of memory %s is refused, and leaves the target as it was behind what could be copied', (_, from, missing) => {
    using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
    using space = kvm.createAddressSpace();
    space.addRam(0, kvm.mapAnonymous(UNIT));
    space.fill(0, 64, 5);
    space.fill(UNIT - 64, 64, 9);
    const failed = expect.objectContaining({ code: 'EFAULT', syscall: 'read', gpa: Math.max(from, missing) });
    expect(() => space.copy(16, from, 8)).toThrow(failed);
    expect([...space.read(0, 64)].every((byte) => byte === 5)).toBe(true);
    expect(() => space.copy(from, 16, 8)).toThrow(expect.objectContaining({ code: 'EFAULT', syscall: 'write' }));
  });

  it('comes from where it is asked to, and goes there, over the seam of two regions too', () => {
    using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
    using space = kvm.createAddressSpace();
    for (const gpa of [0, UNIT]) space.addRam(gpa, kvm.mapAnonymous(UNIT));
    const bytes = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8);
    for (const [to, from] of [
      [0, 64],
      [64, 0],
      [16, UNIT - 3],
      [UNIT - 3, 16],
      [UNIT + 16, UNIT - 3],
      [UNIT, UNIT - 3],
      [UNIT - 6, UNIT - 3],
      [UNIT - 3, UNIT - 6],
      [0, UNIT],
      [UNIT, 0],
    ] as const) {
      space.write(from, bytes);
      space.copy(to, from, 8);
      expect([...space.read(to, 8)], `${from} to ${to}`).toEqual([...bytes]);
    }
  });
});

it('an array that was detached is refused by all that would fill it, or take bytes from it', () => {
  using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
  using space = kvm.createAddressSpace();
  space.addRam(0, kvm.mapAnonymous(UNIT));
  const bytes = new Uint8Array(8);
  structuredClone(bytes, { transfer: [bytes.buffer] });
  const refused = /a Uint8Array whose memory is still there/;
  for (const gpa of [0, 8, UNIT]) {
    expect(() => space.read(gpa, bytes)).toThrow(refused);
    expect(() => space.readExact(gpa, bytes)).toThrow(refused);
    expect(() => space.write(gpa, bytes)).toThrow(refused);
    expect(() => space.writeExact(gpa, bytes)).toThrow(refused);
  }
  expect(() => space.gather([], 8, bytes)).toThrow(refused);
  expect(() => space.scatter([], 8, bytes)).toThrow(refused);
});

it('pieces are each where their address says, in windows of two regions by turns, however many', () => {
  using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
  const space = kvm.createAddressSpace();
  space.addRam(0, kvm.mapAnonymous(UNIT));
  space.addRam(8 * UNIT, kvm.mapAnonymous(UNIT));
  const count = 2500;
  // One after the other in the first 1024, by turns then.
  const gpas = Float64Array.from({ length: count }, (_, i) => 8 * i + (i > 1024 && i % 2 === 1 ? 8 * UNIT : 0));
  for (const [i, gpa] of gpas.entries()) space.writeU32(gpa, i + 1);
  const into = new Uint8Array(4 * count);
  space.gather(gpas, 4, into);
  const got = new DataView(into.buffer);
  expect(Array.from({ length: count }, (_, i) => got.getUint32(4 * i, true))).toEqual(
    Array.from({ length: count }, (_, i) => i + 1),
  );
  space.close();
});

it('pieces go together, and what the kernel does not move of them is an error', () => {
  const kernel = new EmulatedKernel({ arch: 'x86_64' });
  using kvm = Kvm.open({ calls: kernel });
  using space = kvm.createAddressSpace();
  space.addRam(0, kvm.mapAnonymous(UNIT));
  const { gather, scatter } = kernel;
  const moved: number[] = [];
  let answer: number | undefined;
  kernel.gather = (hvas, lengths, into) => {
    moved.push(hvas.length);
    return answer ?? gather.call(kernel, hvas, lengths, into);
  };
  kernel.scatter = (hvas, lengths, from) => {
    moved.push(hvas.length);
    return answer ?? scatter.call(kernel, hvas, lengths, from);
  };
  const bytes = new Uint8Array(24);
  // The first byte of a region, too.
  for (const gpas of [[0, 64, 0], Float64Array.of(0, 64, 0)]) {
    space.gather(gpas, 8, bytes);
    space.scatter(gpas, 8, bytes);
  }
  expect(moved).toEqual([3, 3, 3, 3]);
  for (const [result, code] of [
    [-ERRNO.EFAULT, 'EFAULT'],
    [-ERRNO.ENOMEM, 'ENOMEM'],
    [2, 'EFAULT'],
  ] as const) {
    answer = result;
    expect(() => space.gather([0, 64, 128], 8, bytes)).toThrow(expect.objectContaining({ code, syscall: 'gather' }));
    expect(() => space.scatter([0, 64, 128], 8, bytes)).toThrow(expect.objectContaining({ code, syscall: 'scatter' }));
  }
});

it('pieces stay whose they are when a list gathers others while it is read', () => {
  using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
  using space = kvm.createAddressSpace();
  space.addRam(0, kvm.mapAnonymous(UNIT));
  for (let i = 0; i < 8; i++) space.writeU32(64 * i, i + 1);
  const inner = new Uint8Array(4);
  const gpas = Object.defineProperty([64, 0, 192], 1, {
    get: () => {
      space.gather([], 4, new Uint8Array(0));
      space.gather([320], 4, inner);
      return 128;
    },
  });
  const into = new Uint8Array(12);
  space.gather(gpas, 4, into);
  expect([...new Uint32Array(into.buffer)]).toEqual([2, 3, 4]);
  expect(inner[0]).toBe(6);
});

it('what is wrong is named: arguments, and the access that failed', () => {
  using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
  const space = kvm.createAddressSpace();
  space.addRam(0, kvm.mapAnonymous(UNIT));
  const options = { littleEndian: true, pageSize: 4096 };
  expect(() => new GuestMemory(5 as unknown as MemoryLookup<Part>, options)).toThrow('"lookup"');
  expect(() => space.readExact(UNIT - 4, 8)).toThrow(expect.objectContaining({ code: 'EFAULT', syscall: 'read' }));
  space.fill(0, 16, 0x41);
  expect(() => space.readCString(0, { maxLength: 16 })).toThrow(
    /"maxLength" .*enough to reach the NUL of the string at 0x0/,
  );
  expect(() => space.readCString(0, { encoding: 'rot13' as BufferEncoding })).toThrow(/an encoding that Buffer knows/);
  expect(() => new GuestMemory({} as unknown as MemoryLookup<Part>, options)).toThrow('"lookup.ranges"');
  // Whatever way they would go.
  for (const gpas of [[0, 8, 16], Float64Array.of(0, 8, 16)]) {
    const into = new Uint8Array(20);
    expect(() => space.gather(gpas, 8, into)).toThrow(
      /"lengths\[2\]" .*\[0, 4\], what is left of the array. Received 8/,
    );
  }
  for (const length of [-1, 1.5, Number.NaN]) {
    for (const gpas of [[0], Float64Array.of(0)])
      expect(() => space.gather(gpas, length, new Uint8Array(8))).toThrow(/"lengths\[0\]" .*an integer in/);
  }
  expect(() => space.gather(5 as never, 8, new Uint8Array(8))).toThrow(/"gpas" argument must be an array/);
  expect(() => space.scatter([0], 'x' as never, new Uint8Array(8))).toThrow(/"lengths" argument must be an array/);
  const lengths = ['4'] as unknown as number[];
  expect(() => space.gather([0], lengths, new Uint8Array(8))).toThrow(/"lengths\[0\]" .*a number/);
  space.close();
});
