import { Readable, Writable } from 'node:stream';
import { HPTE_SIZE } from '../model/hpte.ts';
import {
  checkHtabStream,
  HTAB_HEADER_SIZE,
  HtabStreamError,
  type HtabStreamFormat,
  wholeHtabChunks,
} from '../model/htab-stream.ts';
import type { HtabReader, HtabWriter } from './htab-fd.ts';

export interface HtabReadStreamOptions {
  readonly boltedOnly?: boolean;
  /** How many passes to read: 1, the whole table, unless given. The stream ends after a later pass without changes. */
  readonly passes?: number;
  readonly signal?: AbortSignal;
  readonly highWaterMark?: number;
}

export interface HtabWriteStreamOptions {
  readonly signal?: AbortSignal;
  readonly highWaterMark?: number;
}

/** The bytes of passes as a Readable, which reads on when they are wanted; the reader is closed with it. */
export function readStreamOf(reader: HtabReader, options: HtabReadStreamOptions): Readable {
  const { passes = 1, boltedOnly: _, ...streamOptions } = options;
  async function* bytes(): AsyncGenerator<Uint8Array, void, undefined> {
    try {
      for (let pass = 0; pass < passes; pass++) {
        let chunks = 0;
        for await (const chunk of reader.chunks({ signal: options.signal })) {
          chunks++;
          yield chunk.bytes;
        }
        if (chunks === 0) return;
      }
    } finally {
      reader.close();
    }
  }
  return Readable.from(bytes(), { objectMode: false, ...streamOptions }).once('close', () => reader.close());
}

/** A Writable that takes a stream in pieces of any size and writes its chunks; the writer is closed with it. */
export function writeStreamOf(writer: HtabWriter, format: HtabStreamFormat, options: HtabWriteStreamOptions): Writable {
  /** The beginning of a chunk whose rest is still to come, and how many bytes are written already. */
  let pieces: Uint8Array[] = [];
  let held = 0;
  let needed = HTAB_HEADER_SIZE;
  let before = 0;
  const take = (piece: Uint8Array): void => {
    pieces.push(piece);
    held += piece.length;
    if (held < needed) return;
    const bytes = pieces.length === 1 ? piece : Buffer.concat(pieces);
    const whole = wholeHtabChunks(bytes, format);
    if (whole > 0) writer.write(bytes.subarray(0, whole));
    before += whole;
    held -= whole;
    pieces = [bytes.slice(whole)];
    needed = HTAB_HEADER_SIZE + (held < HTAB_HEADER_SIZE ? 0 : nValidOf(pieces[0]!, format) * HPTE_SIZE);
  };
  const end = (): void => {
    if (held > 0) checkHtabStream(Buffer.concat(pieces), format);
  };
  const located = (error: unknown): Error => (error instanceof HtabStreamError ? error.from(before) : (error as Error));
  const answer = (work: () => void, done: (error?: Error | null) => void): void => {
    try {
      work();
    } catch (error) {
      done(located(error));
      return;
    }
    // Other things get their turn between pieces.
    setImmediate(done);
  };
  return new Writable({
    ...options,
    decodeStrings: true,
    write: (piece: Uint8Array, _encoding, done) => answer(() => take(piece), done),
    final: (done) => answer(end, done),
    destroy: (error, done) => {
      writer.close();
      done(error);
    },
  });
}

/** How many entries the chunk has whose header is at the beginning. */
function nValidOf(bytes: Uint8Array, { headers }: HtabStreamFormat): number {
  return new DataView(bytes.buffer, bytes.byteOffset).getUint16(4, headers !== 'big');
}
