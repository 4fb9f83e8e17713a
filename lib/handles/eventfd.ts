import { checkU32 } from '../base/arguments.ts';
import { callFailure } from '../calls/failure.ts';
import { Handle } from '../calls/handle.ts';
import type { KvmCalls } from '../calls/kvm-calls.ts';
import { ERRNO } from '../uapi/errno.ts';

/**
 * An eventfd: what ioeventfds signal, and irqfds are signalled by. Non-blocking.
 *
 * Closing it ends its use here; the descriptor lives until its registrations are closed too, or their VM is, for without it
 * the kernel would take none of them back.
 */
export class EventFd extends Handle {
  override readonly noun = 'the eventfd';
  readonly #counter = new BigUint64Array(1);
  #closed = false;
  #holders = 0;

  constructor(calls: KvmCalls, initial = 0) {
    const fd = calls.eventfd(checkU32(initial, 'initial'));
    if (fd < 0) throw callFailure('eventfd', fd, { noun: 'the eventfd', closed: false });
    super(calls, fd);
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
    const result = this.calls.read(this.fd, new Uint8Array(this.#counter.buffer));
    if (result === -ERRNO.EAGAIN) return 0n;
    this.check('read', result);
    return this.#counter[0]!;
  }

  /** Adds to the counter. @throws KvmError EBADF; EAGAIN when it would pass 2^64 − 2 */
  signal(by = 1n): void {
    this.#counter[0] = by;
    this.check('write', this.calls.write(this.fd, new Uint8Array(this.#counter.buffer)));
  }
}

/** Something that was registered with a VM, and is taken back by closing. Idempotent. */
export class Registration {
  #undo: (() => void) | undefined;

  constructor(undo: () => void) {
    this.#undo = undo;
  }

  get closed(): boolean {
    return this.#undo === undefined;
  }

  close(): void {
    const undo = this.#undo;
    this.#undo = undefined;
    undo?.();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
