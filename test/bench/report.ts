import { table } from '../../lib/base/text.ts';
import type { Case, Outcome } from './measure.ts';

const UNITS: readonly (readonly [name: string, nanoseconds: number])[] = [
  ['s', 1e9],
  ['ms', 1e6],
  ['µs', 1e3],
  ['ns', 1],
];

/** Three significant digits. */
function short(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3);
}

function amount(value: number, unit: Case['unit']): string {
  if (unit === 'bytes') return `${short(value)} bytes`;
  const [name, size] = UNITS.find(([, nanoseconds]) => value >= nanoseconds) ?? ['ns', 1];
  return `${short(value / size)} ${name}`;
}

/** A case's ratios, with the quartiles of the rounds, and under them what one operation cost. */
export function report(measured: Case, outcome: Outcome): string {
  const rows = outcome.ratios.map(({ of, to, goal, times, median, lowerQuartile, upperQuartile }) => [
    `${of} / ${to}`,
    median.toFixed(3),
    `[${lowerQuartile.toFixed(3)}, ${upperQuartile.toFixed(3)}]`,
    times === undefined ? '' : `n^${(Math.log(median) / Math.log(times)).toFixed(2)}`,
    goal === undefined ? '' : `goal ${goal.toFixed(2)}: ${median <= goal ? 'reached' : 'missed'}`,
  ]);
  const costs = outcome.costs.map(({ name, median }) => `${name} ${amount(median, measured.unit)}`).join(', ');
  return `${measured.title}\n${table(['ratio', 'median', 'quartiles', '', ''], rows)}\n  one ${measured.per}: ${costs}\n`;
}
