import { isAnyArrayBuffer } from 'node:util/types';
import { checkFunction, checkSize } from '../../base/arguments.ts';
import { setBits, takeBits } from '../../base/atomic-bits.ts';
import { invalidArgType, outOfRange } from '../../base/errors.ts';
import { LOG_PAGE } from './layout.ts';

/**
 * A dirty log as vhost-user has it: bit i of byte n is page 8 * n + i of 4096 bytes, set by an atomic OR and taken by an atomic
 * exchange. Anybody may set bits at any time, in any process.
 */
export class SharedDirtyLog {
  readonly #bytes: Uint8Array;

  constructor(buffer: ArrayBufferLike, offset: number, length: number) {
    if (!isAnyArrayBuffer(buffer)) {
      throw invalidArgType('buffer', 'an ArrayBuffer or SharedArrayBuffer', buffer);
    }
    if (checkSize(offset, 'offset') % 8 !== 0) throw outOfRange('offset', 'a multiple of 8', offset);
    if (checkSize(length, 'length') % 8 !== 0) throw outOfRange('length', 'a multiple of 8', length);
    const { byteLength } = buffer;
    if (offset > byteLength) throw outOfRange('offset', `at most ${byteLength}`, offset);
    if (offset + length > byteLength) throw outOfRange('length', `at most ${byteLength} with offset`, length);
    this.#bytes = new Uint8Array(buffer, offset, length);
  }

  /** Bytes of guest physical addresses that it has bits for, from address 0 on. */
  get end(): number {
    return this.#bytes.length * 8 * LOG_PAGE;
  }

  /** Sets the bits of a range; those beyond the log's end are left out. */
  mark(start: number, length: number): void {
    checkSize(start, 'start');
    if (checkSize(length, 'length') === 0) return;
    const end = Math.floor((start + length - 1) / LOG_PAGE) + 1;
    setBits(this.#bytes, Math.floor(start / LOG_PAGE), Math.min(end, this.#bytes.length * 8));
  }

  /** Takes the bits of all words of 64 that have one of a range, and calls back with the address of each page. */
  take(start: number, end: number, callback: (address: number) => void): void {
    checkSize(start, 'start');
    checkSize(end, 'end');
    checkFunction(callback, 'callback');
    const first = 8 * Math.floor(start / (64 * LOG_PAGE));
    const part = this.#bytes.subarray(first, 8 * Math.ceil(end / (64 * LOG_PAGE)));
    takeBits(part, (bit) => callback((8 * first + bit) * LOG_PAGE));
  }
}
