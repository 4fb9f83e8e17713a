import { describe, expect, it } from 'vitest';
import { sharedParts, spreadDirt } from '../../../lib/memory/slot-aliases.ts';

const PAGE = 4096;
const BASE = 0x7000_0000_0000;

/** A slot over pages of the host's, and its dirty pages. */
function slot(first: number, npages: number, dirty: readonly number[] = []) {
  const words = new Uint32Array(Math.ceil(npages / 32));
  const bitmap = {
    words,
    set(page: number): void {
      expect(page).toBeLessThan(npages);
      words[page >>> 5]! |= 1 << (page & 31);
    },
  };
  for (const page of dirty) bitmap.set(page);
  const pages = (): number[] =>
    Array.from({ length: npages }, (_, i) => i).filter((i) => ((words[i >>> 5]! >>> (i & 31)) & 1) === 1);
  return { slot: { hva: BASE + first * PAGE, npages }, bitmap, pages };
}

const partsOf = (slots: readonly ReturnType<typeof slot>[]) =>
  sharedParts(
    slots.map((log) => log),
    PAGE,
  ).map(({ log, page, hostPage, npages }) => `${slots.indexOf(log)}:${page} ${hostPage - BASE / PAGE} ${npages}`);

function spread(slots: readonly ReturnType<typeof slot>[]): number[][] {
  spreadDirt(
    sharedParts(slots, PAGE),
    ({ log }, see) => log.pages().forEach(see),
    ({ bitmap }, page) => bitmap.set(page),
  );
  return slots.map((log) => log.pages());
}

describe('slots that show the same memory', () => {
  it('are found whatever part of each it is, and neighbours are none', () => {
    const [low, high] = [slot(0, 50), slot(50, 50)];
    expect(partsOf([slot(100, 10), low, high, slot(40, 20)])).toEqual(['1:40 40 10', '3:0 40 20', '2:0 50 10']);
    expect(partsOf([low, high])).toEqual([]);
    expect(partsOf([])).toEqual([]);
    // Nor is one behind what others share, or before it.
    expect(partsOf([slot(0, 10), slot(0, 10), slot(10, 5)])).toEqual(['0:0 0 10', '1:0 0 10']);
    expect(partsOf([slot(0, 10), slot(10, 5), slot(10, 5)])).toEqual(['1:0 10 5', '2:0 10 5']);
    // One in a large one, twice; and what three show of it.
    expect(partsOf([slot(0, 100), slot(10, 5), slot(90, 30)])).toEqual([
      '0:10 10 5',
      '0:90 90 10',
      '1:0 10 5',
      '2:0 90 10',
    ]);
    expect(partsOf([slot(0, 10), slot(2, 4), slot(3, 9)])).toEqual(['0:2 2 8', '1:0 2 4', '2:0 3 7']);
  });

  it('get what is dirty in one, all of them, and nothing beside it', () => {
    expect(spread([slot(0, 50, [3, 39, 40]), slot(50, 50, [9, 10]), slot(40, 20, [5]), slot(40, 20)])).toEqual([
      [3, 39, 40, 45],
      [9, 10],
      [0, 5, 19],
      [0, 5, 19],
    ]);
    expect(spread([slot(0, 4, [1]), slot(10, 4, [1])])).toEqual([[1], [1]]);
  });

  it('are the same pages as where each is compared with each other', () => {
    let seed = 1;
    const below = (most: number): number => {
      seed = (seed * 48271) % 0x7fff_ffff;
      return seed % most;
    };
    for (let round = 0; round < 300; round++) {
      const slots = Array.from({ length: 1 + below(6) }, () => {
        const npages = 1 + below(40);
        return { first: below(60), dirty: Array.from({ length: below(4) }, () => below(npages)), npages };
      });
      const dirty = new Set(slots.flatMap((each) => each.dirty.map((page) => each.first + page)));
      expect(spread(slots.map(({ first, npages, dirty }) => slot(first, npages, dirty)))).toEqual(
        slots.map(({ first, npages }) =>
          Array.from({ length: npages }, (_, i) => i).filter((i) => dirty.has(first + i)),
        ),
      );
    }
  });

  it.each([
    ['all of them', () => 0],
    ['each another part of one', (n: number) => n],
    ['each the half of the next', (n: number) => n * 8],
  ])('take no more room for being many: %s', (_, firstOf) => {
    const slots = Array.from({ length: 2000 }, (_, n) => slot(firstOf(n), 16));
    expect(sharedParts([...slots, slot(0, 20_000)], PAGE).length).toBeLessThanOrEqual(3 * 2001);
  });
});
