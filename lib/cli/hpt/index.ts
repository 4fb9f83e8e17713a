import { parseArgs } from 'node:util';
import { entriesOf, HPT_ORDER } from '../../arch/ppc64/model/hash.ts';
import { FOUND_ORDER_MAX } from '../../arch/ppc64/model/htab-stream.ts';
import { UsageError } from '../io.ts';
import { readTable, type TableFile, TableFileError } from './read-table.ts';
import { diff, dump, type Extent, type Report, STATUS, stats, verify } from './reports.ts';

const MOST_FINDINGS = 1000;

const USAGE = `usage: kvm-bridge hpt stats|dump|verify FILE
       kvm-bridge hpt diff FILE FILE

FILE is what an HTAB file descriptor of KVM gave (KVM_PPC_GET_HTAB_FD), gzipped or not.

  stats    how full the table is, as a picture, and what is in it
  dump     every valid entry with its fields
  diff     the slots in which two tables differ
  verify   whether the stream is whole and every entry stands where it can be found

  --order N           log2 of the table's size in bytes, ${HPT_ORDER.MIN} to ${HPT_ORDER.MAX}; unless given the smallest
                      possible, up to ${FOUND_ORDER_MAX}
  --headers ENDIAN    byte order of the chunk headers, little (the default) or big
  --slots FROM-TO     dump, diff: only these slots, without TO
  --findings N        verify: stop after so many, ${MOST_FINDINGS} unless given
`;

/** A stream, or what stands in for one. */
export interface Output {
  write(text: string, done: (error?: Error | null) => void): unknown;
}

/**
 * `kvm-bridge hpt …`: tools over files with HTAB streams.
 * @param argv what follows `hpt` on the command line.
 * @param out where results go; `err` takes what went wrong.
 * @returns the exit status: 0, 1 for differences or findings, 2 when a file or the command line is unusable.
 */
export async function hptCommand(argv: readonly string[], out: Output, err: Output): Promise<number> {
  try {
    const { positionals, values } = parseArgs({
      args: [...argv],
      allowPositionals: true,
      options: {
        order: { type: 'string' },
        headers: { type: 'string', default: 'little' },
        slots: { type: 'string' },
        findings: { type: 'string' },
        help: { type: 'boolean', short: 'h' },
      },
    });
    if (values.help === true) {
      out.write(USAGE, () => {});
      return STATUS.OK;
    }
    const [name = '', ...files] = positionals;
    const command = COMMANDS.get(name);
    if (command === undefined) throw new UsageError(name === '' ? 'which command?' : `there is no command ${name}`);
    if (files.length !== command.files)
      throw new UsageError(`${name} takes ${command.files} file(s), not ${files.length}`);
    for (const option of ['slots', 'findings'] as const) {
      if (values[option] === undefined || command.takes === option) continue;
      throw new UsageError(`--${option} is of no use to ${name}`);
    }
    const { headers, order, extent } = optionsOf(values);
    const read = (file: string) => readTable(file, { headers, order });
    const [first = '', ...others] = files;
    const tables: [TableFile, ...TableFile[]] = [await read(first)];
    for (const file of others) tables.push(await read(file));
    return await writeAll(command.report(tables, extent), out);
  } catch (error) {
    const misused = error instanceof UsageError || codeOf(error).startsWith('ERR_PARSE_ARGS');
    if (!(misused || error instanceof TableFileError)) throw error;
    err.write(`kvm-bridge hpt: ${(error as Error).message}\n${misused ? `\n${USAGE}` : ''}`, () => {});
    return STATUS.TROUBLE;
  }
}

/** Text is written in blocks of about so many characters. */
const BLOCK = 0x1_0000;

/** Writes what a report has to say, no faster than it is taken. @returns what the report does */
async function writeAll(report: Generator<string, number, undefined>, out: Output): Promise<number> {
  const written = (block: string) => new Promise<unknown>((done) => out.write(block, done));
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

const codeOf = (error: unknown): string => (error instanceof Error && 'code' in error ? String(error.code) : '');

interface Command {
  readonly files: number;
  readonly takes?: 'slots' | 'findings';
  readonly report: Report;
}

const COMMANDS: ReadonlyMap<string, Command> = new Map<string, Command>([
  ['stats', { files: 1, report: stats }],
  ['dump', { files: 1, takes: 'slots', report: dump }],
  ['diff', { files: 2, takes: 'slots', report: diff }],
  ['verify', { files: 1, takes: 'findings', report: verify }],
]);

interface Values {
  readonly order?: string;
  readonly headers?: string;
  readonly slots?: string;
  readonly findings?: string;
}

function optionsOf(values: Values) {
  const { headers } = values;
  if (headers !== 'little' && headers !== 'big') throw new UsageError(`--headers is little or big, not ${headers}`);
  const { findings = `${MOST_FINDINGS}` } = values;
  if (!/^0*[1-9]\d*$/.test(findings)) throw new UsageError(`--findings is a number above 0, not ${findings}`);
  const extent: Extent = { ...slotsOf(values.slots), findings: Number(findings) };
  return { headers, order: orderOf(values.order), extent } as const;
}

function orderOf(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const order = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (order >= HPT_ORDER.MIN && order <= HPT_ORDER.MAX) return order;
  throw new UsageError(`--order is a number from ${HPT_ORDER.MIN} to ${HPT_ORDER.MAX}, not ${text}`);
}

function slotsOf(text: string | undefined): Pick<Extent, 'from' | 'to'> {
  if (text === undefined) return { from: 0, to: Number.POSITIVE_INFINITY };
  const [from, to] = (/^(\d+)-(\d+)$/.exec(text)?.slice(1) ?? []).map(Number);
  if (from === undefined || to === undefined) throw new UsageError(`--slots is FROM-TO, two numbers, not ${text}`);
  const most = entriesOf(HPT_ORDER.MAX);
  if (from < to && to <= most) return { from, to };
  throw new UsageError(`--slots is FROM-TO with FROM below TO, and TO at most ${most}, not ${text}`);
}
