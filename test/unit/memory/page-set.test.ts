import { expect, it } from 'vitest';
import { PageSet } from '../../../lib/memory/page-set.ts';
import { Undo } from '../../../lib/memory/undo.ts';
import { WrittenPages } from '../../../lib/memory/written-pages.ts';

/** Pages of one chunk of a set. */
const CHUNK = 0x8000;

function pagesOf(set: PageSet): number[] {
  const pages: number[] = [];
  set.forEach((gfn) => {
    pages.push(gfn);
  });
  return pages.sort((a, b) => a - b);
}

const range = (first: number, end: number): number[] => Array.from({ length: end - first }, (_, i) => first + i);

it.each([
  [0, 1],
  [31, 33],
  [5, 5],
  [1, 31],
  [7, 200],
  [32, 96],
  [CHUNK - 1, CHUNK + 1],
  [CHUNK - 40, 2 * CHUNK + 3],
])('a set has the pages from %i to %i that were added, at once or one by one', (first, end) => {
  const [atOnce, oneByOne] = [new PageSet(), new PageSet()];
  atOnce.addRange(first, end);
  for (let gfn = first; gfn < end; gfn++) oneByOne.add(gfn);
  expect(pagesOf(atOnce)).toEqual(range(first, end));
  expect(pagesOf(oneByOne)).toEqual(range(first, end));
});

it('has what was added before to a chunk that it comes back to', () => {
  const set = new PageSet();
  for (const gfn of [5, CHUNK, 7, CHUNK + 1, 5 * CHUNK, 9]) set.add(gfn);
  expect(pagesOf(set)).toEqual([5, 7, 9, CHUNK, CHUNK + 1, 5 * CHUNK]);
});

it('pages are taken out of it, and are a set of their own', () => {
  const set = new PageSet();
  const pages = [0, 5, 31, 32, CHUNK - 1, CHUNK, CHUNK + 7, 5 * CHUNK, 2 ** 40];
  for (const gfn of pages) set.add(gfn);
  expect(pagesOf(set.take(5, CHUNK + 1))).toEqual([5, 31, 32, CHUNK - 1, CHUNK]);
  expect(pagesOf(set)).toEqual([0, CHUNK + 7, 5 * CHUNK, 2 ** 40]);
  expect(pagesOf(set.take(2 * CHUNK, 5 * CHUNK))).toEqual([]);
  expect(pagesOf(set.take(5 * CHUNK, 5 * CHUNK + 1))).toEqual([5 * CHUNK]);
  expect(pagesOf(set)).toEqual([0, CHUNK + 7, 2 ** 40]);
  // What begins where the range ends stays, in the middle of a chunk and where one ends.
  const row = new PageSet();
  row.addRange(CHUNK - 4, CHUNK + 4);
  expect(pagesOf(row.take(0, CHUNK - 2))).toEqual([CHUNK - 4, CHUNK - 3]);
  expect(pagesOf(row.take(CHUNK - 2, CHUNK))).toEqual([CHUNK - 2, CHUNK - 1]);
  expect(pagesOf(row.take(CHUNK + 1, CHUNK + 1))).toEqual([]);
  expect(pagesOf(row.take(CHUNK + 1, CHUNK + 2))).toEqual([CHUNK + 1]);
  expect(pagesOf(row)).toEqual([CHUNK, CHUNK + 2, CHUNK + 3]);
});

it.each([
  [0, 1],
  [0, 2 ** 41],
  [5, 32],
  [6, 31],
  [31, 33],
  [CHUNK - 1, CHUNK + 7],
  [CHUNK, 5 * CHUNK],
  [CHUNK + 8, 5 * CHUNK + 1],
  [7, 7],
])('those from %i to %i are gone through in ascending order, and stay', (first, end) => {
  const set = new PageSet();
  const pages = [0, 5, 31, 32, CHUNK - 1, CHUNK, CHUNK + 7, 5 * CHUNK, 2 ** 30];
  for (const gfn of [...pages].reverse()) set.add(gfn);
  const seen: number[] = [];
  set.forEachIn(first, Math.min(end, 2 ** 31), (gfn) => {
    seen.push(gfn);
  });
  expect(seen).toEqual(pages.filter((gfn) => gfn >= first && gfn < end));
  expect(pagesOf(set)).toEqual(pages);
});

it('it is empty until something is added, and when it was cleared', () => {
  const set = new PageSet();
  expect(set.empty).toBe(true);
  set.add(3);
  expect(set.empty).toBe(false);
  set.clear();
  expect([set.empty, pagesOf(set)]).toEqual([true, []]);
  // Not into what was there before.
  set.add(3);
  expect([set.empty, pagesOf(set)]).toEqual([false, [3]]);
});

