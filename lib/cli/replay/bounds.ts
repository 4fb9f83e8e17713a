import type { TraceCall, TraceValue } from '../../calls/trace-file.ts';
import { MOST_BYTES } from './guest.ts';
import { TraceFileError } from './read-trace.ts';

/** Bytes that runs (`00*4096`) stand for, in all lines of a file. */
const MOST_OF_RUNS = 2 ** 30;
/** What a guest stores is stored by eight bytes at a time. */
const STORED = 8;

/**
 * How much the lines of a file ask for, all together: few characters can stand for many bytes, and a kernel keeps what was written. What
 * stands there in full is as long as the file itself.
 */
export class TraceBounds {
  #left = MOST_OF_RUNS;

  /** @throws TraceFileError for the line with which it is too much */
  take(line: number, { args, filled = {}, before = {}, after = {}, stores }: TraceCall): void {
    for (const value of [...args, ...Object.values(filled)]) this.#left -= runsOf(value);
    for (const pieces of [...Object.values(before), ...Object.values(after)])
      for (const [, text] of pieces) this.#left -= runsOf(text);
    for (const [, text] of stores ?? []) this.#left -= STORED * runsOf(text);
    if (this.#left >= 0) return;
    throw new TraceFileError(`line ${line}: up to here runs stand for more than ${MOST_OF_RUNS} bytes`);
  }
}

/** One that is longer than any may be is told by whoever reads it. */
function runsOf(value: TraceValue): number {
  if (typeof value !== 'string') return 0;
  let bytes = 0;
  for (const [, count] of value.matchAll(/\*(\d+)/g)) bytes += Number(count);
  return Math.min(bytes, MOST_BYTES);
}
