import { LOG_PAGE } from './layout.ts';

/**
 * A dirty log as vhost-user has it: bit i of byte n is page 8 * n + i of 4096 bytes, set by an atomic OR and taken by an atomic
 * exchange. Anybody may set bits at any time, in any process.
 */
export class SharedDirtyLog {
  readonly #bytes: Uint8Array;
  readonly #words: Int32Array;

  /** @param buffer holds the log from a multiple of 4 on */
  constructor(buffer: ArrayBufferLike, offset: number, length: number) {
    this.#bytes = new Uint8Array(buffer, offset, length);
    this.#words = new Int32Array(buffer, offset, length / 4);
  }

  /** Bytes of guest physical addresses that it has bits for, from address 0 on. */
  get end(): number {
    return this.#bytes.length * 8 * LOG_PAGE;
  }

  /** Sets the bits of a range; those beyond the log's end are left out. */
  mark(start: number, length: number): void {
    if (length === 0) return;
    const first = Math.floor(start / LOG_PAGE);
    const last = Math.min(Math.floor((start + length - 1) / LOG_PAGE), this.#bytes.length * 8 - 1);
    if (first === last) {
      Atomics.or(this.#bytes, first >> 3, 1 << (first & 7));
      return;
    }
    for (let page = first; page <= last; ) {
      const byte = Math.floor(page / 8);
      const end = Math.min(last + 1, (byte + 1) * 8);
      Atomics.or(this.#bytes, byte, ((1 << (end - byte * 8)) - 1) & ~((1 << (page - byte * 8)) - 1));
      page = end;
    }
  }

  /** Takes the bits of all words that have one of a range, and calls back with the address of each page. */
  take(start: number, end: number, callback: (address: number) => void): void {
    const first = Math.floor(start / (32 * LOG_PAGE));
    const last = Math.min(Math.ceil(end / (32 * LOG_PAGE)), this.#words.length);
    for (let word = first; word < last; word++) {
      if (this.#words[word] === 0) continue;
      for (let byte = word * 4; byte < word * 4 + 4; byte++) {
        for (let bits = Atomics.exchange(this.#bytes, byte, 0); bits !== 0; bits &= bits - 1) {
          callback((byte * 8 + 31 - Math.clz32(bits & -bits)) * LOG_PAGE);
        }
      }
    }
  }
}
