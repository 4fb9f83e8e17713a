import { virtualPage } from '../../arch/ppc64/model/hash.ts';
import { HPTES_PER_GROUP, type Hpte } from '../../arch/ppc64/model/hpte.ts';
import {
  diffHtabs,
  findingAt,
  groupOccupancy,
  type HtabDifference,
  type HtabFinding,
  type HtabStats,
  htabStats,
} from '../../arch/ppc64/model/htab-report.ts';
import { table as columns, counted, humanSize } from '../../base/text.ts';
import { type TableFile, TableFileError } from './read-table.ts';

/** Exit statuses, as of diff(1): 1 is a difference or a finding, 2 is trouble. */
export const STATUS = { OK: 0, FOUND: 1, TROUBLE: 2 } as const;

/** What of it is asked for. */
export interface Extent {
  /** The slots to look at: `from` to `to` - 1. */
  readonly from: number;
  readonly to: number;
  /** Findings after which to stop. */
  readonly findings: number;
  /** Is told how many of the table's slots were verified. */
  readonly verified?: (slots: number, of: number) => void;
}

/** What there is to say of one file, or of two, a piece of text at a time; then the exit status. */
export type Report = (
  files: readonly [TableFile, ...TableFile[]],
  extent: Extent,
) => Generator<string, number, undefined>;

const PICTURE_WIDTH = 64;
const PICTURE_ROWS = 16;
/** One character for 0 to 8 entries in a group. */
const LEVELS = ' ▁▂▃▄▅▆▇█';

/** What a table has, each with how many entries it is of. */
export function namedCounts(found: HtabStats): [string, number][] {
  const listed = (map: ReadonlyMap<string | number, number>, name: string): [string, number][] =>
    [...map].map(([key, count]) => [`${name} ${key}`, count]);
  return [
    ['valid', found.valid],
    ['bolted', found.bolted],
    ['secondary', found.secondary],
    ['256M segments', found.segments256M],
    ['1T segments', found.segments1T],
    ['referenced', found.referenced],
    ['changed', found.changed],
    ['no execute', found.noExecute],
    ...listed(found.pageSizes, 'page size'),
    ...listed(found.keys, 'key'),
    ...listed(found.pp, 'PP'),
    ...listed(found.wimg, 'WIMG'),
  ];
}

export const stats: Report = function* ([{ file, table: htab }]) {
  const found = htabStats(htab);
  const share = (count: number): string => `${((100 * count) / Math.max(found.valid, 1)).toFixed(1)}%`;
  yield `${file}: order ${htab.order} (${humanSize(2 ** htab.order)}), ${found.slots} slots in ${found.groups} groups\n\n`;
  const rows = namedCounts(found);
  yield `${columns(
    ['entries', 'count', ''],
    rows.map(([name, count]) => [name, `${count}`, share(count)]),
  )}\n\n`;

  const occupancy = found.occupancy.map((groups, inGroup) => [`${inGroup}`, `${groups}`]);
  yield `${columns(['in a group', 'groups'], occupancy)}\n\n`;
  const picture = groupOccupancy(htab, PICTURE_WIDTH * PICTURE_ROWS);
  const groupsPerCell = Math.round(found.groups / picture.length);
  yield `How full the groups are, ${groupsPerCell} to a character (blank: empty, ${LEVELS.at(-1)}: full)\n`;
  for (let row = 0; row < picture.length; row += PICTURE_WIDTH) {
    const line = [...picture.subarray(row, row + PICTURE_WIDTH)].map((average) => LEVELS[levelOf(average)]).join('');
    yield `  ${line}|\n`;
  }
  return STATUS.OK;
};

/** A group that isn't empty never looks so, nor full one that isn't. */
function levelOf(average: number): number {
  if (average === 0 || average === HPTES_PER_GROUP) return average;
  return Math.min(HPTES_PER_GROUP - 1, Math.max(1, Math.round(average)));
}

export const dump: Report = function* ([read], slots) {
  const { table } = read;
  for (const slot of entriesIn(read, slots)) yield `${slot}: ${describe(table.get(slot), slot, table.order)}\n`;
  return STATUS.OK;
};

