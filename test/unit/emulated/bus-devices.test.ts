import { expect, it } from 'vitest';
import { BusDevices, type BusRange } from '../../../lib/emulated/bus-devices.ts';

interface Named extends BusRange {
  readonly name: string;
}

const device = (name: string, addr: number, size: number): Named => ({ name, addr: BigInt(addr), size: BigInt(size) });

function busOf(...devices: readonly Named[]) {
  const bus = new BusDevices<Named>();
  for (const each of devices) bus.add(each);
  return { bus, order: () => [...bus].map(({ name }) => name) };
}
const asked = (bus: BusDevices<Named>, addr: number, size: number): string[] =>
  [...bus.asked({ addr: BigInt(addr), size: BigInt(size) })].map(({ name }) => name);

it('devices are kept by address, and such as compare alike in the order in which they came', () => {
  const { bus, order } = busOf(
    device('d', 0x40, 4),
    device('a', 0x10, 4),
    device('c', 0x20, 4),
    device('c2', 0x20, 4),
    device('in c', 0x22, 1),
  );
  expect(order()).toEqual(['a', 'c', 'c2', 'in c', 'd']);
  bus.delete([...bus][1]!);
  expect(order()).toEqual(['a', 'c2', 'in c', 'd']);
});

it('asked are those that an access lies inside of, or that have its address alone', () => {
  const { bus } = busOf(
    device('first', 0x10, 4),
    device('wide', 0x20, 8),
    device('same', 0x20, 8),
    device('any', 0x40, 0),
  );
  expect([0x0f, 0x10, 0x13, 0x14].map((at) => asked(bus, at, 1))).toEqual([[], ['first'], ['first'], []]);
  expect([asked(bus, 0x10, 4), asked(bus, 0x10, 5), asked(bus, 0x12, 4)]).toEqual([['first'], [], []]);
  for (const [at, size] of [
    [0x20, 8],
    [0x24, 4],
  ] as const)
    expect(asked(bus, at, size)).toEqual(['wide', 'same']);
  expect([asked(bus, 0x40, 1), asked(bus, 0x40, 8), asked(bus, 0x41, 1)]).toEqual([['any'], ['any'], []]);
  expect(asked(new BusDevices<Named>(), 0x10, 4)).toEqual([]);
});

it('each of many is found', () => {
  for (const count of [1, 2, 3, 4, 5, 8, 13]) {
    const { bus } = busOf(...Array.from({ length: count }, (_, i) => device(`${i}`, 0x100 * i, 4)));
    for (let i = 0; i < count; i++) {
      expect([asked(bus, 0x100 * i, 4), asked(bus, 0x100 * i + 4, 4)], `${i} of ${count}`).toEqual([[`${i}`], []]);
    }
  }
});
