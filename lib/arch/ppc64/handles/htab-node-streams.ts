import type { Readable, Writable } from 'node:stream';
import { checkAtLeast, checkInteger, checkOptions, checkSignal } from '../../../base/arguments.ts';
import { lazyModules } from '../../../base/lazy-modules.ts';
import { callError } from '../../../calls/failure.ts';
import { ERRNO } from '../../../uapi/errno.ts';
import { HTAB_MAX_TURNS } from '../model/htab-loops.ts';
import { HtabPieces } from '../model/htab-pieces.ts';
import { HtabStreamError, type HtabStreamFormat, type HtabStreamSummary } from '../model/htab-stream.ts';
import type { HtabReader, HtabWriter } from './htab-fd.ts';

export interface HtabReadStreamOptions {
  readonly boltedOnly?: boolean;
  /** How many passes to read: 1, the whole table, unless given. The stream ends after a later pass without changes. */
  readonly passes?: number;
  readonly signal?: AbortSignal;
  readonly highWaterMark?: number;
}

export interface HtabWriteStreamOptions {
  /**
   * How many times the slots of the table the stream may tell of, all passes together; 64 unless given. Each chunk counts as a
   * slot at least, so that a stream without end has one.
   */
  readonly maxTurns?: number;
  readonly signal?: AbortSignal;
  readonly highWaterMark?: number;
}

const STALE =
  'the table was allocated, resized or freed since the stream began, and what was written before has gone with it: begin anew';

/** What Node's streams take of the options. */
function checkStreamOptions(
  signal: AbortSignal | undefined,
  highWaterMark: number | undefined,
): { readonly signal?: AbortSignal; readonly highWaterMark?: number } {
  checkSignal(signal, 'options.signal');
  if (highWaterMark !== undefined) checkInteger(highWaterMark, 'options.highWaterMark', 0, Number.MAX_SAFE_INTEGER);
  return { ...(signal === undefined ? {} : { signal }), ...(highWaterMark === undefined ? {} : { highWaterMark }) };
}

/** The bytes of passes as a Readable, which reads on when they are wanted; the reader is closed with it. */
export function readStreamOf(open: (boltedOnly: boolean) => HtabReader, options: HtabReadStreamOptions): Readable {
  const {
    boltedOnly = false,
    passes = 1,
    signal,
    highWaterMark,
  } = checkOptions(options, { boltedOnly: true, passes: true, signal: true, highWaterMark: true });
  checkAtLeast(passes, 'options.passes', 1);
  const streamOptions = checkStreamOptions(signal, highWaterMark);
  const reader = open(boltedOnly);
  async function* bytes(): AsyncGenerator<Uint8Array, void, undefined> {
    try {
      for (let pass = 0; pass < passes; pass++) {
        let chunks = 0;
        for await (const chunk of reader.chunks({ signal })) {
          chunks++;
          yield chunk.bytes;
        }
        if (chunks === 0) return;
      }
    } finally {
      reader.close();
    }
  }
  return lazyModules.stream.Readable.from(bytes(), { objectMode: false, ...streamOptions }).once('close', () =>
    reader.close(),
  );
}

/** Counts what a stream tells of. */
class Turns {
  readonly #most: number;
  #told = 0;

  constructor(most: number) {
    this.#most = most;
  }

  /** @throws HtabStreamError `repeats` */
  count({ chunks, valid, invalid }: HtabStreamSummary, entryCount: number): void {
    this.#told += Math.max(chunks, valid + invalid);
    if (this.#told <= this.#most * entryCount) return;
    const what = `the stream tells of more than ${this.#most} times the ${entryCount} slots of the table`;
    throw new HtabStreamError('repeats', 0, `${what} (\`maxTurns\`)`);
  }
}

/** A Writable that takes a stream in pieces of any size and writes its chunks; the writer is closed with it. */
export function writeStreamOf(
  open: () => HtabWriter,
  format: HtabStreamFormat,
  generation: () => number,
  options: HtabWriteStreamOptions,
): Writable {
  const {
    signal,
    highWaterMark,
    maxTurns = HTAB_MAX_TURNS,
  } = checkOptions(options, { signal: true, highWaterMark: true, maxTurns: true });
  checkAtLeast(maxTurns, 'options.maxTurns', 1);
  const streamOptions = checkStreamOptions(signal, highWaterMark);
  const writer = open();
  const pieces = new HtabPieces(format);
  const turns = new Turns(maxTurns);
  let begun: number | undefined;
  const take = (piece: Uint8Array): void => {
    begun ??= generation();
    if (generation() !== begun) throw callError('write', ERRNO.ESTALE, { explanation: STALE });
    pieces.take(piece, (chunks) => writer.writeIf(chunks, (stream, entryCount) => turns.count(stream, entryCount)));
  };
  const answer = (work: () => void, done: (error?: Error | null) => void): void => {
    try {
      work();
    } catch (error) {
      done(error as Error);
      return;
    }
    // Other things get their turn between pieces.
    setImmediate(done);
  };
  return new lazyModules.stream.Writable({
    ...streamOptions,
    decodeStrings: true,
    write: (piece: Uint8Array, _encoding, done) => answer(() => take(piece), done),
    final: (done) => answer(() => pieces.end(), done),
    destroy: (error, done) => {
      writer.close();
      done(error);
    },
  });
}
