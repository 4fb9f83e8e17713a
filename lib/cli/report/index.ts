import { statSync, writeFileSync } from 'node:fs';
import { basename, resolve } from 'node:path';
import { humanSize } from '../../base/text.ts';
import { readCapture } from '../capture.ts';
import type { Command } from '../command.ts';
import { readTable, TableFileError } from '../hpt/read-table.ts';
import { nameOf, peek, readInput } from '../input.ts';
import { complain, type Io, UsageError } from '../io.ts';
import { readTrace, TraceFileError } from '../replay/read-trace.ts';
import type { ReportData } from './data.ts';
import { html, pageTemplate } from './html.ts';
import { reportOfCapture } from './of-capture.ts';
import { hptOf, hptTable, virtualPagesOf } from './of-ppc64.ts';
import { reportOfTrace } from './of-trace.ts';

/** `kvm-bridge report FILE -o report.html` */
export const report: Command = {
  summary: 'a guest, its page table or a trace, as a page to look at',
  usage: 'FILE [-o report.html]',
  details: `FILE is a captured guest (a folder with capture.json and pages.bin), an HTAB stream of ppc64, gzipped or not, or
a trace that --trace-out made: of one with dirty logs the page shows each pass. The latter two may be standard input (-).

The page shows the memory to scale with what is known of each page, storage keys and the hashed page table as maps to zoom into, and
address spaces that unfold level by level; any address can be looked up. It is one file, needs nothing else, and can be sent.`,
  options: {
    json: { type: 'boolean', help: 'what the page shows, as JSON' },
    out: {
      type: 'string',
      short: 'o',
      value: 'FILE',
      help: 'where to write the page; else, or for -, to standard output',
    },
  },
  positionals: { least: 1, most: 1 },
  async run({ out: given, json }, [file = ''], io) {
    const out = given === '-' ? undefined : given;
    if (out === undefined && json !== true && io.stdout.isTTY === true) {
      throw new UsageError('a page is nothing for a terminal: say where to write it, as in -o report.html', 'report');
    }
    let data: ReportData;
    try {
      data = await read(file, io);
    } catch (error) {
      if (!(error instanceof TableFileError || error instanceof TraceFileError)) throw error;
      complain(io, 'report', error.message);
      return 1;
    }
    const text = json === true ? `${JSON.stringify(data, null, 2)}\n` : html(pageTemplate(), data);
    if (out === undefined) {
      await new Promise<unknown>((done) => io.stdout.write(text, done));
      return 0;
    }
    writeFileSync(String(out), text);
    io.stderr.write(`${out}: ${humanSize(Buffer.byteLength(text))}\n`);
    return 0;
  },
};

const TRACE_START = '{"kvm-bridge-trace"';

async function read(file: string, io: Io): Promise<ReportData> {
  const name = file === '-' ? nameOf(file) : basename(resolve(file));
  if (file !== '-' && statSync(file).isDirectory()) return reportOfCapture(readCapture(file), name);
  const { start, all } = await peek(readInput(file, io), TRACE_START.length);
  if (start.toString('latin1', 0, TRACE_START.length) === TRACE_START) return await reportOfTrace(readTrace(all), name);
  const { table } = await readTable(nameOf(file), all, { headers: 'little', order: undefined });
  return {
    title: name,
    about: [`A hashed page table of ppc64, order ${table.order}`],
    pageSize: 4096,
    hpt: hptOf(table),
    spaces: [virtualPagesOf(table, [])],
    tables: [hptTable(table)],
  };
}
