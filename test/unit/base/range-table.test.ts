import { describe, expect, it } from 'vitest';
import { type Range, RangeTable } from '../../../lib/base/range-table.ts';

/** A table of ranges [10 n, 10 n + size) and the table's plain list, in which everything is looked for one by one. */
function tableOf(count: number, size = 5): { table: RangeTable<Range>; ranges: Range[] } {
  const table = new RangeTable<Range>();
  const ranges = Array.from({ length: count }, (_, n) => ({ start: 10 * n, end: 10 * n + size }));
  // The middle ones last: each has to find its place.
  for (const [n, entry] of [
    ...ranges.filter((_, n) => n % 2 === 0),
    ...ranges.filter((_, n) => n % 2 === 1),
  ].entries()) {
    table.insert(entry);
    if (table.length !== n + 1) throw new Error(`${table.length} ranges, not ${n + 1}`);
  }
  return { table, ranges };
}

describe.each([0, 1, 7, 8, 9, 16, 17, 40, 511, 512, 513, 1300])('a table of %i ranges', (count) => {
  // The first ones are before all buckets of an index.
  const addresses = Array.from({ length: 10 * count + 96 }, (_, n) => n - 48);

  it('finds each address as a search one by one does, before and after it has an index', () => {
    const { table, ranges } = tableOf(count);
    expect(table.entries).toEqual(ranges);
    const indices = addresses.map((at) => ranges.findIndex(({ start, end }) => start <= at && at < end));
    for (let turn = 0; turn < 3; turn++) {
      expect(addresses.map((at) => table.indexOf(at))).toEqual(indices);
      expect(addresses.map((at) => table.find(at)?.start)).toEqual(indices.map((index) => ranges[index]?.start));
      expect(addresses.map((at) => table.lastAtOrBelow(at))).toEqual(
        addresses.map((at) => ranges.findLastIndex(({ start }) => start <= at)),
      );
    }
  });

  it('has the columns of its ranges', () => {
    const { table, ranges } = tableOf(count);
    expect(ranges.map((_, index) => [table.startAt(index), table.endAt(index)])).toEqual(
      ranges.map(({ start, end }) => [start, end]),
    );
    expect(ranges.every((one) => table.has(one))).toBe(true);
    expect(ranges.some((one) => table.has({ ...one }))).toBe(false);
  });

  it('finds what overlaps', () => {
    const { table, ranges } = tableOf(count);
    const wrong: unknown[] = [];
    for (const start of addresses.filter((at) => at >= 0 && at % 3 === 0)) {
      for (const end of [start, start + 1, start + 7, start + 25]) {
        const [first, second] = ranges.filter((one) => one.start < end && one.end > start);
        const found = [table.overlapping(start, end), first && table.overlapping(start, end, first)];
        if (found[0] !== first || found[1] !== second) wrong.push({ start, end, found });
      }
    }
    expect(wrong).toEqual([]);
  });

  it('finds the others when some were taken out', () => {
    const { table, ranges } = tableOf(count);
    for (const at of addresses) table.find(at);
    for (const entry of ranges.filter((_, n) => n % 3 === 0)) {
      expect([table.remove({ ...entry }), table.remove(entry), table.remove(entry)]).toEqual([false, true, false]);
    }
    const left = ranges.filter((_, n) => n % 3 !== 0);
    expect(table.entries).toEqual(left);
    expect(addresses.map((at) => table.find(at)?.start)).toEqual(
      addresses.map((at) => left.find((one) => one.start <= at && at < one.end)?.start),
    );
  });
});

it('where all of many were taken out, the last one before them is the nearest, and a large one may come', () => {
  const { table, ranges } = tableOf(1600);
  for (const entry of ranges.slice(400, 1300).reverse()) table.remove(entry);
  const between = [4000, 5000, 6000, 7000, 8000, 9000, 10_000, 11_000, 12_000, 12_999];
  expect(between.map((at) => table.atOrBelow(at))).toEqual(between.map(() => ranges[399]));
  const large = { start: 4000, end: 12_990 };
  table.insert(large);
  expect(between.map((at) => table.find(at))).toEqual(between.map((at) => (at < 12_990 ? large : undefined)));
  expect(table.overlapping(9000, 9001)).toBe(large);
});

