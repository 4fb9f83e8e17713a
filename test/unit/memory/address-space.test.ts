import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { AddressSpace, Kvm, type Vm } from '../../../lib/index.ts';
import { backends, UNIT } from '../handles/backends.ts';

const HIGH = 1n << 60n;

describe.each(backends)('an address space on $name', ({ options }) => {
  let kvm: Kvm;
  let vm: Vm;
  let memory: AddressSpace;

  beforeEach(() => {
    kvm = Kvm.open(options);
    vm = kvm.createVm();
    memory = vm.memory;
  });
  afterEach(() => {
    vm.close();
    kvm.close();
  });

  it('reads back integers of every size in both byte orders, and lays their bytes down accordingly', () => {
    memory.addRam(0, kvm.mapAnonymous(UNIT));
    memory.writeU32(0x100, 0x0102_0304, true);
    expect([...memory.readExact(0x100, 4)]).toEqual([4, 3, 2, 1]);
    memory.writeU32(0x100, 0x0102_0304, false);
    expect([...memory.readExact(0x100, 4)]).toEqual([1, 2, 3, 4]);
    memory.writeU64(0x108, 0x8182_8384_8586_8788n, false);
    expect(memory.readU64(0x108, true)).toBe(0x8887_8685_8483_8281n);
    expect(memory.readI64(0x108, false)).toBe(0x8182_8384_8586_8788n - (1n << 64n));
    expect(memory.readI16(0x108, false)).toBe(0x8182 - 0x1_0000);
    expect(memory.readI8(0x108)).toBe(0x81 - 0x100);
    expect(memory.readI32(0x108, true)).toBe(0x8483_8281 - 2 ** 32);
    memory.writeU64(0x110, 2 ** 52 + 5, true);
    expect(memory.readU64(0x110, true)).toBe(BigInt(2 ** 52 + 5));
    expect(memory.readU64Number(0x110, true)).toBe(2 ** 52 + 5);
  });

  it('reads a u64 as a number only where that is exact, in one mapping and across two', () => {
    memory.addRam(0, kvm.mapAnonymous(UNIT));
    memory.addRam(UNIT, kvm.mapAnonymous(UNIT));
    for (const gpa of [0x118, UNIT - 3]) {
      for (const littleEndian of [true, false]) {
        memory.writeU64(gpa, Number.MAX_SAFE_INTEGER, littleEndian);
        expect(memory.readU64Number(gpa, littleEndian)).toBe(Number.MAX_SAFE_INTEGER);
        memory.writeU64(gpa, 1n << 53n, littleEndian);
        expect(() => memory.readU64Number(gpa, littleEndian)).toThrow(
          expect.objectContaining({ code: 'ERR_OUT_OF_RANGE', message: expect.stringContaining('9007199254740992') }),
        );
      }
    }
    expect(() => memory.readU64Number(2 * UNIT)).toThrow(expect.objectContaining({ code: 'EFAULT' }));
  });

  it('reads so many bytes into an array of their own', () => {
    memory.addRam(0, kvm.mapAnonymous(UNIT));
    memory.writeExact(0x100, Uint8Array.of(1, 2, 3));
    expect(memory.read(0x100, 4)).toEqual(Uint8Array.of(1, 2, 3, 0));
    expect(() => memory.read(UNIT - 2, 4)).toThrow(expect.objectContaining({ code: 'EFAULT' }));
    expect(() => memory.read(0, -1)).toThrow(expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' }));
    expect(memory.read(UNIT - 2, new Uint8Array(4))).toBe(2);
  });

  it("uses the guest's byte order unless told otherwise", () => {
    memory.addRam(0, kvm.mapAnonymous(UNIT));
    memory.writeU16(0, 0x0102);
    expect([...memory.readExact(0, 2)]).toEqual(kvm.arch === 's390x' ? [1, 2] : [2, 1]);
  });

  it('takes addresses as numbers and bigints alike, also above 2^53', () => {
    const space = kvm.createAddressSpace();
    space.addRam(0, kvm.mapAnonymous(UNIT));
    space.addRam(HIGH, kvm.mapAnonymous(UNIT));
    space.writeU32(0x10n, 7);
    expect(space.readU32(0x10)).toBe(7);
    space.writeU32(HIGH + 0x10n, 9);
    space.writeU8(HIGH + 0xfffffn, 1);
    expect(space.readU32(HIGH + 0x10n)).toBe(9);
    expect(space.readU8(HIGH + 0xfffffn)).toBe(1);
    expect(() => space.readU8(HIGH + 0x10_0000n)).toThrow(expect.objectContaining({ code: 'EFAULT' }));
    expect(() => space.readU32(2 ** 60)).toThrow(expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' }));
    expect(space.translate(HIGH + 0x1234n)?.offset).toBe(0x1234);
  });

  it('goes on across neighbouring regions, whose mappings are different', () => {
    const a = kvm.mapAnonymous(UNIT);
    const b = kvm.mapAnonymous(UNIT);
    memory.addRam(0, a);
    memory.addRam(UNIT, b);
    memory.writeU64(UNIT - 4, 0x1122_3344_5566_7788n, false);
    expect(memory.readU32(UNIT - 4, false)).toBe(0x1122_3344);
    expect(memory.readU32(UNIT, false)).toBe(0x5566_7788);
    const bytes = Uint8Array.from({ length: 200 }, (_, i) => i);
    memory.writeExact(UNIT - 100, bytes);
    expect([...memory.readExact(UNIT - 100, 200)]).toEqual([...bytes]);
    expect([...memory.slices(UNIT - 100, 200)].map((slice) => slice.length)).toEqual([100, 100]);
  });

  it('says how much it could read, and throws with the first missing address where all is wanted', () => {
    memory.addRam(0, kvm.mapAnonymous(UNIT));
    expect(memory.read(UNIT - 16, new Uint8Array(64))).toBe(16);
    expect(memory.read(UNIT, new Uint8Array(64))).toBe(0);
    expect(memory.write(UNIT - 16, new Uint8Array(64))).toBe(16);
    expect(() => memory.readExact(UNIT - 16, 64)).toThrow(
      expect.objectContaining({
        code: 'EFAULT',
        gpa: UNIT,
        size: 48,
        explanation: expect.stringContaining('16 of 64'),
      }),
    );
    expect(() => memory.writeExact(UNIT - 16, new Uint8Array(64))).toThrow(
      expect.objectContaining({ code: 'EFAULT', gpa: UNIT }),
    );
    expect(() => memory.readU32(UNIT - 2)).toThrow(expect.objectContaining({ code: 'EFAULT', gpa: UNIT, size: 2 }));
    expect(() => memory.writeU32(UNIT - 2, 1)).toThrow(expect.objectContaining({ code: 'EFAULT', gpa: UNIT }));
  });

  it('reads and writes C strings', () => {
    memory.addRam(0, kvm.mapAnonymous(UNIT));
    expect(memory.writeCString(UNIT - 7, 'bridge')).toBe(7);
    expect(memory.readCString(UNIT - 7)).toBe('bridge');
    memory.fill(0, 64, 0x41);
    expect(() => memory.readCString(0, { maxLength: 64 })).toThrow(
      expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' }),
    );
    memory.writeU8(UNIT - 1, 0x41);
    expect(() => memory.readCString(UNIT - 7)).toThrow(expect.objectContaining({ code: 'EFAULT' }));
  });

  it('copies as memmove does, within and across regions', () => {
    memory.addRam(0, kvm.mapAnonymous(UNIT));
    memory.addRam(UNIT, kvm.mapAnonymous(UNIT));
    const pattern = Uint8Array.from({ length: 3 * 0x1_0000 }, (_, i) => (i * 7) ^ (i >> 8));
    for (const [from, to] of [
      [0x100, 0x180],
      [0x180, 0x100],
      [UNIT - 0x1_8000, UNIT - 0x1_7000],
      [UNIT - 0x1_7000, UNIT - 0x1_8000],
    ] as const) {
      memory.writeExact(from, pattern);
      memory.copy(to, from, pattern.length);
      expect(Buffer.compare(memory.readExact(to, pattern.length), pattern)).toBe(0);
    }
    // Of a length that is no multiple of what is copied at once: nothing behind it, or before it, is touched.
    for (const [from, to] of [
      [0x100, UNIT - 0x8000],
      [UNIT - 0x8000, 0x100],
      [UNIT - 0x9000, UNIT - 0x8ff0],
    ] as const) {
      for (let at = 0; at < 2 * UNIT; at += 0x1_0000)
        memory.writeExact(at, pattern.subarray(at >> 8, (at >> 8) + 0x1_0000));
      const expected = memory.readExact(0, 2 * UNIT);
      expected.copyWithin(to, from, from + 0x1_0005);
      memory.copy(to, from, 0x1_0005);
      expect(Buffer.compare(memory.readExact(0, 2 * UNIT), expected)).toBe(0);
    }
    // From one region as a whole to another.
    memory.writeExact(0x100, pattern.subarray(0, 64));
    memory.fill(UNIT, 0x200, 0xee);
    memory.copy(UNIT + 0x40, 0x100, 64);
    expect(Buffer.compare(memory.readExact(UNIT + 0x40, 64), pattern.subarray(0, 64))).toBe(0);
    expect([memory.readU8(UNIT + 0x3f), memory.readU8(UNIT + 0x80)]).toEqual([0xee, 0xee]);
    expect(() => memory.copy(0, 2 * UNIT - 8, 16)).toThrow(expect.objectContaining({ code: 'EFAULT', gpa: 2 * UNIT }));
  });

  it('gathers and scatters pieces, wherever they are', () => {
    memory.addRam(0, kvm.mapAnonymous(UNIT));
    memory.addRam(UNIT, kvm.mapAnonymous(UNIT));
    const gpas = [0x10, UNIT - 3, 2n, UNIT + 0x100, 0x10];
    const lengths = [4, 8, 1, 0, 2];
    const from = Uint8Array.from({ length: 15 }, (_, i) => i + 1);
    memory.scatter(gpas, lengths, from);
    expect([...memory.readExact(0x10, 4)]).toEqual([14, 15, 3, 4]);
    const into = new Uint8Array(15);
    memory.gather(gpas, lengths, into);
    expect([...into]).toEqual([14, 15, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
    const many = Float64Array.from({ length: 3000 }, (_, i) => i * 8);
    const wide = new Uint8Array(24000);
    for (let i = 0; i < 3000; i++) memory.writeU64(i * 8, i, true);
    memory.gather(many, 8, wide);
    expect(new BigUint64Array(wide.buffer)[2999]).toBe(2999n);
    expect(() => memory.gather([0, 2 * UNIT], 4, new Uint8Array(8))).toThrow(
      expect.objectContaining({ code: 'EFAULT', gpa: 2 * UNIT }),
    );
    expect(() => memory.gather([0, 8], 4, new Uint8Array(7))).toThrow(
      expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' }),
    );
  });

  it('gathers and scatters pieces of one length, those over a seam and those after it too', () => {
    memory.addRam(0, kvm.mapAnonymous(UNIT));
    memory.addRam(UNIT, kvm.mapAnonymous(UNIT));
    const gpas = Float64Array.of(0x10, UNIT + 8, UNIT - 2, 0x20, UNIT + 0x40);
    const from = Uint8Array.from({ length: 20 }, (_, i) => i + 1);
    memory.scatter(gpas, 4, from);
    expect([...gpas].map((gpa) => [...memory.readExact(gpa, 4)])).toEqual([
      [1, 2, 3, 4],
      [5, 6, 7, 8],
      [9, 10, 11, 12],
      [13, 14, 15, 16],
      [17, 18, 19, 20],
    ]);
    const into = new Uint8Array(20);
    memory.gather(gpas, 4, into);
    expect([...into]).toEqual([...from]);
    // What came before the piece that is nowhere was scattered.
    expect(() => memory.scatter(Float64Array.of(0x30, 2 * UNIT, 0x38), 4, from)).toThrow(
      expect.objectContaining({ code: 'EFAULT', gpa: 2 * UNIT }),
    );
    expect([memory.readU8(0x30), memory.readU8(0x38)]).toEqual([1, 0]);
    expect(() => memory.gather(Float64Array.of(0x10, 0.5), 4, into)).toThrow(
      expect.objectContaining({ code: 'ERR_OUT_OF_RANGE', message: expect.stringContaining('gpas[1]') }),
    );
  });

  it('gathers pieces of one length up to the first address that is no integer', () => {
    memory.addRam(0, kvm.mapAnonymous(UNIT));
    for (const wrong of [
      0.5,
      Number.MIN_VALUE,
      1e-160,
      1 - 2 ** -53,
      0x20 + 2 ** -44,
      UNIT - 8 - 2 ** -33,
      -0.5,
      NaN,
    ]) {
      for (const before of [0, 1, 7]) {
        for (let gpa = 0; gpa < 0x200; gpa++) memory.writeU8(gpa, 0);
        const gpas = Float64Array.from({ length: 12 }, (_, i) => (i === before ? wrong : 0x10 * (i + 1)));
        const from = new Uint8Array(4 * 12).fill(1);
        const refused = expect.objectContaining({ message: expect.stringContaining(`gpas[${before}]`) });
        expect(() => memory.gather(gpas, 4, new Uint8Array(48))).toThrow(refused);
        expect(() => memory.scatter(gpas, 4, from)).toThrow(refused);
        const there = Array.from({ length: 12 }, (_, i) => memory.readU8(0x10 * (i + 1)));
        expect(there).toEqual(Array.from({ length: 12 }, (_, i) => Number(i < before)));
      }
    }
  });

  it('gathers pieces of one length at addresses that doubles only just hold', () => {
    const base = 2 ** 52 - UNIT;
    // No kernel has that much.
    const memory = kvm.createAddressSpace();
    memory.addRam(base, kvm.mapAnonymous(2 * UNIT));
    const gpas = Float64Array.from({ length: 9 }, (_, i) => base + UNIT + 3 * (i - 4));
    memory.scatter(
      gpas,
      1,
      Uint8Array.from(gpas, (_, i) => i + 1),
    );
    expect(Array.from(gpas, (gpa) => memory.readU8(gpa))).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9]);
    const into = new Uint8Array(9);
    memory.gather(gpas, 1, into);
    expect([...into]).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9]);
  });

  it('exchanges atomically only when the expected value is there', () => {
    memory.addRam(0, kvm.mapAnonymous(UNIT));
    for (const [size, value] of [
      [1, 0xfe],
      [2, 0xfedc],
      [4, 0xfedc_ba98],
    ] as const) {
      memory.atomicStore(0x40, size, value);
      expect(memory.atomicLoad(0x40, size)).toBe(value);
      expect(memory.compareExchange(0x40, size, 1, 2)).toBe(value);
      expect(memory.atomicLoad(0x40, size)).toBe(value);
      expect(memory.compareExchange(0x40, size, value, 2)).toBe(value);
      expect(memory.atomicLoad(0x40, size)).toBe(2);
    }
    memory.atomicStore(0x40, 8, 0x0102_0304_0506_0708n);
    expect(memory.readU64(0x40)).toBe(0x0102_0304_0506_0708n);
    expect(memory.compareExchange(0x40, 8, 0x0102_0304_0506_0708n, 1)).toBe(0x0102_0304_0506_0708n);
    expect(memory.readU64(0x40)).toBe(1n);
    memory.writeU32(0x50, 0x1234_5678);
    expect(memory.atomicLoad(0x50, 4)).toBe(0x1234_5678);
    expect(() => memory.atomicLoad(0x41, 4)).toThrow(expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' }));
    expect(() => memory.atomicStore(UNIT, 4, 0)).toThrow(expect.objectContaining({ code: 'EFAULT' }));
  });

  it('translates both ways', () => {
    const ram = kvm.mapAnonymous(2 * UNIT);
    const region = memory.addRam(4 * UNIT, ram, { offset: UNIT, size: UNIT });
    expect(memory.translate(4 * UNIT + 0x123)).toEqual({
      region,
      offset: UNIT + 0x123,
      fd: -1,
      hva: ram.hva + UNIT + 0x123,
      available: UNIT - 0x123,
    });
    expect(memory.translate(5 * UNIT)).toBeUndefined();
    expect(memory.gpasOf(ram.hva + UNIT + 5)).toEqual([4 * UNIT + 5]);
    memory.addRam(8 * UNIT, ram, { offset: UNIT, size: UNIT });
    expect(memory.gpasOf(ram.hva + UNIT + 5)).toEqual([4 * UNIT + 5, 8 * UNIT + 5]);
    expect(memory.gpasOf(ram.hva)).toEqual([]);
  });

  it('lists regions and the holes between them in order', () => {
    const ram = kvm.mapAnonymous(UNIT);
    memory.addRam(4 * UNIT, ram, { name: 'upper' });
    memory.addRam(UNIT, ram);
    memory.addMmio(2 * UNIT + 8, 16, {}, { name: 'uart' });
    expect([...memory.regions()].map((region) => [region.kind, region.gpa, region.size, region.name])).toEqual([
      ['ram', UNIT, UNIT, undefined],
      ['mmio', 2 * UNIT + 8, 16, 'uart'],
      ['ram', 4 * UNIT, UNIT, 'upper'],
    ]);
    expect([...memory.holes(8 * UNIT)]).toEqual([
      { gpa: 0, size: UNIT },
      { gpa: 2 * UNIT, size: 8 },
      { gpa: 2 * UNIT + 24, size: 2 * UNIT - 24 },
      { gpa: 5 * UNIT, size: 3 * UNIT },
    ]);
    expect([...memory.holes()].at(-1)).toEqual({ gpa: 5 * UNIT, size: (1n << 64n) - BigInt(5 * UNIT) });
    expect(memory.find(4 * UNIT + 1)).toMatchObject({ name: 'upper' });
    expect(memory.find(2 * UNIT + 23)).toMatchObject({ name: 'uart' });
    expect(memory.find(2 * UNIT + 24)).toBeUndefined();
  });

  it('refuses overlaps with MMIO, naming both ranges', () => {
    const ram = kvm.mapAnonymous(UNIT);
    memory.addMmio(0x1000, 0x1000, {}, { name: 'uart' });
    expect(() => memory.addRam(0, ram)).toThrow(/\[0x0, 0x100000\) overlaps mmio 'uart' \[0x1000, 0x2000\)/);
    expect(() => memory.addMmio(0x1fff, 1, {}, { name: 'rtc' })).toThrow(
      /'rtc' \[0x1fff, 0x2000\) overlaps mmio 'uart' \[0x1000, 0x2000\)/,
    );
    memory.addRam(UNIT, ram, { name: 'low' });
    expect(() => memory.addMmio(2 * UNIT - 1, 4, {})).toThrow(/overlaps ram 'low' \[0x100000, 0x200000\)/);
    expect(vm.memslots.size).toBe(1);
  });

  it('serves several VMs, and a change that one of them refuses is made in none', () => {
    const space = kvm.createAddressSpace();
    const ram = kvm.mapAnonymous(UNIT);
    space.addRam(0, ram);
    const other = kvm.createVm();
    vm.bind(space);
    other.bind(space);
    const region = space.addRam(2 * UNIT, ram);
    expect([vm.memslots.size, other.memslots.size]).toEqual([2, 2]);
    // A slot by hand is in the way in the second VM only.
    other.setUserMemoryRegion({ slot: 9, guestPhysAddr: 4 * UNIT, memorySize: UNIT, userspaceAddr: ram.hva });
    expect(() => space.addRam(4 * UNIT, ram)).toThrow(expect.objectContaining({ code: 'EEXIST' }));
    expect([vm.memslots.size, other.memslots.size]).toEqual([2, 3]);
    expect(() => region.move(4 * UNIT)).toThrow(expect.objectContaining({ code: 'EEXIST' }));
    expect(region.gpa).toBe(2 * UNIT);
    expect([...vm.memslots].map((slot) => slot.baseGfn * kvm.pageSize)).toEqual([0, 2 * UNIT]);
    region.remove();
    region.remove();
    expect([vm.memslots.size, other.memslots.size]).toEqual([1, 2]);
    other.close();
    space.addRam(6 * UNIT, ram);
    expect(vm.memslots.size).toBe(2);
    space.close();
    expect(space.readU8(0)).toBe(0);
    vm.close();
    expect(ram.pins).toBe(0);
  });

  it('reads a mapping whose pages were protected or unmapped by copies that fail with EFAULT', () => {
    const ram = kvm.mapAnonymous(UNIT);
    memory.addRam(0, ram);
    memory.writeU32(0x10, 0x55);
    ram.protect(UNIT / 2, kvm.pageSize, 0);
    expect(memory.readU32(0x10)).toBe(0x55);
    expect(() => memory.readU32(UNIT / 2)).toThrow(
      expect.objectContaining({ code: 'EFAULT', gpa: UNIT / 2, explanation: expect.stringContaining('protected') }),
    );
    expect(memory.read(UNIT / 2 - 8, new Uint8Array(16))).toBe(8);
    expect(() => memory.slice(0, 16)).toThrow(expect.objectContaining({ code: 'EACCES' }));
    expect(() => memory.atomicLoad(0x10, 4)).toThrow(expect.objectContaining({ code: 'EACCES' }));
    const pieces = new Uint8Array(8);
    memory.gather([0x10, 0x10], 4, pieces);
    expect(pieces[4] || pieces[7]).toBe(0x55);
  });

  it('does not protect memory of which a slice was handed out: who has it may be another thread', () => {
    const ram = kvm.mapAnonymous(UNIT);
    memory.addRam(0, ram);
    const slice = memory.slice(0, 16);
    expect(() => ram.protect(0, kvm.pageSize, 0)).toThrow(
      expect.objectContaining({ code: 'EBUSY', syscall: 'mprotect', explanation: expect.stringContaining('slice') }),
    );
    slice[0] = 7;
    expect(memory.readU8(0)).toBe(7);
    ram.unmapPart(UNIT / 2, kvm.pageSize);
    expect(slice.length).toBe(0);
    expect(() => memory.readU8(UNIT / 2)).toThrow(expect.objectContaining({ code: 'EFAULT' }));
  });

  it('keeps calls on a part of a mapping inside it: behind it there may be another', () => {
    const [ram, other] = [kvm.mapAnonymous(UNIT), kvm.mapAnonymous(UNIT)];
    for (const [here, there] of [
      [ram, other],
      [other, ram],
    ] as const) {
      const distance = there.hva - here.hva;
      const bytes = new Uint8Array(4);
      if (distance >= 0) {
        for (const call of [
          () => here.unmapPart(distance, kvm.pageSize),
          () => here.protect(distance, kvm.pageSize, 0),
          () => here.advise(4, distance, kvm.pageSize),
        ]) {
          expect(call).toThrow(expect.objectContaining({ code: 'EINVAL' }));
        }
      }
      for (const offset of [distance, -4, UNIT + 1, Number.NaN, 0.5]) {
        expect(() => here.read(offset, bytes)).toThrow(expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' }));
        expect(() => here.write(offset, bytes)).toThrow(expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' }));
      }
      expect([here.read(UNIT, bytes), here.read(UNIT - 2, bytes)]).toEqual([0, 2]);
    }
    for (const mapping of [ram, other]) mapping.close();
  });

  it('pins a mapping for a memslot that was made by hand over its address', () => {
    const ram = kvm.mapAnonymous(UNIT);
    const region = { slot: 3, guestPhysAddr: 0, userspaceAddr: ram.hva };
    vm.setUserMemoryRegion({ ...region, memorySize: UNIT });
    expect(ram.pins).toBe(1);
    ram.close();
    expect(ram.write(0, Uint8Array.of(7))).toBe(1);
    vm.setUserMemoryRegion({ ...region, memorySize: 0 });
    expect(ram.write(0, Uint8Array.of(7))).toBe(0);
  });

  it('works without a VM by the same rules', () => {
    const space = new AddressSpace({ littleEndian: true, pageSize: kvm.pageSize });
    const ram = kvm.mapAnonymous(UNIT);
    space.addRam(0, ram);
    expect(() => space.addRam(UNIT - kvm.pageSize, ram)).toThrow(expect.objectContaining({ code: 'EEXIST' }));
    expect(() => space.addRam(0x123, ram)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
    expect(() => space.addRam((1n << 64n) - BigInt(UNIT), ram)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
    expect(ram.pins).toBe(1);
  });
});
