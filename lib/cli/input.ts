import { createReadStream, fstatSync } from 'node:fs';
import { humanSize } from '../base/text.ts';
import { CLEAR_LINE, type Io, type OutputStream } from './io.ts';

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
  using progress = new Progress(nameOf(file), stderr);
  const opened = (fd: number): void => progress.of(fstatSync(fd).size);
  const source = file === '-' ? stdin : createReadStream(file).once('open', opened);
  for await (const piece of source) {
    const bytes = typeof piece === 'string' ? Buffer.from(piece) : piece;
    progress.add(bytes.length);
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

/** What is over sooner needs no progress. */
const FIRST_MS = 500;
const NEXT_MS = 100;

/** A line that says how far something is, drawn over itself; only on a terminal. */
class Progress {
  readonly #name: string;
  readonly #stream: OutputStream;
  #total: number | undefined;
  #done = 0;
  #next = performance.now() + FIRST_MS;
  #shown = false;

  constructor(name: string, stream: OutputStream) {
    this.#name = name;
    this.#stream = stream;
  }

  of(total: number): void {
    if (total > 0) this.#total = total;
  }

  add(bytes: number): void {
    this.#done += bytes;
    const now = performance.now();
    if (this.#stream.isTTY !== true || now < this.#next) return;
    this.#next = now + NEXT_MS;
    this.#shown = true;
    const share = this.#total === undefined ? '' : ` of ${humanSize(this.#total)}, ${this.#percent(this.#total)}`;
    this.#stream.write(`${CLEAR_LINE}${this.#name}: ${humanSize(this.#done)}${share}`);
  }

  [Symbol.dispose](): void {
    if (this.#shown) this.#stream.write(CLEAR_LINE);
  }

  #percent(total: number): string {
    return `${Math.floor((100 * Math.min(this.#done, total)) / total)}%`;
  }
}
