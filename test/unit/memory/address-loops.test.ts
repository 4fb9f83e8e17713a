import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  type AddressLoops,
  placeAddresses,
  plainAddressLoops,
  useAddressLoops,
} from '../../../lib/memory/address-loops.ts';
import { loopsOfBoth, ofAddon } from '../addon-loops.ts';

const TOP = 2 ** 53 - 1;

/** What is placed, by the definition. */
const plainly = (gpas: readonly number[], low: number, high: number, hva: number): number[] => {
  const end = gpas.findIndex((gpa) => !(Number.isInteger(gpa) && gpa >= low && gpa <= high));
  return gpas.slice(0, end < 0 ? gpas.length : end).map((gpa) => gpa - low + hva);
};

/** A loop in the place of the addon's, and what it was asked for. */
const asked: { at: number; count: number }[] = [];
const counted: AddressLoops = {
  place(gpas, from, into, at, count, low, high, hva) {
    asked.push({ at, count });
    const placed = plainly([...gpas.subarray(from, from + count)], low, high, hva);
    into.set(placed, at);
    return placed.length;
  },
};
beforeAll(() => useAddressLoops(counted));
afterAll(() => useAddressLoops(ofAddon(({ addresses }) => addresses)));

describe.each([
  ...loopsOfBoth<AddressLoops>(plainAddressLoops, ({ addresses }) => addresses),
  ['of both', { place: placeAddresses }] as const,
])('the loop %s', (_name, loops) => {
  const place = (gpas: readonly number[], low: number, high: number, hva: number, from = 0, at = 0): number[] => {
    const into = new Float64Array(at + gpas.length + 1).fill(-7);
    // One more that would be placed.
    const given = Float64Array.from([...new Array<number>(from).fill(low), ...gpas, low]);
    const count = loops.place(given, from, into, at, gpas.length, low, high, hva);
    expect([into.subarray(0, at).every((value) => value === -7), into.at(-1)]).toEqual([true, -7]);
    return [...into.subarray(at, at + count)];
  };

  it('places integers of a window up to the first that is none', () => {
    const gpa = fc.oneof(
      { weight: 40, arbitrary: fc.integer({ min: 1000, max: 1100 }) },
      fc.double({ min: 999, max: 1102 }),
      fc.constantFrom(999, 1101, Number.NaN, Number.POSITIVE_INFINITY, -1, 5e-324, 1000.5, 1100 + 2 ** -42),
    );
    fc.assert(
      fc.property(fc.array(gpa, { maxLength: 200 }), fc.nat(5), fc.nat(5), (gpas, from, at) => {
        expect(place(gpas, 1000, 1100, 0x7000_0000_0000, from, at)).toEqual(
          plainly(gpas, 1000, 1100, 0x7000_0000_0000),
        );
      }),
    );
  });

  it('knows the integers that a double cannot be halved to', () => {
    for (const gpas of [
      [2 ** 51, 2 ** 51 + 1, 2 ** 52 + 1, TOP - 1, TOP],
      [2 ** 51 - 0.25, 2 ** 51],
      [2 ** 51 + 0.5],
    ]) {
      // In the place of each of a group, among others.
      for (const before of [0, 1, 15, 16, 17, 150]) {
        const all = [...new Array<number>(before).fill(2 ** 40), ...gpas];
        expect(place(all, 0, TOP, 0)).toEqual(plainly(all, 0, TOP, 0));
      }
    }
  });

  it('stops at each place of a long list', () => {
    for (let wrong = 0; wrong < 300; wrong++) {
      const gpas = Array.from({ length: 300 }, (_, i) => (i === wrong ? 4096.5 : i));
      expect(place(gpas, 0, 8191, 4096)).toHaveLength(wrong);
    }
  });

  it('places nothing where a window is too small', () => {
    expect(place(new Array<number>(200).fill(5), 5, 4, 0)).toEqual([]);
  });
});

it('the addon is asked for many that follow each other, and for all that are left', () => {
  const [gpas, into] = [Float64Array.from(new Array(1024).keys()), new Float64Array(1030)];
  const askedFor = (from: number, count: number, high = 1023) => {
    asked.length = 0;
    expect(placeAddresses(gpas, from, into, 6, count, 0, high, 4096)).toBe(Math.min(count, high + 1 - from));
    return asked;
  };
  expect(askedFor(0, 127)).toEqual([]);
  expect(askedFor(0, 128)).toEqual([{ at: 70, count: 64 }]);
  expect(askedFor(24, 1000)).toEqual([{ at: 70, count: 936 }]);
  // Those in the window are too few.
  expect(askedFor(0, 1000, 62)).toEqual([]);
  useAddressLoops(undefined);
  expect(askedFor(0, 1000)).toEqual([]);
  expect([into[6], into[1005]]).toEqual([4096, 4096 + 999]);
  useAddressLoops(counted);
});
