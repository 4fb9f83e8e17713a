import { CLEAR_LINE, type OutputStream } from './io.ts';

/** What is over sooner needs no progress. */
const FIRST_MS = 500;
const NEXT_MS = 100;

/** A line that says how far something is, drawn over itself; only on a terminal. */
export class Progress {
  readonly #stream: OutputStream;
  #next = performance.now() + FIRST_MS;
  #shown = false;

  constructor(stream: OutputStream) {
    this.#stream = stream;
  }

  /** @param text what it says now, asked for only when it is drawn */
  show(text: () => string): void {
    if (this.#stream.isTTY !== true) return;
    const now = performance.now();
    if (now < this.#next) return;
    this.#next = now + NEXT_MS;
    this.#shown = true;
    this.#stream.write(`${CLEAR_LINE}${text()}`);
  }

  /** Takes the line away, before something else is written to the terminal. */
  clear(): void {
    if (this.#shown) this.#stream.write(CLEAR_LINE);
    this.#shown = false;
  }

  [Symbol.dispose](): void {
    this.clear();
  }
}

/** `35%`, and never more than all. */
export const percent = (done: number, total: number): string => `${Math.floor((100 * Math.min(done, total)) / total)}%`;
