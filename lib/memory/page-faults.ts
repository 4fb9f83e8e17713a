import { inspect, types } from 'node:util';
import { checkBytes, checkCallback, checkFunction, checkInstance, checkObject, checkSize } from '../base/arguments.ts';
import { callBack } from '../base/callback.ts';
import { hex, invalidArgType, invalidReturnValue, KvmError, outOfRange } from '../base/errors.ts';
import { counted } from '../base/text.ts';
import { callError } from '../calls/failure.ts';
import { syscallOf } from '../calls/signatures.ts';
import { ERRNO } from '../uapi/errno.ts';
import { MADV } from '../uapi/flags.ts';
import { UFFD_FEATURE, UFFDIO_REGISTER_MODE, UFFDIO_WRITEPROTECT_MODE } from '../uapi/userfaultfd.ts';
import { Mapping, type PageServer, type ViewHolder } from './mapping.ts';
import { UserFaultFd } from './userfaultfd.ts';

/** A page that somebody accesses. */
export interface FaultedPage {
  /** Where it begins in the mapping. */
  readonly offset: number;
  /** The access is a store. */
  readonly write: boolean;
}

/** What a missing page is to have: the bytes of one page, or null for zeros. */
export type PageContents = Uint8Array | null;

/** At least one of `missing` and `store`. */
export interface PageFaultHandlers {
  /** Asked at the first access to a page that isn't there. */
  readonly missing?: (page: FaultedPage) => PageContents | Promise<PageContents>;
  /** Told of the first store to a page that {@link PageFaults.protect} protected, before it is made. It is made when this has returned, or its promise is settled. */
  readonly store?: (page: FaultedPage) => void | Promise<void>;
  /** Gets what a handler threw or rejected with, or that what it gave is no page. Without it, that is an uncaught exception. */
  readonly onError?: (error: unknown, page: FaultedPage) => void;
}

/** How often a page is tried that is said to be there, and then not to be. */
const TRIES = 1000;
const clock = new Int32Array(new SharedArrayBuffer(4));

/**
 * Handlers for a mapping's pages (userfaultfd): one brings those that are missing when somebody first accesses them, one hears of stores to protected
 * ones before they are made. Whoever accesses such a page waits meanwhile, and nothing else does: a guest (`vcpu.run()`), a system call, another thread.
 *
 * Handlers are called by the event loop; when this thread itself accesses the memory, they are called in the middle of that. While a mapping is served it is therefore
 * accessed by copies, as protected memory is: `slice` is EACCES, and while there are slices that the collector has not taken, this is EBUSY. And where
 * KVM would touch the memory in this thread, which would wait for itself, it is EDEADLK: `vcpu.runSync()`, MADV.POPULATE_…, MEM_OP and storage keys,
 * requests by `ioctlUnchecked`.
 *
 * What a handler throws is an error of the access where this thread made it. Else it goes to `onError`, and who waits for the page goes on waiting
 * until {@link copy}, {@link zero} or {@link wake} (which has the handler asked again), or the end. After {@link close} all go on, and missing pages are zeros.
 *
 * It serves who uses this mapping: a process or a `vmap` of another thread with a mapping of the same memfd of its own finds zeros where a page is missing.
 * For anonymous memory and memfds, with the right to have a userfaultfd. It keeps the process alive until it is closed.
 *
 * @example
 * using faults = new PageFaults(ram, { missing: ({ offset }) => bytes.subarray(offset, offset + kvm.pageSize) });
 * await vcpu.run();
 */
export class PageFaults implements ViewHolder, PageServer {
  readonly mapping: Mapping;
  /** Read once; the object is theirs. */
  readonly #handlers: PageFaultHandlers;
  readonly #fd: UserFaultFd;
  /** Pages whose handlers have not answered yet. */
  readonly #pending = new Set<number>();

