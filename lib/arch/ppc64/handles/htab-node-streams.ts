import { Readable, Writable } from 'node:stream';
import { HtabPieces } from '../model/htab-pieces.ts';
import type { HtabStreamFormat } from '../model/htab-stream.ts';
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
  const pieces = new HtabPieces(format);
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
  return new Writable({
    ...options,
    decodeStrings: true,
    write: (piece: Uint8Array, _encoding, done) =>
      answer(() => pieces.take(piece, (chunks) => writer.write(chunks)), done),
    final: (done) => answer(() => pieces.end(), done),
    destroy: (error, done) => {
      writer.close();
      done(error);
    },
  });
}
