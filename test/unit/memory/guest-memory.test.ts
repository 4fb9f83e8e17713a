import { describe, expect, it } from 'vitest';
import { GuestMemory, type HostMemory, Kvm, type MemoryLookup, RangeTable } from '../../../lib/index.ts';
import { WrittenPages } from '../../../lib/memory/written-pages.ts';
import { type Part, part } from './part.ts';

const UNIT = 0x10_0000;

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
  // Neither the memory itself, since nobody shows it.
  for (const call of [() => memory.slice(0x5004, 4), () => memory.atomicLoad(0x5004, 4)]) {
    expect(call).toThrow(expect.objectContaining({ code: 'EACCES', gpa: 0x5004, size: 4 }));
  }
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
    // What is across the end is told as far as it was written.
    expect(toldBy(() => memory.write(UNIT - 4, new Uint8Array(10)))).toEqual(['announced', [UNIT - 4, 4]]);
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

it('a number of 64 bits is written as it is, and so is a bigint', () => {
  using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
  using space = kvm.createAddressSpace();
  space.addRam(0, kvm.mapAnonymous(UNIT));
  const values = [0, 1, 2 ** 32 - 1, 2 ** 32, 2 ** 32 + 5, 3 * 2 ** 40 + 0x89ab_cdef, 2 ** 52 + 1, 2 ** 53 - 1];
  for (const littleEndian of [true, false]) {
    for (const value of values) {
      space.writeU64(8, value, littleEndian);
      expect(space.readU64(8, littleEndian)).toBe(BigInt(value));
      space.writeU64(UNIT - 8, BigInt(value), littleEndian);
      expect(space.readU64Number(UNIT - 8, littleEndian)).toBe(value);
      space.writeI64(16, -value, littleEndian);
      expect(space.readI64(16, littleEndian)).toBe(-BigInt(value));
    }
  }
});

it('a number of 64 bits that is none exactly is read as a bigint, which the error says', () => {
  using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
  using space = kvm.createAddressSpace();
  space.addRam(0, kvm.mapAnonymous(UNIT));
  for (const value of [2n ** 53n, 2n ** 64n - 1n]) {
    space.writeU64(8, value);
    expect(() => space.readU64Number(8)).toThrow(
      expect.objectContaining({
        code: 'ERR_OUT_OF_RANGE',
        message: `The value of "value" is out of range. It must be below 2^53 (readU64 reads every value). Received ${value}`,
      }),
    );
  }
});

it('what is filled ends where it is asked to, however long it is', () => {
  using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
  using space = kvm.createAddressSpace();
  space.addRam(0, kvm.mapAnonymous(UNIT));
  for (const length of [0, 1, 0xffff, 0x1_0000, 0x1_0001, 0x1_000a, 0x2_0000, 0x2_0001]) {
    space.fill(0, 0x4_0000);
    space.fill(3, length, 7);
    const bytes = space.read(0, 0x4_0000);
    expect([bytes.indexOf(7), bytes.lastIndexOf(7)], String(length)).toEqual(length === 0 ? [-1, -1] : [3, length + 2]);
    expect(bytes.subarray(3, 3 + length).every((byte) => byte === 7)).toBe(true);
  }
});

it('a string without an end is one of memory that ends, or of too many bytes', () => {
  using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
  using space = kvm.createAddressSpace();
  space.addRam(0, kvm.mapAnonymous(UNIT));
  space.fill(UNIT - 8, 8, 0x41);
  expect(() => space.readCString(UNIT - 8)).toThrow(
    expect.objectContaining({ code: 'EFAULT', syscall: 'read', gpa: UNIT, size: 4088 }),
  );
  expect(() => space.readCString(UNIT - 8, { maxLength: 8 })).toThrow(/"maxLength"/);
  space.writeU8(UNIT - 1, 0);
  expect(space.readCString(UNIT - 8)).toBe('AAAAAAA');
  // One of no bytes has its end as well.
  expect(space.readCString(UNIT - 1)).toBe('');
  expect(space.readCString(0)).toBe('');
});

