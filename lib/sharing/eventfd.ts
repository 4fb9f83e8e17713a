import { readlinkSync } from 'node:fs';
import { checkInstance, checkOptions, checkSignal, checkU32, checkU64 } from '../base/arguments.ts';
import { KvmError } from '../base/errors.ts';
import type { U64 } from '../base/u64.ts';
import { callFailure } from '../calls/failure.ts';
import { Handle } from '../calls/handle.ts';
import type { KvmCalls } from '../calls/kvm-calls.ts';
import { checkCalls } from '../calls/wrapped.ts';
import { isLittleEndianHost } from '../uapi/arch.ts';
import { ERRNO } from '../uapi/errno.ts';
import { POLL } from '../uapi/flags.ts';
import { Descriptor } from './descriptor.ts';

/** What the kernel calls the file of one. */
const EVENTFD = 'anon_inode:[eventfd]';

export interface WaitOptions {
  /** Ends the wait. */
  readonly signal?: AbortSignal;
}

/** The signal of options, checked. */
export const signalOf = (options: WaitOptions): AbortSignal | undefined =>
  checkSignal(checkOptions(options, { signal: true }).signal, 'options.signal');

/**
 * An eventfd: what ioeventfds signal, and irqfds are signalled by. Non-blocking; the event loop waits for it. An iteration gets
 * each count, and is over when the eventfd is closed.
 *
 * Closing it ends its use here; the descriptor lives until its registrations are closed too, or their VM is, for without it
 * the kernel would take none of them back.
 *
 * @example
 * for await (const count of eventfd) console.log(`signalled ${count} times`);
 */
export class EventFd extends Handle implements AsyncIterable<bigint> {
  override readonly noun = 'the eventfd';
  readonly #counter = new DataView(new ArrayBuffer(8));

  /** The counter is in the kernel's byte order, which an emulated one need not have in common with this machine. */
  readonly #littleEndian: boolean;
  readonly #bytes = new Uint8Array(this.#counter.buffer);
  #closed = false;
  #holders = 0;

  /**
   * @param initial what the counter begins with; or an eventfd that is there already, which is taken over
   * @throws KvmError EINVAL for a descriptor of anything else, which stays the caller's; EBADF, EMFILE
   */
  constructor(calls: KvmCalls, initial: number | Descriptor = 0) {
    super(
      checkCalls(calls),
      typeof initial === 'object' && initial !== null ? takeOver(initial) : make(calls, initial),
    );
    this.#littleEndian = isLittleEndianHost(calls.arch);
  }

  /** −1 once it is closed, also while registrations have it. */
  override get fd(): number {
    return this.#closed ? -1 : super.fd;
  }

  override get closed(): boolean {
    return this.fd < 0;
  }

  override close(): void {
    this.#closed = true;
    if (this.#holders === 0) super.close();
    // Ends the waits, which find that it is closed.
    else void this.calls.poll(super.fd, 0);
  }

  /** @internal Keeps the descriptor for a registration until that is over. */
  hold(): void {
    this.#holders++;
  }

  /** @internal */
  letGo(): void {
    this.#holders--;
    if (this.#closed) this.close();
  }

  /** Takes the counter, which becomes 0; 0n when it was 0. @throws KvmError EBADF */
  read(): bigint {
    const result = this.calls.read(this.fd, this.#bytes);
    if (result === -ERRNO.EAGAIN) return 0n;
    this.check('read', result);
    return this.#counter.getBigUint64(0, this.#littleEndian);
  }

  /** Adds to the counter. @throws KvmError EBADF; EAGAIN when it would pass 2^64 − 2, EINVAL for 2^64 − 1 */
  signal(by: U64 = 1): void {
    this.#counter.setBigUint64(0, BigInt(checkU64(by, 'by')), this.#littleEndian);
    this.check('write', this.calls.write(this.fd, this.#bytes));
  }

  /**
   * Takes the counter as soon as it isn't 0. Whoever waits keeps the process alive.
   * @throws KvmError EBADF when it is closed, also meanwhile; the signal's reason when that is aborted
   */
  async wait(options: WaitOptions = {}): Promise<bigint> {
    const signal = signalOf(options);
    for (;;) {
      signal?.throwIfAborted();
      const count = this.read();
      if (count !== 0n) return count;
      await this.untilReady(POLL.IN, signal);
    }
  }

  [Symbol.asyncIterator](): AsyncIterableIterator<bigint> {
    const stop = new AbortController();
    const isOver = () => stop.signal.aborted || this.closed;
    return {
      next: async () => {
        try {
          if (!isOver()) return { done: false, value: await this.wait(stop) };
        } catch (error) {
          if (!isOver()) throw error;
        }
        return { done: true, value: undefined };
      },
      return: async () => {
        stop.abort();
        return { done: true, value: undefined };
      },
      [Symbol.asyncIterator]() {
        return this;
      },
    };
  }
}

/** Who hands something else over could make us wait for ever in a read of it. */
function takeOver(descriptor: Descriptor): number {
  const { fd, closed } = checkInstance(descriptor, 'initial', Descriptor);
  const what = closed ? EVENTFD : readlinkSync(`/proc/self/fd/${fd}`);
  if (what === EVENTFD) return descriptor.giveUp();
  throw new KvmError(ERRNO.EINVAL, { syscall: 'eventfd', explanation: `descriptor ${fd} is no eventfd, but ${what}` });
}

function make(calls: KvmCalls, initial: number): number {
  const fd = calls.eventfd(checkU32(initial, 'initial'));
  if (fd < 0) throw callFailure('eventfd', fd, { noun: 'the eventfd', closed: false });
  return fd;
}
