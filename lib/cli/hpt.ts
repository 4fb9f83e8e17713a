import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { gunzipSync } from 'node:zlib';
import { virtualPage } from '../arch/ppc64/model/hash.ts';
import { HPTES_PER_GROUP, type Hpte } from '../arch/ppc64/model/hpte.ts';
import type { Htab } from '../arch/ppc64/model/htab.ts';
import { diffHtabs, groupOccupancy, htabStats, verifyHtab } from '../arch/ppc64/model/htab-report.ts';
import { checkHtabStream, decodeHtabStream, HtabStreamError, htabChunks } from '../arch/ppc64/model/htab-stream.ts';
import { table as columns, humanSize } from '../base/text.ts';

const USAGE = `usage: kvm-bridge hpt stats|dump|verify FILE
       kvm-bridge hpt diff FILE FILE

FILE is what an HTAB file descriptor of KVM gave (KVM_PPC_GET_HTAB_FD), gzipped or not.

  stats    how full the table is, as a picture, and what is in it
  dump     every valid entry with its fields
  diff     the slots in which two tables differ
  verify   whether the stream is whole and every entry stands where it can be found

  --order N           log2 of the table's size in bytes; the smallest possible unless given
  --headers ENDIAN    byte order of the chunk headers, little (the default) or big
  --slots FROM-TO     dump, diff: only these slots
`;

/** Exit statuses, as of diff(1): 1 is a difference or a finding, 2 is trouble. */
const STATUS = { OK: 0, FOUND: 1, TROUBLE: 2 } as const;

interface Output {
  write(text: string): unknown;
}

interface Options {
  readonly headers: 'little' | 'big';
  readonly order: number | undefined;
  readonly from: number;
  readonly to: number;
}

class UsageError extends Error {}

/**
 * `kvm-bridge hpt …`: tools over files with HTAB streams.
 * @param argv what follows `hpt` on the command line.
 * @param out where results go; `err` takes what went wrong.
 * @returns the exit status: 0, 1 for differences or findings, 2 when a file or the command line is unusable.
 */
export function hptCommand(argv: readonly string[], out: Output, err: Output): number {
  try {
    const { positionals, values } = parseArgs({
      args: [...argv],
      allowPositionals: true,
      options: {
        order: { type: 'string' },
        headers: { type: 'string', default: 'little' },
        slots: { type: 'string' },
        help: { type: 'boolean', short: 'h' },
      },
    });
    if (values.help === true) {
      out.write(USAGE);
      return STATUS.OK;
    }
    const [name = '', ...files] = positionals;
    const command = COMMANDS.get(name);
    if (command === undefined) throw new UsageError(name === '' ? 'which command?' : `there is no command ${name}`);
    if (files.length !== command.files)
      throw new UsageError(`${name} takes ${command.files} file(s), not ${files.length}`);
    return command.run(files, optionsOf(values), out);
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    const misused = error instanceof UsageError || ('code' in error && String(error.code).startsWith('ERR_PARSE_ARGS'));
    err.write(`kvm-bridge hpt: ${error.message}\n${misused ? `\n${USAGE}` : ''}`);
    return STATUS.TROUBLE;
  }
}

interface Command {
  readonly files: number;
  run(files: readonly string[], options: Options, out: Output): number;
}

const COMMANDS: ReadonlyMap<string, Command> = new Map<string, Command>([
  ['stats', { files: 1, run: stats }],
  ['dump', { files: 1, run: dump }],
  ['diff', { files: 2, run: diff }],
  ['verify', { files: 1, run: verify }],
]);

function optionsOf(values: { readonly order?: string; readonly headers?: string; readonly slots?: string }): Options {
  const { headers, slots } = values;
  if (headers !== 'little' && headers !== 'big') throw new UsageError(`--headers is little or big, not ${headers}`);
  const range = slots === undefined ? ['0', 'Infinity'] : /^(\d+)-(\d+)$/.exec(slots)?.slice(1);
  if (range === undefined) throw new UsageError(`--slots is FROM-TO, not ${slots}`);
  const order = values.order === undefined ? undefined : Number(values.order);
  if (order !== undefined && !Number.isInteger(order)) throw new UsageError(`--order is a number, not ${values.order}`);
  return { headers, order, from: Number(range[0]), to: Number(range[1]) };
}

function readStream(file: string): Uint8Array {
  const bytes = readFileSync(file);
  return bytes[0] === 0x1f && bytes[1] === 0x8b ? gunzipSync(bytes) : bytes;
}

function readTable(file: string, { headers, order }: Options): Htab {
  try {
    return decodeHtabStream(readStream(file), { headers, ...(order === undefined ? {} : { order }) });
  } catch (error) {
    if (error instanceof HtabStreamError) error.message = `${file}: ${error.message}`;
    throw error;
  }
}

const PICTURE_WIDTH = 64;
const PICTURE_ROWS = 16;
/** One character for 0 to 8 entries in a group. */
const LEVELS = ' ▁▂▃▄▅▆▇█';