  /**
   * @throws KvmError EPERM without the right, which names /dev/userfaultfd; ENOSYS without CONFIG_USERFAULTFD; EINVAL where the kernel
   * can't, or not for this memory; EBUSY where another userfaultfd has it or slices of it exist; EBADF
   */
  constructor(mapping: Mapping, handlers: PageFaultHandlers) {
    const { calls, hva, size, kind } = checkInstance(mapping, 'mapping', Mapping);
    const { missing, store, onError } = checkObject(handlers, 'handlers');
    if (missing !== undefined) checkFunction(missing, 'handlers.missing');
    if (store !== undefined) checkFunction(store, 'handlers.store');
    checkCallback(onError, 'handlers.onError');
    if (missing === undefined && store === undefined) {
      throw invalidArgType('handlers', 'an object with missing, store or both', handlers);
    }
    mapping.assertOpen(syscallOf('uffdRegister'));
    if (kind !== 'anonymous' && kind !== 'memfd') {
      const explanation = `handlers are for anonymous memory and memfds, and this mapping is ${kind}`;
      throw callError('uffdRegister', ERRNO.EINVAL, { size, explanation });
    }
    this.mapping = mapping;
    this.#handlers = {
      ...(missing === undefined ? {} : { missing: missing.bind(handlers) }),
      ...(store === undefined ? {} : { store: store.bind(handlers) }),
      ...(onError === undefined ? {} : { onError: onError.bind(handlers) }),
    };
    this.#fd = new UserFaultFd(calls, featuresFor(kind, this.#handlers));
    const mode =
      (missing === undefined ? 0 : UFFDIO_REGISTER_MODE.MISSING) | (store === undefined ? 0 : UFFDIO_REGISTER_MODE.WP);
    try {
      this.#fd.register(hva, size, mode, kind);
    } catch (error) {
      this.#fd.close();
      throw error;
    }
    mapping.pin(this);
    mapping.serve(this);
    void this.#serve();
  }

  get closed(): boolean {
    return this.#fd.closed;
  }

  /** Ends it: whoever waits goes on, and finds zeros where pages are missing. Does nothing the second time. */
  close(): void {
    if (this.closed) return;
    this.#fd.close();
    this.mapping.serve(undefined);
    this.mapping.unpin(this);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /**
   * Brings pages before anybody asks for them, and lets those go on who wait for them. @param bytes whole pages
   * @returns how many bytes were brought: fewer where a page is there already, which stays as it is
   * @throws KvmError EINVAL for what isn't whole pages in the mapping, ENOMEM, EBADF
   */
  copy(offset: number, bytes: Uint8Array): number {
    const { length } = checkBytes(bytes, 'bytes');
    this.#checkPart(offset, length);
    return this.#brought('uffdCopy', offset, length, () =>
      this.#fd.uffd.uffdCopy(this.#fd.fd, this.#at(offset), bytes, 0),
    );
  }

  /** The same with zeros. */
  zero(offset: number, length: number): number {
    this.#checkPart(offset, length);
    return this.#brought('uffdZeropage', offset, length, () =>
      this.#fd.uffd.uffdZeropage(this.#fd.fd, this.#at(offset), length, 0),
    );
  }

  /** Lets those go on who wait for pages of a part: where one is still missing or protected its handler is asked again. @throws KvmError EBADF, EINVAL */
  wake(offset: number, length: number): void {
    this.#checkPart(offset, length);
    this.#fd.require('uffdWake', this.#fd.uffd.uffdWake(this.#fd.fd, this.#at(offset), length));
  }

  /**
   * From now on the first store to each page of a part is told to `store`. Pages that are missing stay so, and come unprotected if `missing` brings them.
   * @throws KvmError EINVAL for what isn't whole pages in the mapping, ENOENT without a handler `store`, EBADF
   */
  protect(offset = 0, length = this.mapping.size): void {
    this.#writeprotect(offset, length, UFFDIO_WRITEPROTECT_MODE.WP);
  }

  /** Takes {@link protect} back; whoever waits goes on. */
  unprotect(offset = 0, length = this.mapping.size): void {
    this.#writeprotect(offset, length, 0);
  }

  /** @internal This thread is about to access a page that it would have to wait for. */
  bring(offset: number, write: boolean, times: number): void {
    const page = { offset: this.#pageOf(offset), write };
    if (times > TRIES) throw this.#deadlock(page, 'a handler has answered again and again for');
    for (let tries = 0; tries < TRIES; tries++) {
      const kind = this.#waitsFor(page);
      if (kind === undefined) return;
      if (this.#pending.has(page.offset)) throw this.#deadlock(page, 'the handler has not answered yet for');
      const answer = this.#ask(kind, page);
      if (isPromise(answer)) {
        void this.#later(kind, page, answer);
        throw this.#deadlock(page, 'the handler gave a promise, for which this access cannot wait, of');
      }
      // By its handler: nobody waits any more.
      if (this.closed) return;
      if (this.#resolve(kind, page, answer)) return;
      // It was there: swapped out, most likely.
      this.mapping.calls.madvise(this.#at(page.offset), this.#pageSize, MADV.WILLNEED);
      if (tries > 0) Atomics.wait(clock, 0, 0, 1);
    }
    throw this.#deadlock(page, 'the kernel does not say what is missing of');
  }

  /** @internal */
  dropViews(): void {}

  [inspect.custom](): string {
    const served = Object.keys(this.#handlers).filter((name) => name !== 'onError');
    const state = this.closed
      ? 'closed'
      : `serves ${served.join(' and ')}, ${counted(this.#pending.size, 'page')} not answered`;
    return `PageFaults of ${inspect(this.mapping)} (${state})`;
  }

  get #pageSize(): number {
    return this.mapping.calls.pageSize;
  }

  #at(offset: number): number {
    return this.mapping.hva + offset;
  }

  #pageOf(offset: number): number {
    return offset - (offset % this.#pageSize);
  }

  /** What this thread would wait for, if anything. */
  #waitsFor({ offset, write }: FaultedPage): 'missing' | 'store' | undefined {
    const { missing, store } = this.#handlers;
    if (missing !== undefined) {
      const there = this.mapping.calls.readMemory(this.#at(offset), new Uint8Array(1));
      if (there === -ERRNO.EAGAIN) return 'missing';
    }
    return write && store !== undefined ? 'store' : undefined;
  }

  /** Answers faults until it is closed. */
  async #serve(): Promise<void> {
    try {
      for (;;) {
        for (const { hva, write, protected: isStore } of await this.#fd.faults()) {
          this.#faulted(isStore ? 'store' : 'missing', { offset: this.#pageOf(hva - this.mapping.hva), write });
        }
      }
    } catch (error) {
      if (!this.closed) {
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }

  #faulted(kind: 'missing' | 'store', page: FaultedPage): void {
    if (this.closed || this.#pending.has(page.offset)) return;
    try {
      const answer = this.#ask(kind, page);
      if (isPromise(answer)) void this.#later(kind, page, answer);
      else if (!this.closed) this.#resolve(kind, page, answer);
    } catch (error) {
      this.#failed(error, page);
    }
  }

  #ask(kind: 'missing' | 'store', page: FaultedPage): unknown {
    this.#pending.add(page.offset);
    try {
      return this.#handlers[kind]!(page);
    } finally {
      this.#pending.delete(page.offset);
    }
  }

  /** Waits for a handler's promise, while nobody else asks it for that page. */
  async #later(kind: 'missing' | 'store', page: FaultedPage, answer: PromiseLike<unknown>): Promise<void> {
    this.#pending.add(page.offset);
    try {
      const value = await answer;
      if (!this.closed) this.#resolve(kind, page, value);
    } catch (error) {
      this.#failed(error, page);
    } finally {
      this.#pending.delete(page.offset);
    }
  }

  #failed(error: unknown, page: FaultedPage): void {
    const { onError } = this.#handlers;
    if (onError !== undefined) callBack(onError, error, page);
    else {
      callBack(() => {
        throw error;
      });
    }
  }

  /** Does what a handler said; false for a page that was there already. */
  #resolve(kind: 'missing' | 'store', page: FaultedPage, answer: unknown): boolean {
    try {
      return this.#answered(kind, page, answer);
    } catch (error) {
      // The page was unmapped meanwhile, and nobody waits for it.
      if (error instanceof KvmError && error.code === 'ENOENT') return true;
      throw error;
    }
  }

  #answered(kind: 'missing' | 'store', { offset }: FaultedPage, answer: unknown): boolean {
    if (kind === 'store') {
      this.unprotect(offset, this.#pageSize);
      return true;
    }
    if (answer === null) return this.zero(offset, this.#pageSize) > 0;
    if (!types.isUint8Array(answer) || answer.length !== this.#pageSize) {
      const wrong = types.isUint8Array(answer) ? counted(answer.length, 'byte') : answer;
      throw invalidReturnValue(
        `a Uint8Array of ${this.#pageSize} bytes, or null for zeros,`,
        'handlers.missing',
        wrong,
      );
    }
    return this.copy(offset, answer) > 0;
  }

  /** How much of a part was brought, where the kernel stops at a page that is there; who waits for that one goes on. */
  #brought(name: 'uffdCopy' | 'uffdZeropage', offset: number, length: number, bring: () => number): number {
    let result = bring();
    // While the page tables are just being changed.
    for (let tries = 1; result === -ERRNO.EAGAIN && tries < TRIES; tries++) result = bring();
    if (result === -ERRNO.EEXIST) {
      this.wake(offset, this.#pageSize);
      return 0;
    }
    return this.#fd.require(name, result, () => ({ size: length }));
  }

  #writeprotect(offset: number, length: number, mode: number): void {
    this.#checkPart(offset, length);
    const result = this.#fd.uffd.uffdWriteprotect(this.#fd.fd, this.#at(offset), length, mode);
    this.#fd.require('uffdWriteprotect', result, () => ({
      size: length,
      explanation: this.#handlers.store === undefined ? 'there is no handler `store` to tell' : undefined,
    }));
  }

  #checkPart(offset: number, length: number): void {
    checkSize(offset, 'offset');
    checkSize(length, 'length');
    const { size } = this.mapping;
    if (offset > size) throw outOfRange('offset', `at most ${hex(size)}, the mapping's size`, offset);
    if (length > size - offset) {
      throw outOfRange('length', `at most ${hex(size - offset)}, from the offset to the mapping's end`, length);
    }
  }

  #deadlock({ offset }: FaultedPage, why: string): KvmError {
    const explanation = `${why} the page at ${hex(offset)} of the mapping: only another thread, such as a guest, can wait for that`;
    return new KvmError(ERRNO.EDEADLK, { syscall: 'page fault', explanation });
  }
}

function featuresFor(kind: 'anonymous' | 'memfd', { missing, store }: PageFaultHandlers): number {
  const isShared = kind === 'memfd';
  let features = missing !== undefined && isShared ? UFFD_FEATURE.MISSING_SHMEM : 0;
  if (store === undefined) return features;
  features |= UFFD_FEATURE.PAGEFAULT_FLAG_WP;
  if (isShared) features |= UFFD_FEATURE.WP_HUGETLBFS_SHMEM;
  return missing === undefined ? features | UFFD_FEATURE.WP_UNPOPULATED : features;
}

function isPromise(value: unknown): value is PromiseLike<unknown> {
  return typeof value === 'object' && value !== null && 'then' in value && typeof value.then === 'function';
}
