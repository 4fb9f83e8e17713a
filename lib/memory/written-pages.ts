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
  readonly #sources = new Set<() => void>();

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

  /** Adds somebody who knows of more pages, and marks them when asked. */
  addSource(source: () => void): void {
    this.#sources.add(source);
  }

  removeSource(source: () => void): void {
    this.#sources.delete(source);
  }

  /** Asks all who know of more: before the pages are collected, and before they change their addresses. */
  gather(): void {
    for (const source of this.#sources) source();
  }

  /** Whether a write is told before it is made as well. */
  readonly announces: boolean = false;

  /** Bytes will be written. */
  announce(): void {}

  /** There is one more view for writing, whose bytes are marked later. */
  viewOpened(): void {}

  /** What one of them wrote is marked. */
  viewEnded(): void {}

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
