import { createReadStream, fstatSync } from 'node:fs';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip } from 'node:zlib';
import { humanSize } from '../base/text.ts';
import type { Io } from './io.ts';
import { Progress, percent } from './progress.ts';

/** A file's name in what is said of it: `-` is standard input. */
export const nameOf = (file: string): string => (file === '-' ? 'standard input' : file);

/**
 * The bytes of a file, or of standard input (`-`). Where reading and what is done with them takes its time, a terminal is told on standard
 * error how far that is.
 * @throws Node's errors of the file, when it is read
 */
export async function* readInput(
  file: string,
  { stdin, stderr }: Pick<Io, 'stdin' | 'stderr'>,
): AsyncGenerator<Uint8Array, void, undefined> {
  using progress = new Progress(stderr);
  let [total, done] = [0, 0];
  const opened = (fd: number): void => {
    total = fstatSync(fd).size;
  };
  const source = file === '-' ? stdin : createReadStream(file).once('open', opened);
  for await (const piece of source) {
    const bytes = typeof piece === 'string' ? Buffer.from(piece) : piece;
    done += bytes.length;
    progress.show(() => {
      const share = total === 0 ? '' : ` of ${humanSize(total)}, ${percent(done, total)}`;
      return `${nameOf(file)}: ${humanSize(done)}${share}`;
    });
    yield bytes;
  }
}

/** The first bytes of some, at least so many if there are so many, and all of them again. */
export async function peek(
  source: AsyncIterable<Uint8Array>,
  length: number,
): Promise<{ readonly start: Buffer; readonly all: AsyncGenerator<Uint8Array, void, undefined> }> {
  const pieces = source[Symbol.asyncIterator]();
  let start = Buffer.alloc(0);
  while (start.length < length) {
    const next = await pieces.next();
    if (next.done === true) break;
    start = Buffer.concat([start, next.value]);
  }
  async function* all(): AsyncGenerator<Uint8Array, void, undefined> {
    yield start;
    yield* { [Symbol.asyncIterator]: () => pieces };
  }
  return { start, all: all() };
}

/** zlib's own 16 KiB are so small that giving them out takes longer than unpacking. */
const UNPACKED_PIECE = 2 ** 18;

/** The bytes themselves, or where they are gzipped, what was. @throws zlib's errors, and those of the source */
export async function* unpacked(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array, void, undefined> {
  const { start, all } = await peek(source, 2);
  if (start[0] !== 0x1f || start[1] !== 0x8b) {
    yield* all;
    return;
  }
  const gunzip = createGunzip({ chunkSize: UNPACKED_PIECE });
  // Its errors come out of `gunzip`.
  pipeline(Readable.from(all), gunzip).catch(() => {});
  yield* gunzip;
}
