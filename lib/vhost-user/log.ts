import { checkFunction, checkInstance, checkObject, checkSize } from '../base/arguments.ts';
import { setBits, takeBits } from '../base/atomic-bits.ts';
import { hex, KvmError, outOfRange } from '../base/errors.ts';
import type { U64 } from '../base/u64.ts';
import { isClosed } from '../calls/failure.ts';
import { type KvmCalls, VIEW_WINDOW } from '../calls/kvm-calls.ts';
import { splitGpa } from '../memory/gpa.ts';
import { Mapping } from '../memory/mapping.ts';
import { WrittenPages } from '../memory/written-pages.ts';
import { Descriptor } from '../sharing/descriptor.ts';
import { ERRNO } from '../uapi/errno.ts';
import { type LogArea, protocolError } from './message.ts';
import { LOG_PAGE, REQUEST } from './protocol.ts';

const WINDOW_BITS = 8 * VIEW_WINDOW;

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
    checkInstance(mapping, 'mapping', Mapping);
    if (checkSize(offset, 'offset') > mapping.size) throw outOfRange('offset', `at most ${mapping.size}`, offset);
    if (checkSize(size, 'size') + offset > mapping.size)
      throw outOfRange('size', `at most ${mapping.size - offset}`, size);
    this.#mapping = mapping;
    this.#offset = offset;
    this.size = size;
    if (mapping.window(0) === undefined) {
      const explanation = 'the log must be a memfd that is sealed against shrinking, as long as it says';
      throw new KvmError(ERRNO.EACCES, { syscall: 'map log', size, explanation });
    }
  }

  /** A log of a front end's; the descriptor is closed. @throws KvmError EACCES, EPROTO, and as mmap does */
  static received(calls: KvmCalls, area: LogArea, descriptor: Descriptor): PageLog {
    const { size, offset } = checkObject(area, 'area');
    using _descriptor = checkInstance(descriptor, 'descriptor', Descriptor);
    descriptor.check('mmap', descriptor.closed ? -ERRNO.EBADF : 0);
    checkSize(size, 'area.size');
    checkSize(offset, 'area.offset');
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

  /** Marks pages. @throws KvmError ENOSPC when one lies beyond the log: those before it are marked */
  mark(first: number, end: number): void {
    checkSize(first, 'first');
    checkSize(end, 'end');
    for (let page = first; page < Math.min(end, this.pages); ) {
      const bit = 8 * this.#offset + page;
      const window = Math.floor(bit / WINDOW_BITS);
      const count = Math.min(end, this.pages, page + (window + 1) * WINDOW_BITS - bit) - page;
      const start = bit - window * WINDOW_BITS;
      setBits(this.#bytes(window), start, start + count);
      page += count;
    }
    if (end <= this.pages) return;
    const explanation = `page ${hex(Math.max(first, this.pages))} lies beyond the log, which has bits for ${hex(this.pages)}`;
    throw new KvmError(ERRNO.ENOSPC, { syscall: 'log page', explanation });
  }

  /** Takes the bits: calls back with each page that was marked, which is not so any more. */
  take(each: (page: number) => void): void {
    checkFunction(each, 'each');
    for (let at = 0; at < this.size; ) {
      const first = this.#offset + at;
      const bytes = this.#bytes(Math.floor(first / VIEW_WINDOW));
      const start = first % VIEW_WINDOW;
      const count = Math.min(this.size - at, bytes.length - start);
      const before = 8 * at;
      takeBits(bytes.subarray(start, start + count), (bit) => each(before + bit));
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
    log.mark(first, last + 1);
  }
}
