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
    expect([bus.find(Number(HIGH))?.gpa, bus.find(2 ** 64)]).toEqual([HIGH, undefined]);
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

  it('first has carried out what was stored before, by handlers that may change the bus themselves', () => {
    const region = bus.add(0x100, 0x20, device('a'));
    bus.settle = () => {
      bus.settle = () => {};
      region.remove();
    };
    region.move(0x200);
    expect([bus.regions, region.start, bus.find(0x200)]).toEqual([[], 0x100, undefined]);

    const other = bus.add(0x100, 0x20, device('b'), 'b');
    bus.settle = () => {
      bus.settle = () => {};
      bus.add(0x210, 8, device('c'), 'c');
    };
    expect(() => other.move(0x200)).toThrow(
      expect.objectContaining({
        code: 'EEXIST',
        syscall: 'move mmio range',
        gpa: 0x200,
        size: 0x20,
        explanation: "mmio 'b' [0x200, 0x220) overlaps mmio 'c' [0x210, 0x218)",
      }),
    );
    expect(bus.regions.map(({ name, start }) => [name, start])).toEqual([
      ['b', 0x100],
      ['c', 0x210],
    ]);
    // One of them may also remove the range that is just being removed.
    bus.settle = () => {
      bus.settle = () => {};
      other.remove();
    };
    other.remove();
    expect(bus.regions.map(({ name }) => name)).toEqual(['c']);
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

describe('what a handler is given and gives', () => {
  const SIZES = [1, 2, 3, 4, 5, 8];
  const BYTES = [0xf1, 0xe2, 0xd3, 0xc4, 0xb5, 0xa6, 0x97, 0x88];
  /** The integer of the first bytes, the most significant first. */
  const integerOf = (size: number): bigint =>
    BYTES.slice(0, size).reduce((value, byte) => value * 256n + BigInt(byte), 0n);

  it.each([
    [true, undefined],
    [false, undefined],
    [true, false],
    [false, true],
  ])('is in the byte order of the bus (%s), unless the device has its own (%s)', (ofBus, ofDevice) => {
    const bus = new MmioBus('mmio', ofBus);
    const littleEndian = ofDevice ?? ofBus;
    for (const size of SIZES) {
      const seen: unknown[] = [];
      const value = integerOf(size);
      const region = bus.add(0x100, 0x10, {
        read: (...args) => {
          seen.push(['read', ...args]);
          return size > 4 ? value : Number(value);
        },
        write: (...args) => void seen.push(['write', ...args]),
        ...(ofDevice === undefined ? {} : { littleEndian: ofDevice }),
      });
      const bytes = littleEndian ? BYTES.slice(0, size).reverse() : BYTES.slice(0, size);
      const loaded = new Uint8Array(size);
      expect(bus.read(0x103, loaded)).toBe(true);
      expect([...loaded]).toEqual(bytes);
      expect(bus.write(0x104n, Uint8Array.from(bytes))).toBe(true);
      expect(seen).toEqual([
        ['read', 3, size],
        ['write', 4, size > 4 ? value : Number(value), size],
      ]);
      region.remove();
    }
  });

  it('is cut off where a value has more bytes than the access, and may be negative', () => {
    const bus = new MmioBus('mmio', true);
    let value: number | bigint = 0;
    bus.add(0, 8, { read: () => value });
    const loaded = (size: number): number[] => {
      const data = new Uint8Array(size);
      bus.read(0, data);
      return [...data];
    };
    for (const minusTwo of [-2, -2n]) {
      value = minusTwo;
      expect([1, 4, 8].map(loaded)).toEqual([
        [0xfe],
        [0xfe, 0xff, 0xff, 0xff],
        [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
      ]);
    }
    for (const wide of [0x12_3456_789a, 0x12_3456_789an]) {
      value = wide;
      expect([1, 2, 4, 5, 8].map(loaded)).toEqual([
        [0x9a],
        [0x9a, 0x78],
        [0x9a, 0x78, 0x56, 0x34],
        [0x9a, 0x78, 0x56, 0x34, 0x12],
        [0x9a, 0x78, 0x56, 0x34, 0x12, 0, 0, 0],
      ]);
    }
  });

  it.each([[undefined], ['7'], [1.5], [Number.NaN], [2 ** 53], [null]])('is no integer: %o', (value) => {
    const bus = new MmioBus('mmio', true);
    bus.add(0x1000, 0x10, { read: () => value as never }, 'uart');
    const wrong = expect.objectContaining({ code: 'ERR_INVALID_RETURN_VALUE' });
    expect(() => bus.read(0x1004, new Uint8Array(2))).toThrow(wrong);
    expect(() => bus.read(0x1004, new Uint8Array(2))).toThrow(
      /an integer \(a bigint from 2\^53 on\).*the read handler of mmio 'uart' \[0x1000, 0x1010\), for 2 bytes at offset 0x4/,
    );
  });

  it('is an error with its place when the handler throws', () => {
    const bus = new MmioBus('port', true);
    const cause = new Error('no such register');
    const fail = (): never => {
      throw cause;
    };
    const region = bus.add(0x3f8, 8, { read: fail, write: fail }, 'uart');
    const thrown = (call: () => unknown): unknown => {
      try {
        return call();
      } catch (error) {
        return error;
      }
    };
    expect(thrown(() => bus.read(0x3f9, new Uint8Array(1)))).toMatchObject({
      code: 'ERR_HANDLER',
      name: 'HandlerError',
      cause,
      region,
      message: "The read handler of port 'uart' [0x3f8, 0x400), for 1 byte at offset 0x1, threw: no such register",
    });
    expect(thrown(() => bus.write(0x3fa, new Uint8Array(2)))).toMatchObject({
      cause,
      message: "The write handler of port 'uart' [0x3f8, 0x400), for 2 bytes at offset 0x2, threw: no such register",
    });
  });
});

it('an address is found as a number and as a bigint alike', () => {
  using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
  using vm: Vm = kvm.createVm();
  const region = vm.memory.addMmio(0x1804, 8, {});
  const last = vm.memory.addMmio(2 ** 53 - 16, 8, {});
  for (const at of [0x1804, 0x180b]) {
    expect([vm.memory.find(at), vm.memory.find(BigInt(at))]).toEqual([region, region]);
  }
  for (const at of [0x1803, 0x180c]) {
    expect([vm.memory.find(at), vm.memory.find(BigInt(at))]).toEqual([undefined, undefined]);
  }
  for (const at of [2 ** 53 - 16, 2 ** 53 - 9]) {
    expect([vm.memory.find(at), vm.memory.find(BigInt(at))]).toEqual([last, last]);
  }
});

describe('a bus where nobody answers', () => {
  it.each([false, true])('is one whose loads are ones if it is open (%s)', (openBus) => {
    const bus = new MmioBus('mmio', true);
    expect(bus.openBus).toBe(false);
    bus.openBus = openBus;
    bus.add(0x100, 8, { write: () => {} });
    bus.add(0x200, 8, { read: () => 0 });
    // Nothing there; no handler of that kind; and beyond the end of a range.
    for (const address of [0, 0x100, 0x206]) {
      const data = new Uint8Array(4);
      expect(bus.read(address, data)).toBe(openBus);
      expect([...data]).toEqual(new Array(4).fill(openBus ? 0xff : 0));
    }
    for (const address of [0, 0x200, 0x106]) expect(bus.write(address, new Uint8Array(4))).toBe(openBus);
    expect(bus.write(0x104, new Uint8Array(4))).toBe(true);
    expect(bus.read(0x204, new Uint8Array(4))).toBe(true);
  });
});

describe('a range of a bus', () => {
  it('is refused when it is empty or out of reach, with its address by its name', () => {
    const ports = new MmioBus('port', true);
    expect(() => ports.add(0x80, 0, {}, 'post')).toThrow(
      expect.objectContaining({
        code: 'EINVAL',
        syscall: 'add port range',
        gpa: 0x80,
        size: 0,
        explanation: "port 'post' [0x80, 0x80) is empty",
      }),
    );
    expect(() => ports.add(0xffff, 2, {})).toThrow(
      expect.objectContaining({ code: 'EINVAL', explanation: 'port [0xffff, 0x10001) reaches beyond 0x10000' }),
    );
    expect(ports.add(0xffff, 1, {}).end).toBe(0x1_0000);
    expect(() => ports.add(-1, 1, {})).toThrow('"port"');
    const bus = new MmioBus('mmio', true);
    expect(() => bus.add(-1, 1, {})).toThrow('"gpa"');
    const last = (1n << 64n) - 0x1000n;
    expect(bus.add(last, 0x1000, {}).gpa).toBe(last);
    expect(() => bus.add(last, 0x2000, {})).toThrow();
    expect(() => bus.add(0x1000, 8, { read: 1 } as never)).toThrow('"handlers.read"');
    expect(() => bus.add(0x1000, 8, { write: 1 } as never)).toThrow('"handlers.write"');
    expect(() => bus.add(0x1000, 8, { littleEndian: 1 } as never)).toThrow('"handlers.littleEndian"');
    expect(() => bus.add(0x1000, 8, {}, 5 as never)).toThrow('"name"');
    const region = bus.add(0x1000, 8, {});
    expect(() => region.move('5' as never)).toThrow('"address"');
    expect(() => bus.find('5' as never)).toThrow('"address"');
    expect(() => bus.find(-1)).toThrow('"address"');
    expect(() => bus.overlapping(-1, 5)).toThrow(/"start" .* an integer in \[0, 2\^64\]/);
    expect(() => bus.overlapping('1' as never, 5)).toThrow(/"start" argument must be a number/);
    expect(() => bus.overlapping(0, 1.5)).toThrow('"end"');
    expect(() => new MmioBus('bus' as never, true)).toThrow('"kind"');
    expect(() => new MmioBus('mmio', 1 as never)).toThrow('"littleEndian"');
    expect(bus.regions).toHaveLength(2);
  });

  it('is found where one overlaps it, and is not in its own way', () => {
    const bus = new MmioBus('mmio', true);
    const region = bus.add(0x1000, 0x10, {});
    expect(bus.overlapping(0x100f, 0x2000)).toBe(region);
    expect(bus.overlapping(0x1010, 0x2000)).toBeUndefined();
    expect(bus.overlapping(0, 0x1000)).toBeUndefined();
    expect(bus.overlapping(0, 0x1001)).toBe(region);
    expect(region.gpa).toBe(0x1000);
    expect(region.end).toBe(0x1010);
    bus.add(0x3000, 8, {}, 'there');
    expect(() => region.move(0x2ff8)).toThrow(
      expect.objectContaining({
        code: 'EEXIST',
        syscall: 'move mmio range',
        explanation: expect.stringContaining('there'),
      }),
    );
    {
      using other = bus.add(0x2000, 8, {});
      expect(bus.find(0x2007)).toBe(other);
    }
    expect(bus.find(0x2007)).toBeUndefined();
    region.remove();
    region.remove();
    expect(() => region.move(0)).toThrow(
      expect.objectContaining({
        code: 'EBADF',
        syscall: 'move mmio range',
        explanation: 'mmio [0x1000, 0x1010) was removed from its bus',
      }),
    );
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
