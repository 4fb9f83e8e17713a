import { beforeEach, describe, expect, it } from 'vitest';
import { Kvm, MmioBus, type Vm } from '../../../lib/index.ts';
import { UNIT } from '../handles/backends.ts';

const HIGH = 1n << 60n;

describe('a bus of handlers', () => {
  let bus: MmioBus;
  let seen: unknown[];
  const device = (name: string) => ({
    read: (offset: number): number => {
      seen.push([name, offset]);
      return 0x5a;
    },
    write: (offset: number, value: number | bigint): void => void seen.push([name, offset, value]),
  });

  beforeEach(() => {
    bus = new MmioBus('mmio', true);
    seen = [];
  });

  it('finds every byte of ranges from 2^53 on', () => {
    bus.add(HIGH, 0x1000, device('a'));
    bus.add(HIGH + 0x1000n, 0x1000, device('b'));
    const data = new Uint8Array(1);
    for (const at of [0n, 1n, 0xfffn, 0x1000n, 0x1001n, 0x1fffn]) expect(bus.read(HIGH + at, data)).toBe(true);
    expect(seen).toEqual([
      ['a', 0],
      ['a', 1],
      ['a', 0xfff],
      ['b', 0],
      ['b', 1],
      ['b', 0xfff],
    ]);
    expect(data[0]).toBe(0x5a);
    for (const at of [HIGH - 1n, HIGH + 0x2000n]) {
      expect(bus.read(at, data)).toBe(false);
      expect(bus.write(at, data)).toBe(false);
      expect(bus.find(at)).toBeUndefined();
    }
    expect(bus.find(HIGH + 0xfffn)?.gpa).toBe(HIGH);
  });

  it('refuses ranges there that are not whole pages, which it would not find', () => {
    const rounded = expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' });
    expect(() => bus.add(HIGH, 8, {})).toThrow(rounded);
    expect(() => bus.add(HIGH + 8n, 0x1000, {})).toThrow(rounded);
    expect(() => bus.add(2 ** 53 - 8, 8, {})).toThrow(rounded);
    bus.add(2 ** 53 - 16, 8, {}).remove();
    const region = bus.add(8, 8, device('a'));
    expect(() => region.move(HIGH)).toThrow(rounded);
    expect(bus.find(8)).toBe(region);
  });

  it('moves a range, onto a part of its own place too, and leaves it when that is taken', () => {
    const region = bus.add(0x100, 0x20, device('a'), 'a');
    bus.add(0x200, 0x20, device('b'), 'b');
    region.move(0x110);
    expect([bus.find(0x10f), bus.find(0x110), bus.find(0x12f), bus.find(0x130)]).toEqual([
      undefined,
      region,
      region,
      undefined,
    ]);
    expect(() => region.move(0x1f0)).toThrow(/mmio 'a' \[0x1f0, 0x210\) overlaps mmio 'b' \[0x200, 0x220\)/);
    expect(bus.find(0x110)).toBe(region);
    region.remove();
    expect(() => region.move(0)).toThrow(expect.objectContaining({ code: 'EBADF' }));
  });

  it('keeps ports within 64 Ki', () => {
    const ports = new MmioBus('port', true);
    const region = ports.add(0xfff8, 8, {});
    expect(() => region.move(0xfff9)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
    expect(region.start).toBe(0xfff8);
  });

  it('answers nothing across the end of a range', () => {
    bus.add(0x100, 4, device('a'));
    expect(bus.read(0x102, new Uint8Array(4))).toBe(false);
    expect(bus.write(0x102, new Uint8Array(4))).toBe(false);
    expect(seen).toEqual([]);
  });
});

describe('handlers beside memory', () => {
  it('are not put, and not moved, over RAM, whichever way they come', () => {
    using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
    using vm: Vm = kvm.createVm();
    vm.memory.addRam(0, kvm.mapAnonymous(UNIT), { name: 'main' });
    const taken = expect.objectContaining({ code: 'EEXIST', message: expect.stringContaining("'main'") });
    expect(() => vm.memory.mmio.add(0x1000, 8, {})).toThrow(taken);
    const region = vm.memory.addMmio(UNIT, 8, {});
    expect(() => region.move(UNIT - 4)).toThrow(taken);
    expect(vm.memory.find(UNIT)).toBe(region);
  });
});
