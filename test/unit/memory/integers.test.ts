import { describe, expect, it } from 'vitest';
import { GuestMemory, type HostMemory, Kvm, type Mapping, RangeTable } from '../../../lib/index.ts';
import { PageSet } from '../../../lib/memory/page-set.ts';
import { WrittenPages } from '../../../lib/memory/written-pages.ts';

const PAGE = 4096;
const UNIT = 0x10_0000;
/** Where a mapping is seen from its first byte on, and alone. */
const WHOLE = 9 * UNIT;

type Part = { start: number; end: number; size: number; offset: number; mapping: HostMemory };
const part = (start: number, mapping: HostMemory, offset = 0, size = UNIT): Part => ({
  start,
  end: start + size,
  size,
  offset,
  mapping,
});

/** Memory that is copied only, as that of files and devices is. */
const copied = (mapping: Mapping): HostMemory => ({
  hva: mapping.hva,
  window: () => undefined,
  read: (offset, into) => mapping.read(offset, into),
  write: (offset, from) => mapping.write(offset, from),
  whyNot: () => 'it is far away',
});

/** Two mappings side by side that are seen directly, two that are copied, and one from its first byte on; what is written is noted in `pages`. */
function setUp(kvm: Kvm, littleEndian: boolean) {
  const mappings = [0, 1, 2, 3, 4].map(() => kvm.mapAnonymous(2 * UNIT));
  const ranges = new RangeTable<Part>();
  for (const [i, mapping] of mappings.entries()) {
    // From its second half on, so that offsets in the mapping are none in the region.
    if (i < 4) ranges.insert(part(UNIT * (i + 1), i < 2 ? mapping : copied(mapping), UNIT));
    else ranges.insert(part(WHOLE, mapping));
  }
  const written = new WrittenPages(PAGE);
  const pages = new PageSet();
  written.record(pages);
  const memory = new GuestMemory({ ranges, describe: () => 'nothing here' }, { littleEndian, pageSize: PAGE, written });
  /** The bytes from an address on, one by one from the mappings. */
  const bytesAt = (gpa: number, length: number): number[] =>
    Array.from({ length }, (_, i) => {
      const byte = new Uint8Array(1);
      if (gpa >= WHOLE) mappings[4]!.read(gpa - WHOLE + i, byte);
      else mappings[Math.floor((gpa + i) / UNIT) - 1]!.read(UNIT + ((gpa + i) % UNIT), byte);
      return byte[0]!;
    });
  const dirty = (): number[] => {
    const gfns: number[] = [];
    pages.forEach((gfn) => void gfns.push(gfn));
    pages.clear();
    return gfns.sort((a, b) => a - b);
  };
  return { memory, bytesAt, dirty };
}

/** Where `size` bytes can lie. */
const PLACES: readonly [what: string, at: (size: number) => number][] = [
  ['at the first byte', () => UNIT],
  ['inside', () => UNIT + 0x123],
  ['over the seam of two pages', (size) => UNIT + PAGE - Math.floor(size / 2)],
  ['at the last bytes', (size) => 2 * UNIT - size],
  ['over the seam of two mappings', (size) => 2 * UNIT - Math.ceil(size / 2)],
  ['over the seam to memory that is copied', (size) => 3 * UNIT - Math.ceil(size / 2)],
  ['at the first byte that is copied', () => 3 * UNIT],
  ['in memory that is copied', () => 3 * UNIT + 0x321],
  ['at the first byte of a mapping', () => WHOLE],
  ['over a seam in memory that is copied', (size) => 4 * UNIT - Math.ceil(size / 2)],
];

/** Values by their bytes, the most significant first. */
const BYTES = [0x81, 0x92, 0xa3, 0xb4, 0xc5, 0xd6, 0xe7, 0xf8];
const ACCESSES = [
  ['U8', 1, 0x81],
  ['I8', 1, 0x81 - 0x100],
  ['U16', 2, 0x8192],
  ['I16', 2, 0x8192 - 0x1_0000],
  ['U32', 4, 0x8192_a3b4],
  ['I32', 4, 0x8192_a3b4 - 2 ** 32],
  ['U64', 8, 0x8192_a3b4_c5d6_e7f8n],
  ['I64', 8, 0x8192_a3b4_c5d6_e7f8n - (1n << 64n)],
] as const;

type Access = Record<string, (gpa: number | bigint, ...rest: unknown[]) => unknown>;

