import { closeSync, openSync, readSync, statSync, writeFileSync } from 'node:fs';
import { basename, resolve } from 'node:path';
import { Readable } from 'node:stream';
import { humanSize } from '../../base/text.ts';
import { readCapture } from '../capture.ts';
import type { Command } from '../command.ts';
import { readTable, TableFileError } from '../hpt/read-table.ts';
import { type Io, UsageError } from '../io.ts';
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
    out: { type: 'string', short: 'o', value: 'FILE', help: 'where to write the page; else to standard output' },
  },
  positionals: { least: 1, most: 1 },
  async run({ out }, [file = ''], io) {
    if (out === undefined && io.stdout.isTTY === true) {
      throw new UsageError('a page is nothing for a terminal: say where to write it, as in -o report.html', 'report');
    }
    let data: ReportData;
    try {
      data = await read(file, io);
    } catch (error) {
      if (!(error instanceof TableFileError || error instanceof TraceFileError)) throw error;
      io.stderr.write(`kvm-bridge report: ${error.message}\n`);
      return 1;
    }
    const text = html(pageTemplate(), data);
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

function startOf(file: string): string {
  const start = Buffer.alloc(TRACE_START.length);
  const fd = openSync(file, 'r');
  try {
    readSync(fd, start);
  } finally {
    closeSync(fd);
  }
  return start.toString();
}

async function read(file: string, io: Io): Promise<ReportData> {
  if (file !== '-') {
    const name = basename(resolve(file));
    if (statSync(file).isDirectory()) return reportOfCapture(readCapture(file), name);
    return await reportOf(file, startOf(file), name, io);
  }
  const pieces = io.stdin[Symbol.asyncIterator]();
  let first = Buffer.alloc(0);
  while (first.length < TRACE_START.length) {
    const next = await pieces.next();
    if (next.done === true) break;
    first = Buffer.concat([first, Buffer.from(next.value)]);
  }
  const all = async function* (): AsyncGenerator<Uint8Array> {
    yield first;
    for (let next = await pieces.next(); next.done !== true; next = await pieces.next()) yield Buffer.from(next.value);
  };
  const stdin = Readable.from(all(), { objectMode: false });
  return await reportOf(file, first.toString('latin1', 0, TRACE_START.length), 'standard input', { ...io, stdin });
}

async function reportOf(file: string, start: string, name: string, io: Io): Promise<ReportData> {
  if (start === TRACE_START) return await reportOfTrace(readTrace(file, io), name);
  const { table } = await readTable(file, { headers: 'little', order: undefined }, io.stdin);
  return {
    title: name,
    about: [`A hashed page table of ppc64, order ${table.order}`],
    pageSize: 4096,
    hpt: hptOf(table),
    spaces: [virtualPagesOf(table, [])],
    tables: [hptTable(table)],
  };
}
