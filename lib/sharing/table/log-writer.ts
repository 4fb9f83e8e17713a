import type { U64 } from '../../base/u64.ts';
import { WrittenPages } from '../../memory/written-pages.ts';
import { CONSUMER } from './layout.ts';
import type { TableMemory } from './table-memory.ts';

/**
 * What a consumer writes, as the owner hears of it: bits in the shared dirty log. Meanwhile its record says that it is writing, so
 * that its death leaves nothing unknown.
 */
export class LogWriter extends WrittenPages {
  override on = true;
  override readonly announces = true;
  readonly #table: TableMemory;
  readonly #writersAt: number;
  readonly #onMarked: (gpa: number, length: number) => boolean;
  #views = 0;
  #unsure = false;
  #closed = false;

  /** @param onMarked the bits are set, and the region may have moved meanwhile; false when the table doesn't tell where to */
  constructor(table: TableMemory, index: number, pageSize: number, onMarked: (gpa: number, length: number) => boolean) {
    super(pageSize);
    this.#table = table;
    this.#writersAt = table.consumerAt(index) + CONSUMER.WRITERS;
    this.#onMarked = onMarked;
  }

  override announce(): void {
    this.#setWriters(this.#views * 2 + 1);
  }

  override viewOpened(): void {
    this.#views++;
    this.#writeDone();
  }

  override viewEnded(): void {
    this.#views--;
    this.#writeDone();
  }

  override mark(gpa: U64, length: number): void {
    const start = Number(gpa);
    // Beyond it there is no memory.
    if (length > 0 && !this.#closed && start < this.#table.log.end) {
      this.#table.log.mark(start, length);
      const wasUnsure = this.#unsure;
      // Somebody who hears of a change may let go before it is known where the memory is now.
      this.#unsure = true;
      if (this.#onMarked(start, length)) this.#unsure = wasUnsure;
    }
    this.#writeDone();
  }

  /** The consumer lets go. @returns whether the owner knows of all that was written */
  close(): boolean {
    this.#setWriters(this.#unsure ? 1 : 0);
    this.#closed = true;
    return !this.#unsure;
  }

  #writeDone(): void {
    this.#setWriters(this.#views * 2 + (this.#unsure ? 1 : 0));
  }

  /** The table goes with the binding: whoever writes later hears of that from the lookup. */
  #setWriters(value: number): void {
    if (!this.#closed) this.#table.setWord(this.#writersAt, value);
  }
}
