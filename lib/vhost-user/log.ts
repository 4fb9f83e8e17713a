import { hex, KvmError } from '../base/errors.ts';
import type { U64 } from '../base/u64.ts';
import { isClosed } from '../calls/failure.ts';
import { type KvmCalls, VIEW_WINDOW } from '../calls/kvm-calls.ts';
import { splitGpa } from '../memory/gpa.ts';
import { Mapping } from '../memory/mapping.ts';
import { WrittenPages } from '../memory/written-pages.ts';
import type { Descriptor } from '../sharing/descriptor.ts';
import { ERRNO } from '../uapi/errno.ts';
import { type LogArea, protocolError } from './message.ts';
import { LOG_PAGE, REQUEST } from './protocol.ts';

/**
 * The log of dirty pages that both ends have: a bit for each 4 KiB page, bit 0 of byte 0 for address 0. Bits are set, and
 * taken, by atomic operations.
 */
export class PageLog {
  readonly #mapping: Mapping;
  readonly #offset: number;
  /** Bytes. */
  readonly size: number;

  /** @throws KvmError EACCES when the memory can't be touched directly: atomic operations need that */
  constructor(mapping: Mapping, offset: number, size: number) {
    this.#mapping = mapping;
    this.#offset = offset;
    this.size = size;
    if (mapping.window(0) === undefined) {
      const explanation = 'the log must be a memfd that is sealed against shrinking, as long as it says';
      throw new KvmError(ERRNO.EACCES, { syscall: 'map log', size, explanation });
    }
  }

  /** A log of a front end's; the descriptor is closed. @throws KvmError EACCES, EPROTO, and as mmap does */
  static received(calls: KvmCalls, { size, offset }: LogArea, descriptor: Descriptor): PageLog {
    using _descriptor = descriptor;
    if (size === 0 || size + offset > Number.MAX_SAFE_INTEGER) {
      throw protocolError(REQUEST.SET_LOG_BASE, `a log of ${hex(size)} bytes at ${hex(offset)}`);
    }
    const mapping = Mapping.file(calls, descriptor.fd, { size: size + offset });
    try {
      return new PageLog(mapping, offset, size);
    } catch (error) {
      mapping.close();
      throw error;
    }
  }

  /** Pages that it has bits for. */
  get pages(): number {
    return this.size * 8;
  }

  /** Marks a page. @throws KvmError ENOSPC when it lies beyond the log */
  mark(page: number): void {
    if (page >= this.pages) {
      const explanation = `page ${hex(page)} lies beyond the log, which has bits for ${hex(this.pages)}`;
      throw new KvmError(ERRNO.ENOSPC, { syscall: 'log page', explanation });
    }
    const at = this.#offset + Math.floor(page / 8);
    const bytes = this.#bytes(Math.floor(at / VIEW_WINDOW));
    Atomics.or(bytes, at % VIEW_WINDOW, 1 << (page % 8));
  }

  /** Takes the bits: calls back with each page that was marked, which is not so any more. */
  take(each: (page: number) => void): void {
    for (let at = 0; at < this.size; ) {
      const first = this.#offset + at;
      const bytes = this.#bytes(Math.floor(first / VIEW_WINDOW));
      const start = first % VIEW_WINDOW;
      const count = Math.min(this.size - at, bytes.length - start);
      takeBits(bytes.subarray(start, start + count), 8 * at, each);
      at += count;
    }
  }

  close(): void {
    this.#mapping.close();
  }

  #bytes(index: number): Uint8Array {
    const window = this.#mapping.window(index);
    if (window === undefined) throw new KvmError(ERRNO.EBADF, { syscall: 'log', explanation: isClosed('the log') });
    return window.bytes;
  }
}

/** Most of a log is empty, and passed over by eight bytes at once. */
function takeBits(bytes: Uint8Array, firstPage: number, each: (page: number) => void): void {
  const lead = Math.min(bytes.length, (8 - (bytes.byteOffset % 8)) % 8);
  const words = new Float64Array(bytes.buffer, bytes.byteOffset + lead, Math.floor((bytes.length - lead) / 8));
  const takeBytes = (from: number, to: number): void => {
    for (let i = from; i < to; i++) {
      if (bytes[i] === 0) continue;
      for (let bits = Atomics.exchange(bytes, i, 0); bits !== 0; bits &= bits - 1) {
        each(firstPage + 8 * i + (31 - Math.clz32(bits & -bits)));
      }
    }
  };
  takeBytes(0, lead);
  for (let word = 0; word < words.length; word++) {
    // As a double only 0 and −0 are 0, and the latter is a single bit.
    if (!Object.is(words[word], 0)) takeBytes(lead + 8 * word, lead + 8 * word + 8);
  }
  takeBytes(lead + 8 * words.length, bytes.length);
}

/** What a back end writes: in the log while there is one, and nowhere else. */
export class LoggedPages extends WrittenPages {
  #log: PageLog | undefined;

  constructor() {
    super(LOG_PAGE);
  }

  set log(log: PageLog | undefined) {
    this.#log = log;
    this.on = log !== undefined;
  }

  override mark(gpa: U64, length: number): void {
    const log = this.#log;
    if (log === undefined || length === 0) return;
    const { page, rest } = splitGpa(gpa);
    const first = page / LOG_PAGE;
    const last = first + Math.floor((rest + length - 1) / LOG_PAGE);
    for (let each = first; each <= last; each++) log.mark(each);
  }
}
