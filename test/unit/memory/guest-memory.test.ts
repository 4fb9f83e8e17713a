import { expect, it } from 'vitest';
import { GuestMemory, type HostMemory, Kvm, type MemoryLookup, RangeTable } from '../../../lib/index.ts';

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
  expect(memory.translate(0x5010)).toMatchObject({ offset: 0x10, hva: 0x1010, available: 48 });
  expect(memory.gpasOf(0x1010)).toEqual([0x5010]);
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
  const lengths = ['4'] as unknown as number[];
  expect(() => space.gather([0], lengths, new Uint8Array(8))).toThrow(/"lengths\[0\]" .*a number/);
  space.close();
});
