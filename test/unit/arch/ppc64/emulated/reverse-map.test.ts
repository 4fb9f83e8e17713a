import { expect, it } from 'vitest';
import { ReverseMap } from '../../../../../lib/arch/ppc64/emulated/reverse-map.ts';

/** Pages at both ends of what is kept together, and far away. */
const PAGES = [0, 1, 4095, 4096, 8191, 8192, 2 ** 33] as const;

it('no entry maps a page at first, and nothing is known of it', () => {
  const map = new ReverseMap();
  expect(PAGES.map((page) => [map.head(page), map.rc(page)])).toEqual(PAGES.map(() => [-1, 0]));
  expect([...map.mapped()]).toEqual([]);
});

it('each page has a head of its own, slot 0 too, until it has none', () => {
  const map = new ReverseMap();
  for (const [slot, page] of PAGES.entries()) map.setHead(page, slot);
  expect(PAGES.map((page) => map.head(page))).toEqual([...PAGES.keys()]);
  expect([2, 4094, 4097, 8193].map((page) => map.head(page))).toEqual([-1, -1, -1, -1]);
  expect([...map.mapped()].sort(([a], [b]) => a - b)).toEqual(PAGES.map((page, slot) => [page, slot]));
  map.setHead(4096, -1);
  expect([map.head(4096), map.head(4095), map.head(8191)]).toEqual([-1, 2, 4]);
  expect([...map.mapped()]).toHaveLength(PAGES.length - 1);
});

it('what entries have noted accumulates, each page for itself', () => {
  const map = new ReverseMap();
  for (const [page, rc] of [
    [4095, 2],
    [4095, 1],
    [4096, 1],
    [0, 0],
  ] as const)
    map.addRc(page, rc);
  expect([0, 4094, 4095, 4096, 4097].map((page) => map.rc(page))).toEqual([0, 0, 3, 1, 0]);
  // That is no mapping.
  expect([map.head(4095), ...map.mapped()]).toEqual([-1]);
});

it('rings may be changed while pages are gone through', () => {
  const map = new ReverseMap();
  for (const page of [3, 5, 4100]) map.setHead(page, page);
  const seen: number[] = [];
  for (const [page] of map.mapped()) {
    seen.push(page);
    map.setHead(page, -1);
    map.setHead(5, -1);
  }
  expect(seen).toEqual([3, 4100]);
});