it('of an array that goes while memory is made ready nothing is written, and nothing is read into it', () => {
  using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
  const ranges = new RangeTable<Part>();
  ranges.insert(part(0, UNIT, kvm.mapAnonymous(UNIT)));
  const generation = new Int32Array(1);
  let bytes = new Uint8Array(0);
  // As when it is memory of a region that another process has just taken away.
  const refresh = (): void => void structuredClone(bytes, { transfer: [bytes.buffer] });
  const lookup = { ranges, describe: () => '', remote: { generation, refresh } };
  const memory = new GuestMemory(lookup, { littleEndian: true, pageSize: 4096 });
  for (const gpa of [0, 8, UNIT - 2]) {
    for (const move of [() => memory.write(gpa, bytes), () => memory.read(gpa, bytes)]) {
      bytes = new Uint8Array(8).fill(7);
      generation[0]!++;
      expect(move()).toBe(0);
      expect(bytes).toHaveLength(0);
    }
  }
  expect([memory.readU8(0), memory.readU8(8), memory.readU8(UNIT - 2)]).toEqual([0, 0, 0]);
});

it.each([4, 16, 64])("reads %i bytes into the guest's own memory, over what it reads, as memmove does", (length) => {
  using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
  using vm = kvm.createVm();
  vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
  const numbered = Uint8Array.from({ length }, (_, i) => i + 1);
  for (const distance of [3, -3]) {
    vm.memory.writeExact(0x1000, numbered);
    vm.memory.read(0x1000, vm.memory.slice(0x1000 + distance, length));
    expect({ distance, bytes: vm.memory.readExact(0x1000 + distance, length) }).toEqual({ distance, bytes: numbered });
  }
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
  const [gpas, lengths] = [new Float64Array(2), new Uint32Array(2)];
  structuredClone([gpas, lengths], { transfer: [gpas.buffer, lengths.buffer] });
  const gone = /"(gpas|lengths)" argument must be an array whose memory is still there/;
  expect(() => space.gather(gpas, 8, new Uint8Array(16))).toThrow(gone);
  expect(() => space.scatter([0, 8], lengths, new Uint8Array(16))).toThrow(gone);
});

it('what is wrong is named: arguments, and the access that failed', () => {
  using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
  const space = kvm.createAddressSpace();
  space.addRam(0, kvm.mapAnonymous(UNIT));
  const options = { littleEndian: true, pageSize: 4096 };
  expect(() => new GuestMemory(5 as unknown as MemoryLookup<Part>, options)).toThrow('"lookup"');
  expect(() => space.readExact(UNIT - 4, 8)).toThrow(expect.objectContaining({ code: 'EFAULT', syscall: 'read' }));
  expect(() => space.readExact(0, '8' as never)).toThrow(
    'The "length" argument must be a number or an instance of Uint8Array. Received type string (\'8\')',
  );
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
  for (const gpas of [5, new DataView(new ArrayBuffer(8))])
    expect(() => space.gather(gpas as never, 8, new Uint8Array(8))).toThrow(/"gpas" argument must be an array/);
  expect(() => space.scatter([0], 'x' as never, new Uint8Array(8))).toThrow(/"lengths" argument must be an array/);
  const lengths = ['4'] as unknown as number[];
  expect(() => space.gather([0], lengths, new Uint8Array(8))).toThrow(/"lengths\[0\]" .*a number/);
  space.close();
});

it('a byte order is true or false', () => {
  using kvm = Kvm.open({ backend: 'emulated', arch: 's390x' });
  using space = kvm.createAddressSpace();
  space.addRam(0, kvm.mapAnonymous(UNIT));
  space.writeU16(8, 0x0102);
  expect([space.readU16(8), space.readU16(8, undefined), space.readU16(8, true), space.readU16(8, false)]).toEqual([
    0x0102, 0x0102, 0x0201, 0x0102,
  ]);
  for (const wrong of ['little', 1, 0, null]) {
    const said = expect.objectContaining({
      code: 'ERR_INVALID_ARG_TYPE',
      message: expect.stringContaining('"littleEndian" argument must be true or false'),
    });
    expect(() => space.readU16(8, wrong as never)).toThrow(said);
    expect(() => space.readU16(UNIT - 1, wrong as never)).toThrow();
    expect(() => space.writeU16(8, 7, wrong as never)).toThrow(said);
  }
  expect(space.readU16(8)).toBe(0x0102);
});
