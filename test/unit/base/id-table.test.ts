import { expect, it } from 'vitest';
import { IdTable } from '../../../lib/base/id-table.ts';

it('has what was put in last, by its number', () => {
  const table = new IdTable<{ name: string }>();
  const [a, b, c] = [{ name: 'a' }, { name: 'b' }, { name: 'c' }];
  table.set(5, a);
  table.set(0, b);
  expect([0, 1, 4, 5, 6].map((id) => table.get(id))).toEqual([b, undefined, undefined, a, undefined]);
  expect([0, 1, 4, 5, 6].map((id) => table.has(id))).toEqual([true, false, false, true, false]);
  expect([table.size, table.values()]).toEqual([2, [b, a]]);
  table.set(5, c);
  expect([table.size, table.get(5), table.values()]).toEqual([2, c, [b, c]]);
});

it('has a number free when its thing is gone, and what somebody has of it stays', () => {
  const table = new IdTable<{ name: string }>();
  const [a, b] = [{ name: 'a' }, { name: 'b' }];
  table.set(0, a);
  table.set(1, b);
  const values = table.values();
  for (const id of [0, 0, 7]) table.delete(id);
  expect([table.size, table.has(0), table.get(0), table.values()]).toEqual([1, false, undefined, [b]]);
  table.set(0, b);
  expect([table.size, table.values(), values]).toEqual([2, [b, b], [a, b]]);
});