function stats([file = '']: readonly string[], options: Options, out: Output): number {
  const htab = readTable(file, options);
  const found = htabStats(htab);
  const share = (count: number): string => `${((100 * count) / Math.max(found.valid, 1)).toFixed(1)}%`;
  out.write(
    `${file}: order ${htab.order} (${humanSize(2 ** htab.order)}), ${found.slots} slots in ${found.groups} groups\n\n`,
  );
  const counts: [string, number][] = [
    ['valid', found.valid],
    ['bolted', found.bolted],
    ['secondary', found.secondary],
    ['256M segments', found.segments256M],
    ['1T segments', found.segments1T],
    ['referenced', found.referenced],
    ['changed', found.changed],
    ['no execute', found.noExecute],
  ];
  const listed = (map: ReadonlyMap<string | number, number>, name: string): [string, number][] =>
    [...map].map(([key, count]) => [`${name} ${key}`, count]);
  const rows = [
    ...counts,
    ...listed(found.pageSizes, 'page size'),
    ...listed(found.keys, 'key'),
    ...listed(found.pp, 'PP'),
    ...listed(found.wimg, 'WIMG'),
  ];
  out.write(
    `${columns(
      ['entries', 'count', ''],
      rows.map(([name, count]) => [name, `${count}`, share(count)]),
    )}\n\n`,
  );

  const occupancy = found.occupancy.map((groups, inGroup) => [`${inGroup}`, `${groups}`]);
  out.write(`${columns(['in a group', 'groups'], occupancy)}\n\n`);
  const picture = groupOccupancy(htab, PICTURE_WIDTH * PICTURE_ROWS);
  const groupsPerCell = Math.round(found.groups / picture.length);
  out.write(`How full the groups are, ${groupsPerCell} to a character (blank: empty, ${LEVELS.at(-1)}: full)\n`);
  for (let row = 0; row < picture.length; row += PICTURE_WIDTH) {
    const line = [...picture.subarray(row, row + PICTURE_WIDTH)].map((average) => LEVELS[levelOf(average)]).join('');
    out.write(`  ${line}|\n`);
  }
  return STATUS.OK;
}

/** A group that isn't empty never looks so, nor full one that isn't. */
function levelOf(average: number): number {
  if (average === 0 || average === HPTES_PER_GROUP) return average;
  return Math.min(HPTES_PER_GROUP - 1, Math.max(1, Math.round(average)));
}

function dump([file = '']: readonly string[], options: Options, out: Output): number {
  const htab = readTable(file, options);
  for (let slot = options.from; slot < Math.min(options.to, htab.entryCount); slot++) {
    if (htab.isValid(slot)) out.write(`${slot}: ${describe(htab.get(slot), slot, htab.order)}\n`);
  }
  return STATUS.OK;
}

/** An entry with the virtual page that its place gives back. */
function describe(entry: Hpte, slot: number, order: number): string {
  const page = virtualPage(entry, slot, order);
  if (page === undefined) return `${entry}`;
  const where = page.reachable ? `offset 0x${page.offset.toString(16)}` : 'not where its hash leads';
  return `vsid 0x${page.vsid.toString(16)} ${where}, ${entry}`;
}

function diff([before = '', after = '']: readonly string[], options: Options, out: Output): number {
  const tables = [readTable(before, options), readTable(after, options)] as const;
  let count = 0;
  for (const difference of diffHtabs(...tables)) {
    const { slot } = difference;
    if (slot < options.from || slot >= options.to) continue;
    count++;
    if (difference.before !== undefined) out.write(`-${slot}: ${describe(difference.before, slot, tables[0].order)}\n`);
    if (difference.after !== undefined) out.write(`+${slot}: ${describe(difference.after, slot, tables[1].order)}\n`);
  }
  return count === 0 ? STATUS.OK : STATUS.FOUND;
}

function verify([file = '']: readonly string[], options: Options, out: Output): number {
  const htab = readTable(file, options);
  const bytes = readStream(file);
  const format = { headers: options.headers };
  const { chunks, valid, invalid } = checkHtabStream(bytes, format);
  let next = 0;
  let contiguous = true;
  for (const chunk of htabChunks(bytes, format)) {
    contiguous &&= chunk.index === next;
    next = chunk.index + chunk.nValid + chunk.nInvalid;
  }
  const pass =
    contiguous && next === htab.entryCount
      ? `a whole first pass of order ${htab.order}`
      : `part of a table of order ${htab.order} or more, as of a later pass`;
  out.write(`${file}: ${chunks} chunks, ${valid} valid entries, ${invalid} empty slots: ${pass}\n`);
  let findings = 0;
  for (const { slot, entry, message } of verifyHtab(htab)) {
    findings++;
    out.write(`${slot}: ${message}: ${entry}\n`);
  }
  out.write(findings === 0 ? 'every entry stands where its hash leads\n' : `${findings} finding(s)\n`);
  return findings === 0 ? STATUS.OK : STATUS.FOUND;
}