describe.each(PLACES)('an integer %s', (_, place) => {
  it.each(ACCESSES)('%s is stored and loaded in both byte orders, and its pages are dirty', (name, size, value) => {
    using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
    for (const littleEndian of [true, false]) {
      const { memory, bytesAt, dirty } = setUp(kvm, littleEndian);
      const access = memory as unknown as Access;
      const gpa = place(size);
      const bigEndian = BYTES.slice(0, size);
      const given = [gpa, BigInt(gpa)];
      for (const at of given) {
        for (const order of [undefined, true, false]) {
          memory.fill(gpa - (gpa === UNIT || gpa === WHOLE ? 0 : 1), size + 1, 0);
          dirty();
          access[`write${name}`]!(at, value, ...(size === 1 || order === undefined ? [] : [order]));
          const expected = (order ?? littleEndian) ? [...bigEndian].reverse() : bigEndian;
          expect(bytesAt(gpa, size)).toEqual(expected);
          expect(dirty()).toEqual([...new Set([Math.floor(gpa / PAGE), Math.floor((gpa + size - 1) / PAGE)])]);
          expect(access[`read${name}`]!(at, ...(size === 1 || order === undefined ? [] : [order]))).toBe(value);
          // Another order, another value.
          if (size > 1) expect(access[`read${name}`]!(at, !(order ?? littleEndian))).not.toBe(value);
        }
      }
    }
  });

  it('a u64 is loaded as a number, and stored as one', () => {
    using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
    const { memory, bytesAt } = setUp(kvm, true);
    const gpa = place(8);
    for (const littleEndian of [true, false]) {
      const bigEndian = [0x00, 0x1f, 0xed, 0xcb, 0xa9, 0x87, 0x65, 0x43];
      memory.writeU64(gpa, 0x1f_edcb_a987_6543, littleEndian);
      expect(bytesAt(gpa, 8)).toEqual(littleEndian ? bigEndian.reverse() : bigEndian);
      expect(memory.readU64Number(gpa, littleEndian)).toBe(0x1f_edcb_a987_6543);
    }
  });

  it('bytes are read and written, few and many, and their pages are dirty', () => {
    using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
    const { memory, bytesAt, dirty } = setUp(kvm, true);
    for (const length of [1, 31, 32, 33, 100]) {
      const gpa = place(length);
      const bytes = Uint8Array.from({ length }, (_, i) => i + 1);
      dirty();
      expect(memory.write(gpa, bytes)).toBe(length);
      expect(dirty()).toEqual([...new Set([Math.floor(gpa / PAGE), Math.floor((gpa + length - 1) / PAGE)])]);
      expect(bytesAt(gpa, length)).toEqual([...bytes]);
      const into = new Uint8Array(length);
      expect(memory.read(gpa, into)).toBe(length);
      expect(into).toEqual(bytes);
      expect(memory.readExact(gpa, length)).toEqual(bytes);
    }
  });

  it('pieces are gathered and scattered among others', () => {
    using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
    const { memory, bytesAt, dirty } = setUp(kvm, true);
    const gpas = [UNIT + 0x8000, place(6), 2 * UNIT + 0x8000];
    for (const lengths of [6, [3, 6, 1]]) {
      const each = typeof lengths === 'number' ? [6, 6, 6] : lengths;
      const sum = each.reduce((a, b) => a + b);
      const bytes = Uint8Array.from({ length: sum }, (_, i) => 0x40 + i);
      for (const list of [gpas, Float64Array.from(gpas), gpas.map(BigInt)]) {
        for (const gpa of gpas) memory.fill(gpa, 6, 0);
        dirty();
        memory.scatter(list, lengths, bytes);
        const expected = gpas.flatMap((gpa, i) => [gpa, gpa + each[i]! - 1].map((at) => Math.floor(at / PAGE)));
        expect(dirty()).toEqual([...new Set(expected)].sort((a, b) => a - b));
        expect(gpas.flatMap((gpa, i) => bytesAt(gpa, each[i]!))).toEqual([...bytes]);
        const into = new Uint8Array(sum);
        memory.gather(list, lengths, into);
        expect(into).toEqual(bytes);
      }
    }
  });
});

describe('an integer that is not all in memory', () => {
  it.each(ACCESSES)(
    '%s has the first address without memory in its error, and how many bytes are done',
    (name, size, value) => {
      using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
      const { memory, dirty } = setUp(kvm, true);
      const access = memory as unknown as Access;
      dirty();
      for (const [gpa, done] of [[0, 0], [5 * UNIT, 0], ...(size > 1 ? [[5 * UNIT - 1, 1]] : [])] as [
        number,
        number,
      ][]) {
        const note = done === 0 ? 'nothing here' : `nothing here (${done} of ${size} bytes are done)`;
        const error = { code: 'EFAULT', gpa: gpa + done, size: size - done };
        const explanation = `0x${(gpa + done).toString(16)}: ${note}`;
        expect(() => access[`read${name}`]!(gpa)).toThrow(
          expect.objectContaining({ ...error, syscall: 'read', explanation }),
        );
        expect(() => access[`write${name}`]!(gpa, value)).toThrow(
          expect.objectContaining({ ...error, syscall: 'write', explanation }),
        );
      }
      // What isn't stored isn't dirty, and the byte that is, is.
      expect(dirty()).toEqual(size > 1 ? [(5 * UNIT) / kvm.pageSize - 1] : []);
    },
  );
});

