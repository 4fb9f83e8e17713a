import { describe, expect, it } from 'vitest';
import { type Range, RangeTable } from '../../../lib/memory/range-table.ts';

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

describe.each([0, 1, 7, 8, 9, 16, 17, 40])('a table of %i ranges', (count) => {
  const addresses = Array.from({ length: 10 * count + 16 }, (_, n) => n - 3);

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
    ['index', () => table.startAt('1' as never)],
    ['index', () => table.endAt('1' as never)],
    ['start', () => table.overlapping('1' as never, 2)],
    ['end', () => table.overlapping(1, '2' as never)],
  ] as const) {
    expect(call).toThrow(`"${name}"`);
  }
  expect(table.length).toBe(0);
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
