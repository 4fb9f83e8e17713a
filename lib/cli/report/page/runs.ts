import type { LayerData } from '../data.ts';

/** Where the run begins that has the cell, or the one behind it. */
function indexOf(runs: readonly number[], cell: number): number {
  let [low, high] = [0, runs.length / 3];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (runs[3 * middle]! + runs[3 * middle + 1]! <= cell) low = middle + 1;
    else high = middle;
  }
  return 3 * low;
}

/** The value of a page; undefined where there is none. */
export function valueAt({ runs, step }: LayerData, page: number): number | undefined {
  const cell = Math.floor(page / step);
  const at = indexOf(runs, cell);
  return at < runs.length && runs[at]! <= cell ? runs[at + 2] : undefined;
}

/** The runs that touch pages `from` to `to`, in pages. */
export function* runsIn(
  { runs, step }: LayerData,
  from: number,
  to: number,
): Generator<readonly [first: number, end: number, value: number]> {
  for (let at = indexOf(runs, Math.floor(from / step)); at < runs.length && runs[at]! * step < to; at += 3) {
    yield [runs[at]! * step, (runs[at]! + runs[at + 1]!) * step, runs[at + 2]!];
  }
}
