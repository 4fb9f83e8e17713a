import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { heatOf, layer, type PageRun } from '../../../../lib/cli/report/layers.ts';
import { runsIn, valueAt } from '../../../../lib/cli/report/page/runs.ts';

describe('a layer', () => {
  it('has few runs however large the memory is', () => {
    function* everyOther(): Generator<PageRun> {
      for (let page = 0; page < 400_000; page += 2) yield [page, 1, 1];
    }
    const made = layer('dirty', 'count', everyOther());
    // Cells of two pages, of each of which one is dirty, are one run.
    expect(made).toEqual({ name: 'dirty', kind: 'count', step: 2, most: 1, runs: [0, 200_000, 1] });
  });

  it('of keys that are everywhere different has the largest of each cell', () => {
    const keys = Array.from({ length: 120_000 }, (_, page): PageRun => [page, 1, (page * 7) % 256]);
    const made = layer('keys', 'key', keys);
    expect(made.step).toBe(4);
    for (const cell of [0, 1, 4711, 29_999]) {
      const inside = keys.slice(4 * cell, 4 * cell + 4).map(([, , key]) => key);
      expect(valueAt(made, 4 * cell)).toBe(Math.max(...inside));
    }
  });

  const runsOf = (pieces: readonly (readonly [number, number, number])[]): PageRun[] => {
    let at = 0;
    return pieces.map(([gap, count, value]) => {
      const first = at + gap;
      at = first + count;
      return [first, count, value];
    });
  };
  const someRuns = fc
    .array(fc.tuple(fc.nat(5), fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 3 })), {
      size: 'max',
      maxLength: 60,
    })
    .map(runsOf);

  it('gives each page the value that its run has', () => {
    fc.assert(
      fc.property(someRuns, (runs) => {
        const made = layer('any', 'key', runs);
        for (let page = 0; page < 900; page++) {
          const run = runs.find(([first, count]) => page >= first && page < first + count);
          expect(valueAt(made, page)).toBe(run?.[2]);
        }
        const [from, to] = [40, 200];
        const seen = [...runsIn(made, from, to)];
        for (let page = from; page < to; page++) {
          const run = seen.find(([first, end]) => page >= first && page < end);
          expect(run?.[2]).toBe(valueAt(made, page));
        }
      }),
    );
  });
});

it('the heat of a page is the number of passes that have it', () => {
  const pass = fc
    .array(fc.tuple(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: 9 })), { maxLength: 8 })
    .map((pieces): PageRun[] => {
      let at = 0;
      return pieces.map(([gap, count]) => {
        const first = at + gap;
        at = first + count;
        return [first, count, 1];
      });
    });
  fc.assert(
    fc.property(fc.array(pass, { maxLength: 6 }), (passes) => {
      const made = layer('heat', 'heat', heatOf(passes));
      for (let page = 0; page < 120; page++) {
        const heat = passes.filter((runs) =>
          runs.some(([first, count]) => page >= first && page < first + count),
        ).length;
        expect(valueAt(made, page) ?? 0).toBe(heat);
      }
    }),
  );
});
