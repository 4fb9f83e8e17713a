import type { LayerData } from './data.ts';

/** So many runs at most: more of them say less than cells of several pages. */
const MOST_RUNS = 50_000;

/** A run of pages that have one value. */
export type PageRun = readonly [first: number, count: number, value: number];

/** A row of the map of runs in ascending order, in cells of so many pages that there are not too many of them. */
export function layer(name: string, kind: LayerData['kind'], runs: Iterable<PageRun>): LayerData {
  const exact = joined(runs);
  if (exact.length <= 3 * MOST_RUNS) return { name, kind, step: 1, most: largest(exact), runs: exact };
  for (let step = 2; ; step *= 2) {
    const cells = coarser(exact, step, kind);
    if (cells.length <= 3 * MOST_RUNS) return { name, kind, step, most: largest(cells), runs: cells };
  }
}

/** The same without runs that could be one. */
function joined(runs: Iterable<PageRun>): number[] {
  const out: number[] = [];
  for (const [first, count, value] of runs) {
    const last = out.length - 3;
    if (last >= 0 && out[last]! + out[last + 1]! === first && out[last + 2] === value) out[last + 1]! += count;
    else out.push(first, count, value);
  }
  return out;
}

/** In cells of `step` pages: pages are counted; of keys and heat, which cannot be added, the largest stands. */
function coarser(runs: readonly number[], step: number, kind: LayerData['kind']): number[] {
  const cells: PageRun[] = [];
  for (let i = 0; i < runs.length; i += 3) {
    const [first, count, value] = [runs[i]!, runs[i + 1]!, runs[i + 2]!];
    for (let page = first; page < first + count; ) {
      const cell = Math.floor(page / step);
      const whole = page % step === 0 ? Math.floor((first + count - page) / step) : 0;
      const pages = whole > 0 ? whole * step : Math.min(first + count, (cell + 1) * step) - page;
      put(cells, cell, Math.max(whole, 1), kind === 'count' ? (whole > 0 ? step : pages) * value : value, kind);
      page += pages;
    }
  }
  return joined(cells);
}

function put(cells: PageRun[], cell: number, count: number, value: number, kind: LayerData['kind']): void {
  const last = cells.at(-1);
  if (last === undefined || last[0] + last[1] <= cell) {
    cells.push([cell, count, value]);
    return;
  }
  cells[cells.length - 1] = [last[0], last[1], kind === 'count' ? last[2] + value : Math.max(last[2], value)];
}

function largest(runs: readonly number[]): number {
  let most = 0;
  for (let i = 2; i < runs.length; i += 3) most = Math.max(most, runs[i]!);
  return most;
}

/** Of passes that each say which pages they found, in how many each page was. */
export function* heatOf(passes: readonly (readonly PageRun[])[]): Generator<PageRun> {
  const edges = passes.flatMap((runs) =>
    runs.flatMap(([first, count]): [number, number][] => [
      [first, 1],
      [first + count, -1],
    ]),
  );
  edges.sort(([a], [b]) => a - b);
  let [at, heat] = [0, 0];
  for (const [page, change] of edges) {
    if (page > at && heat > 0) yield [at, page - at, heat];
    [at, heat] = [page, heat + change];
  }
}