it('what is no range, and what is no number, is named', () => {
  const table = new RangeTable<Range>();
  expect(() => table.insert({ start: 2, end: 1 })).toThrow(
    '"entry.start" is out of range. It must be at most entry.end',
  );
  expect(() => table.insert({ start: -1, end: 1 })).toThrow('"entry.start"');
  expect(() => table.insert({ start: 0, end: -1 })).toThrow('"entry.end"');
  expect(() => table.insert(undefined as never)).toThrow('"entry"');
  for (const [name, call] of [
    ['at', () => table.find('1' as never)],
    ['index', () => table.startAt(table.length)],
    ['index', () => table.endAt(table.length)],
    ['index', () => table.startAt('1' as never)],
    ['index', () => table.endAt('1' as never)],
    ['start', () => table.overlapping('1' as never, 2)],
    ['end', () => table.overlapping(1, '2' as never)],
  ] as const) {
    expect(call).toThrow(`"${name}"`);
  }
  expect(table.length).toBe(0);
  table.insert({ start: 1, end: 2 });
  for (const index of [-1, 0.5, 1]) {
    expect(() => table.startAt(index)).toThrow('"index" is out of range. It must be');
    expect(() => table.endAt(index)).toThrow('"index" is out of range. It must be');
  }
});

it('a range may be empty, and contains nothing', () => {
  const table = new RangeTable();
  table.insert({ start: 5, end: 5 });
  expect([table.length, table.find(5)]).toEqual([1, undefined]);
});

it('a table is of numbers', () => {
  const table = new RangeTable<Range>();
  expect(() => table.find('5' as unknown as number)).toThrow(/must be a number/);
});

it('the entries that somebody has stay as they were', () => {
  const table = new RangeTable<Range>();
  const had: (readonly Range[])[] = [];
  const want: Range[][] = [];
  const entries = Array.from({ length: 600 }, (_, n) => ({ start: n, end: n + 1 }));
  for (const [n, entry] of entries.entries()) {
    table.insert(entry);
    if (n % 150 < 2) had.push(table.entries);
    if (n % 150 < 2) want.push(entries.slice(0, n + 1));
  }
  had.push(table.entries);
  want.push([...entries]);
  for (const entry of entries) table.remove(entry);
  expect(had).toEqual(want);
  expect(table.entries).toEqual([]);
});

/** Numbers that are the same each time. */
function dice(): (sides: number) => number {
  let seed = 7;
  return (sides) => {
    seed = (seed * 48271) % 0x7fff_ffff;
    return seed % sides;
  };
}

const ORDERS: readonly [string, (n: number) => number][] = [
  ['ascending', (n) => n],
  ['descending', (n) => 4999 - n],
  ['from the middle on, ascending', (n) => (n + 2500) % 5000],
  ['anywhere', (n) => (n * 1973) % 5000],
];

describe.each(ORDERS)('thousands of ranges, %s', (_, placeOf) => {
  const entries = Array.from({ length: 5000 }, (_, n) => ({ start: 3 * n, end: 3 * n + 2 }));

  it('are found while they come, stand still, and go', () => {
    const roll = dice();
    const table = new RangeTable<Range>();
    const there = new Set<Range>();
    const wrong: unknown[] = [];
    const look = (times: number): void => {
      for (let k = 0; k < times; k++) {
        const at = roll(15_010) - 5;
        const entry = entries[Math.floor(at / 3)];
        const want = entry !== undefined && at < entry.end && there.has(entry) ? entry : undefined;
        if (table.find(at) !== want) wrong.push({ at, found: table.find(at) });
        const index = table.indexOf(at);
        if (k % 50 === 0 && table.entries[index] !== want) wrong.push({ at, index });
        if (entry !== undefined && table.has(entry) !== there.has(entry)) wrong.push({ at, has: table.has(entry) });
        const overlap = table.overlapping(at, at + 1);
        if (overlap !== want) wrong.push({ at, overlap });
      }
    };
    for (let n = 0; n < 5000; n++) {
      const entry = entries[placeOf(n)]!;
      table.insert(entry);
      there.add(entry);
      if (n % 100 === 0) look(3);
    }
    look(12_000);
    for (let n = 0; n < 5000; n++) {
      const entry = entries[placeOf(n)]!;
      if (n % 3 === 0) continue;
      if (!table.remove(entry) || table.remove(entry)) wrong.push({ n, removed: entry });
      there.delete(entry);
      if (n % 100 === 1) look(3);
    }
    look(4000);
    expect(wrong).toEqual([]);
    expect(table.entries).toEqual(entries.filter((entry) => there.has(entry)));
    expect(table.length).toBe(there.size);
  });
});
