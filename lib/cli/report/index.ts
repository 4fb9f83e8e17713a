import { statSync } from 'node:fs';
import { basename, resolve } from 'node:path';
import { replaceFile } from '../../base/replace-file.ts';
import { humanSize } from '../../base/text.ts';
import { captureOf, readCapture } from '../capture.ts';
import { filesInArchive } from '../capture-files.ts';
import type { Command } from '../command.ts';
import { inputProblem } from '../file-problem.ts';
import { readTable, type TableFile, TableFileError } from '../hpt/read-table.ts';
import { nameOf, peek, readInput, unpacked } from '../input.ts';
import { complain, type Io, UsageError } from '../io.ts';
import { readTrace, TraceFileError } from '../replay/read-trace.ts';
import { isTar, TAR_START } from '../tar.ts';
import type { ReportData } from './data.ts';
import { html, pageTemplate } from './html.ts';
import { reportOfCapture } from './of-capture.ts';
import { hptOf, hptTable, virtualPagesOf } from './of-ppc64.ts';
import { reportOfTrace } from './of-trace.ts';

/** `kvm-bridge report FILE -o report.html` */
export const report: Command = {
  summary: 'a guest, its page table or a trace, as a page to look at',
  usage: 'FILE [-o report.html]',
  details: `FILE is a captured guest (a folder with capture.json and pages.bin, or a .tar of it), an HTAB stream of ppc64, or a trace that
--trace-out made: of one with dirty logs or rings the page shows each pass. All but a folder may be gzipped, and standard input (-).

The page shows the memory to scale with what is known of each page, storage keys and the hashed page table as maps to zoom into, and
address spaces that unfold level by level; any address can be looked up. It is one file, needs nothing else, and can be sent.

The status is 2 for a file that is of no use.`,
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
      const problem = error instanceof TraceFileError ? error.message : inputProblem(error, file);
      if (problem === undefined && !(error instanceof TableFileError)) throw error;
      complain(io, 'report', error instanceof TableFileError ? error.message : `${nameOf(file)}: ${problem}`);
      return 2;
    }
    const text = json === true ? `${JSON.stringify(data, null, 2)}\n` : html(pageTemplate(), data);
    if (out === undefined) {
      await new Promise<unknown>((done) => io.stdout.write(text, done));
      return 0;
    }
    replaceFile(String(out), text);
    io.stderr.write(`${out}: ${humanSize(Buffer.byteLength(text))}\n`);
    return 0;
  },
};

const TRACE_START = '{"kvm-bridge-trace"';

async function read(file: string, io: Io): Promise<ReportData> {
  const name = file === '-' ? nameOf(file) : basename(resolve(file));
  if (file !== '-' && statSync(file).isDirectory()) return reportOfCapture(await readCapture(file, io), name);
  const { start, all } = await peek(unpacked(readInput(file, io)), TAR_START);
  if (start.toString('latin1', 0, TRACE_START.length) === TRACE_START) return await reportOfTrace(readTrace(all), name);
  if (isTar(start)) return reportOfCapture(captureOf(nameOf(file), await filesInArchive(nameOf(file), all)), name);
  return reportOfTable(await readTable(nameOf(file), all, { headers: 'little', order: undefined }), name);
}

const reportOfTable = ({ table }: TableFile, name: string): ReportData => ({
  title: name,
  about: [`A hashed page table of ppc64, order ${table.order}`],
  pageSize: 4096,
  hpt: hptOf(table),
  spaces: [virtualPagesOf(table, [])],
  tables: [hptTable(table)],
});
