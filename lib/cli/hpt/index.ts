import { entriesOf, HPT_ORDER } from '../../arch/ppc64/model/hash.ts';
import { FOUND_ORDER_MAX } from '../../arch/ppc64/model/htab-stream.ts';
import { counted } from '../../base/text.ts';
import type { Command, Values } from '../command.ts';
import { nameOf, readInput } from '../input.ts';
import { complain, UsageError } from '../io.ts';
import { suggestion } from '../nearest.ts';
import { Progress, percent } from '../progress.ts';
import { JSON_REPORTS } from './json.ts';
import { readTable, type TableFile, TableFileError } from './read-table.ts';
import { diff, dump, type Extent, type Report, STATUS, stats, verify } from './reports.ts';

const MOST_FINDINGS = 1000;

/** `kvm-bridge hpt …`: tools over files with HTAB streams. */
export const hpt: Command = {
  summary: 'tools for hashed page tables of ppc64',
  usage: 'stats|dump|verify FILE, or diff FILE FILE',
  details: `FILE is what an HTAB file descriptor of KVM gave (KVM_PPC_GET_HTAB_FD), gzipped or not; - is standard input.

  stats    how full the table is, as a picture, and what is in it
  dump     every valid entry with its fields
  diff     the slots in which two tables differ
  verify   whether the stream is whole and every entry stands where it can be found

The status is 0, 1 for differences or findings, 2 for a file that is of no use.`,
  options: {
    order: {
      type: 'string',
      value: 'N',
      help: `log2 of the table's size in bytes, ${HPT_ORDER.MIN} to ${HPT_ORDER.MAX}; else the smallest possible, up to ${FOUND_ORDER_MAX}`,
    },
    headers: { type: 'string', value: 'ENDIAN', help: 'byte order of the chunk headers, little (the default) or big' },
    slots: { type: 'string', value: 'FROM-TO', help: 'dump, diff: only these slots, without TO' },
    json: { type: 'boolean', help: 'the same as JSON' },
    findings: { type: 'string', value: 'N', help: `verify: stop after so many, ${MOST_FINDINGS} unless given` },
  },
  positionals: { least: 0, most: Number.POSITIVE_INFINITY },
  async run(values, [name = '', ...files], io) {
    const tool = toolFor(name, files, values);
    const { headers, order, extent } = optionsOf(values);
    const report = values.json === true ? tool.asJson : tool.report;
    try {
      const read = (file: string) => readTable(nameOf(file), readInput(file, io), { headers, order });
      const [first = '', ...others] = files;
      const tables: [TableFile, ...TableFile[]] = [await read(first)];
      for (const file of others) tables.push(await read(file));
      using progress = new Progress(io.stderr);
      const verified = (slots: number, of: number) =>
        progress.show(() => `verifying: ${slots} of ${of} slots, ${percent(slots, of)}`);
      return await writeAll(report(tables, { ...extent, verified }), io.stdout, progress);
    } catch (error) {
      if (!(error instanceof TableFileError)) throw error;
      complain(io, 'hpt', error.message);
      return STATUS.TROUBLE;
    }
  },
};

const misuse = (message: string): UsageError => new UsageError(message, 'hpt');

function toolFor(name: string, files: readonly string[], values: Values): Tool {
  const tool = TOOLS.get(name);
  if (tool === undefined) {
    const known = [...TOOLS.keys()];
    if (name === '') throw misuse(`which command? There are ${known.join(', ')}`);
    throw misuse(`there is no command ${name}${suggestion(name, known)}`);
  }
  if (files.filter((file) => file === '-').length > 1) throw misuse('standard input can be only one of the files');
  if (files.length !== tool.files) throw misuse(`${name} takes ${counted(tool.files, 'file')}, not ${files.length}`);
  for (const option of ['slots', 'findings'] as const) {
    if (values[option] === undefined || tool.takes === option) continue;
    throw misuse(`--${option} is of no use to ${name}`);
  }
  return tool;
}

/** Text is written in blocks of about so many characters. */
const BLOCK = 0x1_0000;

/** Writes what a report has to say, no faster than it is taken. @returns what the report does */
async function writeAll(
  report: Generator<string, number, undefined>,
  out: NodeJS.WritableStream,
  progress: Progress,
): Promise<number> {
  const written = (block: string) => {
    progress.clear();
    return new Promise<unknown>((done) => out.write(block, done));
  };
  let block = '';
  for (let next = report.next(); ; next = report.next()) {
    if (next.done === true) {
      if (block !== '') await written(block);
      return next.value;
    }
    block += next.value;
    if (block.length < BLOCK) continue;
    await written(block);
    block = '';
  }
}

interface Tool {
  readonly files: number;
  readonly takes?: 'slots' | 'findings';
  readonly report: Report;
  readonly asJson: Report;
}

const TOOLS: ReadonlyMap<string, Tool> = new Map<string, Tool>([
  ['stats', { files: 1, report: stats, asJson: JSON_REPORTS.stats }],
  ['dump', { files: 1, takes: 'slots', report: dump, asJson: JSON_REPORTS.dump }],
  ['diff', { files: 2, takes: 'slots', report: diff, asJson: JSON_REPORTS.diff }],
  ['verify', { files: 1, takes: 'findings', report: verify, asJson: JSON_REPORTS.verify }],
]);

function optionsOf(values: Values) {
  const text = (option: string) => (values[option] === undefined ? undefined : String(values[option]));
  const headers = text('headers') ?? 'little';
  if (headers !== 'little' && headers !== 'big') throw misuse(`--headers is little or big, not ${headers}`);
  const findings = text('findings') ?? `${MOST_FINDINGS}`;
  if (!/^0*[1-9]\d*$/.test(findings)) throw misuse(`--findings is a number above 0, not ${findings}`);
  const extent: Extent = { ...slotsOf(text('slots')), findings: Number(findings) };
  return { headers, order: orderOf(text('order')), extent } as const;
}

function orderOf(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const order = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (order >= HPT_ORDER.MIN && order <= HPT_ORDER.MAX) return order;
  throw misuse(`--order is a number from ${HPT_ORDER.MIN} to ${HPT_ORDER.MAX}, not ${text}`);
}

function slotsOf(text: string | undefined): Pick<Extent, 'from' | 'to'> {
  if (text === undefined) return { from: 0, to: Number.POSITIVE_INFINITY };
  const [from, to] = (/^(\d+)-(\d+)$/.exec(text)?.slice(1) ?? []).map(Number);
  if (from === undefined || to === undefined) throw misuse(`--slots is FROM-TO, two numbers, not ${text}`);
  const most = entriesOf(HPT_ORDER.MAX);
  if (from < to && to <= most) return { from, to };
  throw misuse(`--slots is FROM-TO with FROM below TO, and TO at most ${most}, not ${text}`);
}
