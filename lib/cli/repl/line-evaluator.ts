import { type REPLServer, Recoverable, start } from 'node:repl';
import { PassThrough, Writable } from 'node:stream';
import { setImmediate } from 'node:timers/promises';

/** What a line led to. */
export type LineOutcome =
  /** The statement goes on in the next line, or there is none yet. */
  { readonly status: 'more' } | { readonly status: 'done'; readonly value: unknown } | Failure;

export interface Failure {
  readonly status: 'failed';
  readonly error: unknown;
  /** The statement's first line, counted from 1. */
  readonly line: number;
  /** The statement. */
  readonly source: string;
}

/**
 * Node's own prompt without the prompt: takes lines, runs each statement once it is whole, awaits what it awaits at top
 * level, and keeps what it declares. (The prompt itself does not wait for an `await` when its input is a pipe.)
 */
export class LineEvaluator {
  readonly #server: REPLServer;
  #source = '';
  #line = 0;
  #first = 1;
  #unfinished: unknown;
  #fail: ((error: unknown) => void) | undefined;
  #ended = false;

  /** @param late gets errors that nobody waited for, until the end: thrown in a timer, rejected without a handler. */
  constructor(late: (error: unknown) => void) {
    this.#server = start({
      prompt: '',
      input: new PassThrough(),
      output: new Writable({ write: (_chunk, _encoding, done) => done() }),
      // Arrays and buffers made in a line must be of this realm, or the kernel's calls would not know them.
      useGlobal: true,
      // What a statement throws isn't handed back by `eval`, but printed; which comes here.
      writer: (error: unknown) => {
        if (this.#fail !== undefined) this.#fail(error);
        else if (!this.#ended) late(error);
        return '';
      },
    });
  }

  async take(line: string): Promise<LineOutcome> {
    this.#line++;
    if (this.#source === '') this.#first = this.#line;
    this.#source += `${line}\n`;
    if (this.#source.trim() === '') {
      this.#source = '';
      return { status: 'more' };
    }
    try {
      const outcome = await this.#evaluate(this.#source);
      this.#source = '';
      return outcome;
    } catch (error) {
      if (!(error instanceof Recoverable)) return this.#failure(error);
      this.#unfinished = error.err;
      return { status: 'more' };
    }
  }

  /** There are no more lines: fails when a statement is unfinished. */
  async end(): Promise<Failure | undefined> {
    // Rejections that nobody handles are told a turn later.
    await setImmediate();
    this.#ended = true;
    const failure = this.#source === '' ? undefined : this.#failure(this.#unfinished);
    this.#server.close();
    return failure;
  }

  /** The value comes in an outcome: a promise that the line doesn't await isn't awaited here either. */
  #evaluate(source: string): Promise<LineOutcome> {
    return new Promise<LineOutcome>((resolve, reject) => {
      this.#fail = reject;
      this.#server.eval(source, this.#server.context, 'line', (error, value: unknown) => {
        if (error === null) resolve({ status: 'done', value });
        else reject(error);
      });
    }).finally(() => {
      this.#fail = undefined;
    });
  }

  #failure(error: unknown): Failure {
    const failure = { status: 'failed', error, line: this.#first, source: this.#source } as const;
    this.#source = '';
    return failure;
  }
}