/** The slots that have a valid entry. @throws TableFileError when none of those asked for is in the table */
export function* entriesIn(read: TableFile, slots: Extent): Generator<number, void, undefined> {
  const { table } = read;
  checkSlots(read, slots);
  for (let slot = slots.from; slot < Math.min(slots.to, table.entryCount); slot++) {
    if (table.isValid(slot)) yield slot;
  }
}

/** @throws TableFileError when none of the slots is in the table */
function checkSlots({ file, table }: TableFile, { from }: Extent): void {
  if (from < table.entryCount) return;
  throw new TableFileError(file, `slot ${from} is not in a table of order ${table.order}, ${table.entryCount} slots`);
}

/** An entry with the virtual page that its place gives back. */
function describe(entry: Hpte, slot: number, order: number): string {
  const page = virtualPage(entry, slot, order);
  if (page === undefined) return `${entry}`;
  const where = page.reachable ? `offset 0x${page.offset.toString(16)}` : 'not where its hash leads';
  return `vsid 0x${page.vsid.toString(16)} ${where}, ${entry}`;
}

export const diff: Report = function* ([before, after = before], slots) {
  const { order } = before.table;
  let count = 0;
  for (const { slot, before: old, after: now } of differencesIn(before, after, slots)) {
    count++;
    if (old !== undefined) yield `-${slot}: ${describe(old, slot, order)}\n`;
    if (now !== undefined) yield `+${slot}: ${describe(now, slot, order)}\n`;
  }
  return count === 0 ? STATUS.OK : STATUS.FOUND;
};

/** @throws TableFileError for tables that can't be compared, and slots that aren't in them */
export function* differencesIn(
  before: TableFile,
  after: TableFile,
  slots: Extent,
): Generator<HtabDifference, void, undefined> {
  const { order } = before.table;
  if (after.table.order !== order) {
    const why = `a table of order ${after.table.order}, and that of ${before.file} is of order ${order}`;
    throw new TableFileError(after.file, `${why}: slots of such tables cannot be compared (--order, if it is known)`);
  }
  checkSlots(before, slots);
  for (const each of diffHtabs(before.table, after.table)) {
    if (each.slot >= slots.from && each.slot < slots.to) yield each;
  }
}

export const verify: Report = function* ([read], extent) {
  const { file, table, stream, isFirstPass } = read;
  const { findings: most } = extent;
  const pass = isFirstPass
    ? `a whole first pass of order ${table.order}`
    : `part of a table of order ${table.order} or more, as of a later pass`;
  const { chunks, valid, invalid } = stream;
  yield `${file}: ${counted(chunks, 'chunk')}, ${counted(valid, 'valid entry', 'valid entries')}, ${counted(invalid, 'empty slot')}: ${pass}\n`;
  let findings = 0;
  for (const { slot, entry, message } of findingsIn(read, { ...extent, findings: most + 1 })) {
    if (findings === most) {
      yield `${counted(most, 'finding')}, and it was looked no further (--findings N)\n`;
      return STATUS.FOUND;
    }
    findings++;
    yield `${slot}: ${message}: ${entry}\n`;
  }
  if (findings > 0) yield `${counted(findings, 'finding')}\n`;
  else if (valid > 0 && htabStats(table).valid > 0) yield 'every entry stands where its hash leads\n';
  else yield 'there is no entry in it, and nothing to verify\n';
  return findings === 0 ? STATUS.OK : STATUS.FOUND;
};

/** So many slots are verified between two tellings of how far it is. */
const TOLD_EACH = 2 ** 12;

/** What is wrong with a table, no more of it than is asked for. */
export function* findingsIn(
  { table, stream }: TableFile,
  { findings: most, verified }: Extent,
): Generator<HtabFinding, void, undefined> {
  // To look at all of an empty table may give it pages: not every kernel has one for zeros.
  if (stream.valid === 0) return;
  let left = most;
  for (let slot = 0; slot < table.entryCount && left > 0; slot++) {
    if (slot % TOLD_EACH === 0) verified?.(slot, table.entryCount);
    const finding = findingAt(table, slot);
    if (finding === undefined) continue;
    left--;
    yield finding;
  }
}
