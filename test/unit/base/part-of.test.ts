import { describe, expect, it } from 'vitest';
import { partOf } from '../../../lib/base/part-of.ts';
import { Kvm } from '../../../lib/index.ts';
import { backends, UNIT } from '../handles/backends.ts';

/** Bytes of a class whose constructor takes nothing: `subarray` makes eight others. */
class Packet extends Uint8Array {
  constructor() {
    super(8);
  }

  static of8(...bytes: number[]): Packet {
    const packet = new Packet();
    packet.set(bytes);
    return packet;
  }
}

/** Every Node has them, and the library of ES2022 doesn't. */
type Resizable = ArrayBuffer & { resize(length: number): void };

it('a part is of the bytes themselves, and ends where they do', () => {
  const packet = Packet.of8(1, 2, 3, 4, 5, 6, 7, 8);
  const part = partOf(packet, 2, 5);
  expect(part).toEqual(Uint8Array.of(3, 4, 5));
  part[0] = 9;
  expect(packet[2]).toBe(9);
  expect(partOf(packet, 6, 20)).toEqual(Uint8Array.of(7, 8));
  expect(partOf(packet, 8)).toEqual(new Uint8Array(0));
  expect(partOf(Buffer.from('abcdef'), 2)).toEqual(new Uint8Array(Buffer.from('cdef')));
});

describe.each(backends)("bytes of a class of the caller's, on $name", ({ options }) => {
  it('are moved across regions, into and out of a reservation, and in pieces', () => {
    using kvm = Kvm.open(options);
    using vm = kvm.createVm();
    const { memory } = vm;
    const ram = kvm.mapAnonymous(4 * UNIT);
    memory.addRam(0, ram, { size: UNIT });
    memory.addRam(UNIT, ram, { offset: 2 * UNIT, size: UNIT });
    ram.write(UNIT, Uint8Array.of(0x77));
    const reservation = kvm.reserve(UNIT);
    reservation.mapAnonymous(0, UNIT);
    memory.addRam(2 * UNIT, reservation);
    const gathered = (): Uint8Array => {
      const into = new Packet();
      memory.gather([16, UNIT + 64, 2 * UNIT + 64, 32], 2, into);
      return into;
    };
    const packet = Packet.of8(1, 2, 3, 4, 5, 6, 7, 8);
    for (const gpa of [UNIT - 4, 2 * UNIT - 4, 2 * UNIT + 8]) {
      memory.writeExact(gpa, packet);
      expect([...memory.readExact(gpa, 8)]).toEqual([...packet]);
      const back = new Packet();
      memory.readExact(gpa, back);
      expect([...back]).toEqual([...packet]);
    }
    expect([...gathered()]).toEqual([0, 0, 0, 0, 0, 0, 0, 0]);
    memory.scatter([16, UNIT + 64, 2 * UNIT + 64, 32], 2, packet);
    expect([...gathered()]).toEqual([...packet]);
    const behind = new Uint8Array(1);
    ram.read(UNIT, behind);
    expect(behind[0]).toBe(0x77);
  });

  it('that have fallen out of their buffer are refused, as detached ones are', () => {
    using kvm = Kvm.open(options);
    using vm = kvm.createVm();
    vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
    const buffer: Resizable = Reflect.construct(ArrayBuffer, [16, { maxByteLength: 64 }]);
    const bytes = new Uint8Array(buffer, 4, 8);
    buffer.resize(2);
    expect(() => vm.memory.writeExact(0, bytes)).toThrow('a Uint8Array whose memory is still there');
    buffer.resize(16);
    vm.memory.writeExact(0, bytes);
  });
});
