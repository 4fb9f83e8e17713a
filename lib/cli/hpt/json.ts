import { virtualPage } from '../../arch/ppc64/model/hash.ts';
import type { Hpte } from '../../arch/ppc64/model/hpte.ts';
import { htabStats } from '../../arch/ppc64/model/htab-report.ts';
import { hex } from '../../base/errors.ts';
import { differencesIn, entriesIn, findingsIn, type Report, STATUS } from './reports.ts';

/*
 * The reports as JSON: one object each, words and addresses in hexadecimal as text, long lists with an element a line.
 */

/** An entry with its fields, and the virtual page that its place gives back: where it can be found. */
function entryOf(entry: Hpte, slot: number, order: number): object {
  const { v, r, segmentSize, baseShift, shift, ra, pp, key, wimg } = entry;
  const { noExecute, referenced, changed, bolted, secondary } = entry;
  const page = virtualPage(entry, slot, order);
  return {
    ...{ v: hex(v), r: hex(r) },
    ...(page === undefined ? {} : { vsid: hex(page.vsid) }),
    ...(page?.reachable === true ? { offset: hex(page.offset) } : {}),
    ...{ segmentSize, baseShift, shift, ra: hex(ra), pp, key, wimg },
    ...{ noExecute, referenced, changed, bolted, secondary },
  };
}

/** An object whose last part is a list. @returns how many elements that has */
function* withList(head: object, name: string, elements: Iterable<object>): Generator<string, number, undefined> {
  yield `${JSON.stringify(head).slice(0, -1)},"${name}":[`;
  let count = 0;
  for (const element of elements) yield `${count++ === 0 ? '' : ','}\n${JSON.stringify(element)}`;
  yield `${count === 0 ? '' : '\n'}]}\n`;
  return count;
}

function* mapped<T, U>(values: Iterable<T>, map: (value: T) => U): Generator<U, void, undefined> {
  for (const value of values) yield map(value);
}

const stats: Report = function* ([{ file, table }]) {
  const { pageSizes, keys, pp, wimg, ...counts } = htabStats(table);
  const maps = Object.entries({ pageSizes, keys, pp, wimg }).map(([name, map]) => [name, Object.fromEntries(map)]);
  yield `${JSON.stringify({ file, order: table.order, ...counts, ...Object.fromEntries(maps) }, null, 2)}\n`;
  return STATUS.OK;
};

const dump: Report = function* ([read], slots) {
  const { file, table } = read;
  const { order } = table;
  const entries = mapped(entriesIn(read, slots), (slot) => ({ slot, ...entryOf(table.get(slot), slot, order) }));
  yield* withList({ file, order }, 'entries', entries);
  return STATUS.OK;
};

const diff: Report = function* ([before, after = before], slots) {
  const { order } = before.table;
  const shown = (entry: Hpte | undefined, slot: number) => (entry === undefined ? null : entryOf(entry, slot, order));
  const differences = mapped(differencesIn(before, after, slots), ({ slot, before: old, after: now }) => ({
    ...{ slot, before: shown(old, slot), after: shown(now, slot) },
  }));
  const count = yield* withList({ before: before.file, after: after.file, order }, 'differences', differences);
  return count === 0 ? STATUS.OK : STATUS.FOUND;
};

/** Where as many findings are listed as were asked for, there may be more. */
const verify: Report = function* ([read], extent) {
  const { file, table, stream, isFirstPass } = read;
  const { chunks, valid, invalid } = stream;
  const findings = mapped(findingsIn(read, extent), ({ slot, problem, message, entry }) => ({
    ...{ slot, problem, message, entry: entryOf(entry, slot, table.order) },
  }));
  const head = { file, order: table.order, isFirstPass, chunks, valid, invalid, mostFindings: extent.findings };
  const count = yield* withList(head, 'findings', findings);
  return count === 0 ? STATUS.OK : STATUS.FOUND;
};

export const JSON_REPORTS = { stats, dump, diff, verify } as const;
