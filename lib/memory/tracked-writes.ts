import { inspect } from 'node:util';
import { checkFunction, checkInstance } from '../base/arguments.ts';
import { counted } from '../base/text.ts';
import { callError, isClosed } from '../calls/failure.ts';
import { syscallOf } from '../calls/signatures.ts';
import { ERRNO } from '../uapi/errno.ts';
import { PAGE_IS, PM_SCAN, UFFD_FEATURE, UFFDIO_REGISTER_MODE, UFFDIO_WRITEPROTECT_MODE } from '../uapi/userfaultfd.ts';
import { countBits, forEachBit, forEachBitRun, newBatch, plainBitmapLoops } from './bitmap-loops.ts';
import { Mapping, type ViewHolder } from './mapping.ts';
import { PageSet } from './page-set.ts';
import { UserFaultFd } from './userfaultfd.ts';

/** A part of a mapping that was written, in bytes. */
export interface WrittenRun {
  readonly offset: number;
  readonly length: number;
}

/**
 * Which pages of a mapping were written, as the host's own page tables know it: by JavaScript (typed access, slices and views too), by system calls
 * (`fs.read` into the memory), by guests, by threads. It needs no KVM and stops nobody: the kernel protects the pages and resolves the first store to each by
 * itself (UFFD_FEATURE_WP_ASYNC), and PAGEMAP_SCAN tells. Linux 6.7 or later on x86_64, 6.10 or later on aarch64, with the right to have a userfaultfd.
 *
 * It sees stores through this mapping: not those that others make to a memfd through mappings of their own, or by write(2) to its descriptor. Pages that the
 * mapping's own calls give back (`discard`, `unmapPart`) count as written. For memory of every kind but reservations; page tables for all of the
 * mapping are made at once, a 512th of its size.
 *
 * @example
 * using writes = new TrackedWrites(ram);
 * await vcpu.run();
 * for (const { offset, length } of writes.collect().runs()) console.log(offset, length);
 */
export class TrackedWrites implements ViewHolder {
  readonly mapping: Mapping;
  readonly #fd: UserFaultFd;
  readonly #words: Uint32Array;
  readonly #bytes: Uint8Array;
  /** Changed since the last collect by calls of the mapping's that the page tables don't tell of. */
  readonly #changed = new PageSet();
  /** The last collect came to its end: what it found may be forgotten. */
  #isComplete = true;

  /**
   * Tracks from here on.
   * @throws KvmError EPERM without the right, which names /dev/userfaultfd; ENOSYS without CONFIG_USERFAULTFD; EINVAL where the kernel
   * can't (before 6.7) or not for this memory; EBUSY where another userfaultfd has it; EBADF
   */
  constructor(mapping: Mapping) {
    const { calls, hva, size, kind } = checkInstance(mapping, 'mapping', Mapping);
    mapping.assertOpen(syscallOf('uffdRegister'));
    this.mapping = mapping;
    this.#words = new Uint32Array(Math.ceil(size / calls.pageSize / 64) * 2);
    this.#bytes = new Uint8Array(this.#words.buffer);
    this.#fd = new UserFaultFd(calls, UFFD_FEATURE.WP_ASYNC);
    try {
      this.#fd.register(hva, size, UFFDIO_REGISTER_MODE.WP, kind);
      const protect = this.#fd.uffd.uffdWriteprotect(this.#fd.fd, hva, size, UFFDIO_WRITEPROTECT_MODE.WP);
      this.#fd.require('uffdWriteprotect', protect);
    } catch (error) {
      this.#fd.close();
      throw error;
    }
    mapping.pin(this);
  }

  get closed(): boolean {
    return this.#fd.closed;
  }

  /** Ends the tracking; what was collected stays. Does nothing the second time. */
  close(): void {
    if (this.closed) return;
    this.#fd.close();
    this.mapping.unpin(this);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /**
   * Finds what was written since the last time, and tracks these pages anew, both in one step: read their contents afterwards, and no change is
   * missed. {@link runs}, {@link count} and {@link bitmap} then tell it.
   * @throws KvmError EBADF when it is closed
   */
  collect(): this {
    if (this.closed) throw callError('pagemapScan', ERRNO.EBADF, { explanation: isClosed('the tracking of writes') });
    const { hva, size } = this.mapping;
    if (this.#isComplete) this.#bytes.fill(0);
    this.#isComplete = false;
    const found = this.#fd.uffd.pagemapScan(hva, size, PM_SCAN.WP_MATCHING, 0, PAGE_IS.WRITTEN, 0, this.#bytes);
    this.#fd.require('pagemapScan', found, () => ({ size }));
    this.#isComplete = true;
    this.#changed.forEach((page) => {
      this.#bytes[page >> 3]! |= 1 << (page & 7);
    });
    this.#changed.clear();
    return this;
  }

  /** The number of pages collected. */
  get count(): number {
    return countBits(this.#words);
  }

  /** A copy of what was collected: one bit for each page of the mapping, bit i of byte i >> 3, as KVM_GET_DIRTY_LOG has it. */
  get bitmap(): Uint8Array {
    return this.#bytes.slice();
  }

  /** Calls back with the offset of every page collected, in ascending order. */
  forEachPage(callback: (offset: number) => void): void {
    checkFunction(callback, 'callback');
    const { pageSize } = this.mapping.calls;
    forEachBit(this.#words, 0, (page) => callback(page * pageSize));
  }

  /** The runs of pages collected, in ascending order. */
  runs(): WrittenRun[] {
    const { pageSize } = this.mapping.calls;
    const runs: WrittenRun[] = [];
    forEachBitRun(plainBitmapLoops, this.#words, 0, newBatch(), (page, count) => {
      runs.push({ offset: page * pageSize, length: count * pageSize });
    });
    return runs;
  }

  /** @internal */
  dropViews(): void {}

  /** @internal Part of the mapping reads otherwise than before. */
  memoryChanged(_mapping: Mapping, offset: number, length: number): void {
    if (length === 0) return;
    const { pageSize } = this.mapping.calls;
    this.#changed.addRange(Math.floor(offset / pageSize), Math.ceil((offset + length) / pageSize));
  }

  [inspect.custom](): string {
    return `TrackedWrites of ${inspect(this.mapping)}${this.closed ? ' (closed)' : ''}, ${counted(this.count, 'page')} collected`;
  }
}