it('another set’s pages are added, moved or not', () => {
  const [set, other] = [new PageSet(), new PageSet()];
  set.add(1);
  other.addRange(CHUNK - 1, CHUNK + 1);
  set.addAll(other);
  set.addAll(other, 0x10_0000);
  expect(pagesOf(set)).toEqual([1, CHUNK - 1, CHUNK, 0x10_0000 + CHUNK - 1, 0x10_0000 + CHUNK]);
});

it.each<[gpa: number | bigint, length: number, pages: number[]]>([
  [0, 0, []],
  [5, 0, []],
  [0x1_0005n, 0, []],
  [0, 1, [0]],
  [0xffff, 1, [0]],
  [0xffff, 2, [0, 1]],
  [0x1_0000, 0x1_0000, [1]],
  [0x1_0000, 0x1_0001, [1, 2]],
  [0x1_ffffn, 1, [1]],
  [0x1_ffffn, 2, [1, 2]],
  [0x1_0000n, 0x2_0000, [1, 2]],
  [2n ** 60n + 0xffffn, 1, [2 ** 44]],
  [2n ** 60n + 0xffffn, 2, [2 ** 44, 2 ** 44 + 1]],
])('%s and %i bytes from there on are written: pages of 64 KiB', (gpa, length, pages) => {
  const written = new WrittenPages(0x1_0000);
  const [first, second] = [new PageSet(), new PageSet()];
  written.record(first);
  written.record(second);
  written.mark(gpa, length);
  expect([pagesOf(first), pagesOf(second)]).toEqual([pages, pages]);
});

it('what is written is told to those who collect, while they do', () => {
  const written = new WrittenPages(4096);
  const [first, second] = [new PageSet(), new PageSet()];
  expect(written.on).toBe(false);
  written.record(first);
  written.record(second);
  written.mark(0, 1);
  written.forget(first);
  expect(written.on).toBe(true);
  written.mark(4096, 1);
  written.forget(second);
  expect(written.on).toBe(false);
  expect([pagesOf(first), pagesOf(second)]).toEqual([[0], [0, 1]]);

  const asked: string[] = [];
  const source = (): unknown => asked.push('source');
  written.addSource(source as () => void);
  written.gather();
  written.removeSource(source as () => void);
  written.gather();
  expect(asked).toEqual(['source']);
});

it('steps are taken back, the last first, when one fails, and only then', () => {
  const done: string[] = [];
  const undo = new Undo(() => done.push('end'));
  undo.try(
    () => done.push('a'),
    () => done.push('not a'),
  );
  undo.add(() => done.push('not b'));
  const why = new Error('c');
  const fails = () =>
    undo.try(
      () => {
        throw why;
      },
      () => done.push('not c'),
    );
  expect(fails).toThrow(why);
  expect(done).toEqual(['a', 'not b', 'not a', 'end']);
  // Nothing is taken back twice.
  expect(fails).toThrow(why);
  expect(done.slice(4)).toEqual(['end']);
});

it('what cannot be taken back is told with the cause', () => {
  const [why, worse] = [new Error('why'), new Error('worse')];
  const undo = new Undo();
  undo.add(() => {
    throw worse;
  });
  expect(() => undo.takeBack(why)).toThrow(
    expect.objectContaining({
      errors: [why, worse],
      message: 'A change failed, and taking back its first part failed too',
    }),
  );
});

it('is used again after it was cleared, in the chunk of before and in the first ones', () => {
  for (const gfn of [0, CHUNK, 2 * CHUNK]) {
    const set = new PageSet();
    set.add(gfn);
    set.clear();
    expect(set.empty).toBe(true);
    for (const again of [gfn, 0, CHUNK]) set.add(again);
    expect(pagesOf(set)).toEqual([...new Set([gfn, 0, CHUNK])].sort((a, b) => a - b));
  }
});

it('pages that are taken out are gone through in ascending order, whichever came first', () => {
  const set = new PageSet();
  for (const gfn of [3 * CHUNK + 1, 3 * CHUNK, CHUNK, 7, CHUNK - 1]) set.add(gfn);
  const order: number[] = [];
  set.take(0, 4 * CHUNK).forEach((gfn) => void order.push(gfn));
  expect(order).toEqual([7, CHUNK - 1, CHUNK, 3 * CHUNK, 3 * CHUNK + 1]);
});

it('a set says of each page whether it has it, in any chunk', () => {
  const set = new PageSet();
  const added = [0, 5, CHUNK + 5, CHUNK + 64, 3 * CHUNK + 1, 2 ** 40 + 7];
  for (const gfn of added) set.add(gfn);
  for (const gfn of added) expect(set.has(gfn), String(gfn)).toBe(true);
  for (const gfn of [1, 64, CHUNK, CHUNK + 6, 2 * CHUNK + 5, 3 * CHUNK, 2 ** 40 + 5, 7])
    expect(set.has(gfn), String(gfn)).toBe(false);
});