describe('a range that is marked dirty', () => {
  it('has the pages of it that are asked for, and of a very large one those that have memory', () => {
    using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
    const { memory, dirty } = setUp(kvm, true);
    memory.markDirty(UNIT + PAGE - 1, 2);
    expect(dirty()).toEqual([UNIT / PAGE, UNIT / PAGE + 1]);
    memory.markDirty(UNIT + PAGE, 0);
    expect(dirty()).toEqual([]);
    const all = [1, 2, 3, 4, WHOLE / UNIT].flatMap((unit) =>
      Array.from({ length: UNIT / PAGE }, (_, i) => (unit * UNIT) / PAGE + i),
    );
    // More than a window of 1 GiB.
    memory.markDirty(0, 2 ** 40);
    expect(dirty()).toEqual(all);
    memory.markDirty(2 * UNIT + 5, 2 ** 40);
    expect(dirty()).toEqual(all.filter((gfn) => gfn >= (2 * UNIT) / PAGE));
    memory.markDirty(WHOLE + UNIT, 2 ** 40);
    expect(dirty()).toEqual([]);
    memory.markDirty(1n << 63n, 2 ** 40);
    expect(dirty()).toEqual([]);
  });

  it('ends where its last byte is, also when it is very large', () => {
    using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
    const ranges = new RangeTable<Part>();
    const high = 2 ** 31;
    ranges.insert(part(high, kvm.mapAnonymous(UNIT)));
    const written = new WrittenPages(PAGE);
    const memory = new GuestMemory({ ranges, describe: () => '' }, { littleEndian: true, pageSize: PAGE, written });
    for (const [end, count] of [
      [high, 0],
      [high + 1, 1],
      [high + PAGE, 1],
      [high + PAGE + 1, 2],
    ] as const) {
      for (const start of [high - 2 ** 30 - PAGE, high - 2 ** 30 - PAGE + 1, high - 2 ** 30 - 1]) {
        const pages = new PageSet();
        written.record(pages);
        memory.markDirty(start, end - start);
        written.forget(pages);
        const gfns: number[] = [];
        pages.forEach((gfn) => void gfns.push(gfn));
        expect(gfns).toEqual(Array.from({ length: count }, (_, i) => high / PAGE + i));
      }
    }
  });
});

describe('an atomic access', () => {
  it.each([1, 2, 4, 8] as const)(
    'of %i bytes is in the guest’s byte order, takes numbers and bigints, and is dirty',
    (size) => {
      using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
      for (const littleEndian of [true, false]) {
        const { memory, bytesAt, dirty } = setUp(kvm, littleEndian);
        const bytes = BYTES.slice(0, size);
        const wide = bytes.reduce((value, byte) => (value << 8n) | BigInt(byte), 0n);
        const value = size === 8 ? wide : Number(wide);
        const inOrder = littleEndian ? [...bytes].reverse() : bytes;
        for (const given of size === 8 ? [wide] : [wide, Number(wide)]) {
          // Among others, and the first of its mapping.
          for (const gpa of [UNIT + PAGE + 3 * size, WHOLE]) {
            memory.fill(gpa, 32);
            dirty();
            memory.atomicStore(gpa, size, given);
            expect(bytesAt(gpa, size)).toEqual(inOrder);
            expect(bytesAt(gpa + size, 1)).toEqual([0]);
            const frame = Math.floor(gpa / PAGE);
            expect(dirty()).toEqual([frame]);
            const load = memory.atomicLoad as (gpa: number, size: number) => number | bigint;
            expect(load.call(memory, gpa, size)).toBe(value);
            const exchange = memory.compareExchange as (...args: unknown[]) => number | bigint;
            expect(exchange.call(memory, gpa, size, 1, 2)).toBe(value);
            expect(dirty()).toEqual([]);
            expect(exchange.call(memory, gpa, size, given, 5)).toBe(value);
            expect(dirty()).toEqual([frame]);
            expect(load.call(memory, gpa, size)).toBe(size === 8 ? 5n : 5);
          }
        }
        if (size > 1) expect(() => memory.atomicStore(UNIT + 1, size, 0)).toThrow(new RegExp(`a multiple of ${size}`));
        const tooMuch = 2n ** BigInt(8 * size);
        expect(() => memory.atomicStore(UNIT, size, tooMuch)).toThrow('"value"');
        const exchange = memory.compareExchange as (...args: unknown[]) => unknown;
        expect(() => exchange.call(memory, UNIT, size, tooMuch, 0)).toThrow('"expected"');
        expect(() => exchange.call(memory, UNIT, size, 0, tooMuch)).toThrow('"replacement"');
      }
    },
  );
});
