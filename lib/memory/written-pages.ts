import type { U64 } from '../base/u64.ts';
import { splitGpa } from './gpa.ts';
import type { PageSet } from './page-set.ts';

/**
 * The frames that this process writes, which no kernel sees: noted here and nowhere else, for everybody who collects
 * dirty pages.
 */
export class WrittenPages {
  /** Whether anybody collects. */
  on = false;
  readonly #pageSize: number;
  #collectors: readonly PageSet[] = [];

  constructor(pageSize: number) {
    this.#pageSize = pageSize;
  }

  /** Adds the frames that are written from now on to a set, until {@link forget}. */
  record(pages: PageSet): void {
    this.#collectors = [...this.#collectors, pages];
    this.on = true;
  }

  forget(pages: PageSet): void {
    this.#collectors = this.#collectors.filter((other) => other !== pages);
    this.on = this.#collectors.length > 0;
  }

  /** Bytes were written. */
  mark(gpa: U64, length: number): void {
    if (length === 0) return;
    let first: number;
    let last: number;
    if (typeof gpa === 'number') {
      first = Math.floor(gpa / this.#pageSize);
      last = Math.floor((gpa + length - 1) / this.#pageSize);
    } else {
      const { page, rest } = splitGpa(gpa);
      first = Math.floor(page / this.#pageSize);
      last = first + Math.floor(((page % this.#pageSize) + rest + length - 1) / this.#pageSize);
    }
    for (const pages of this.#collectors) {
      if (first === last) pages.add(first);
      else pages.addRange(first, last + 1);
    }
  }
}
