import { createReadStream } from 'node:fs';
import { createInterface } from 'node:readline';
import { TRACE_VERSION, type TraceCall, type TraceHead } from '../../calls/trace-file.ts';
import type { Io } from '../io.ts';

/** A file that is no trace, or not one that can be replayed; with the line, where it is one line's fault. */
export class TraceFileError extends Error {
  override readonly name = 'TraceFileError';
}

/** A line of a trace, with its number. */
export interface TraceLine {
  readonly line: number;
  /** A head is there for each time that a kernel was opened. */
  readonly head?: TraceHead;
  readonly event?: TraceCall;
}

/** The lines of a trace, from a file or from standard input (`-`). @throws TraceFileError; Node's errors of the file */
export async function* readTrace(file: string, io: Io): AsyncGenerator<TraceLine, void, undefined> {
  const input: NodeJS.ReadableStream = file === '-' ? io.stdin : createReadStream(file, 'utf8');
  const broken = new Promise<never>((_, reject) => input.on('error', reject));
  broken.catch(() => {});
  const lines = createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY })[Symbol.asyncIterator]();
  for (let line = 1; ; line++) {
    const { value, done } = await Promise.race([lines.next(), broken]);
    if (done === true) return;
    if (value.trim() === '') continue;
    yield { line, ...parse(value, line) };
  }
}

const NOT_ONE = 'this is no trace: --trace-out FILE and Kvm.open({ record }) make one';

function parse(text: string, line: number): Omit<TraceLine, 'line'> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new TraceFileError(`line ${line}: ${line === 1 ? NOT_ONE : (error as Error).message}`);
  }
  if (typeof value === 'object' && value !== null) {
    if ('kvm-bridge-trace' in value) return { head: headOf(value as TraceHead, line) };
    if ('call' in value && typeof value.call === 'string' && 'args' in value && Array.isArray(value.args)) {
      return { event: value as TraceCall };
    }
  }
  throw new TraceFileError(`line ${line}: ${line === 1 ? NOT_ONE : 'there is no call in it'}`);
}

function headOf(head: TraceHead, line: number): TraceHead {
  const version = head['kvm-bridge-trace'];
  if (version === TRACE_VERSION) return head;
  throw new TraceFileError(`line ${line}: the trace has format ${version}, and format ${TRACE_VERSION} is read here`);
}
