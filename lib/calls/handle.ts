import { inspect } from 'node:util';
import { checkU32 } from '../base/arguments.ts';
import { hex, KvmError } from '../base/errors.ts';
import type { U64 } from '../base/u64.ts';
import { ERRNO } from '../uapi/errno.ts';
import { requestName } from '../uapi/requests.ts';
import { type Reach, reachOf, unmapDropped } from './dropped.ts';
import { type Callee, callFailure, type FailureInfo, whyClosed } from './failure.ts';
import type { KvmCalls } from './kvm-calls.ts';
import type { CallName } from './signatures.ts';
import { checkCalls } from './wrapped.ts';

/** What goes with a handle: its descriptor, and what was mapped through it, which keeps the file open in the kernel. */
interface OpenFd {
  readonly reach: Reach;
  readonly fd: number;
  readonly mapped: { readonly hva: number; readonly size: number }[];
}

const MASK_IS_TAKEN = 'each run sets the signal mask of its thread; kick, pause and a timeout get a guest out';

const dropped = new FinalizationRegistry<OpenFd>(closeAll);

/** First the descriptor: nobody is inside KVM_RUN afterwards. */
function closeAll({ reach, fd, mapped }: OpenFd): void {
  const calls = reach();
  if (calls === undefined) return;
  calls.close(fd);
  for (const { hva, size } of mapped) unmapDropped(calls, hva, size);
}

function unmap(calls: KvmCalls, { mapped }: OpenFd): void {
  for (const { hva, size } of mapped) calls.munmap(hva, size);
}

/**
 * An open file descriptor. It is closed by {@link close}, by `using`, or, when the handle was dropped, by the garbage
 * collector. Closing twice does nothing; using it afterwards is EBADF, and never reaches somebody else's descriptor
 * that happens to have got the same number.
 */
export abstract class Handle implements Callee {
  readonly calls: KvmCalls;
  /** What an error calls it: `the VM`. */
  abstract readonly noun: string;
  #open: OpenFd | undefined;
  #fd: number;

  protected constructor(calls: KvmCalls, fd: number) {
    this.calls = checkCalls(calls);
    this.#fd = fd;
    this.#open = { reach: reachOf(calls), fd, mapped: [] };
    dropped.register(this, this.#open, this);
  }

  /** The descriptor; −1 once it is closed, which every call answers with EBADF. */
  get fd(): number {
    return this.#fd;
  }

  get closed(): boolean {
    return this.#fd < 0;
  }

  /** Closes the descriptor. Does nothing when it is closed already. */
  close(): void {
    const open = this.#open;
    if (open === undefined) return;
    this.#forget();
    this.calls.close(open.fd);
    try {
      this.fdClosed();
    } finally {
      unmap(this.calls, open);
    }
  }

  /** Gives the descriptor up: it stays open and is the caller's, and this handle is closed, and what it mapped is unmapped. −1 when it was so already. */
  protected giveUp(): number {
    const open = this.#open;
    if (open === undefined) return -1;
    this.#forget();
    unmap(this.calls, open);
    return open.fd;
  }

  #forget(): void {
    this.#open = undefined;
    this.#fd = -1;
    dropped.unregister(this);
  }

  /** The descriptor is closed, and what was mapped through it is there for the last time. */
  protected fdClosed(): void {}

  [Symbol.dispose](): void {
    this.close();
  }

  /** Unmaps a range of memory when the handle is closed. */
  protected unmapLater(hva: number, size: number): void {
    this.#open?.mapped.push({ hva, size });
  }

  /**
   * Waits until one of the events (bits of POLL) is true, and gives those that are.
   * @throws KvmError EBADF when it is closed, also meanwhile; the signal's reason when that is aborted
   */
  protected async untilReady(events: number, signal?: AbortSignal): Promise<number> {
    // This ends the waits of others too; they find that out, and wait on.
    const stop = () => void this.calls.poll(this.fd, 0);
    signal?.addEventListener('abort', stop);
    try {
      for (;;) {
        signal?.throwIfAborted();
        const ready = this.check('poll', await this.calls.poll(this.fd, events));
        if (ready !== 0) return ready;
      }
    } finally {
      signal?.removeEventListener('abort', stop);
    }
  }

  /** @internal The result of a call on this descriptor, or the error that it stands for. */
  check(name: CallName, result: number, info?: FailureInfo): number {
    if (result < 0) throw this.failure(name, result, info);
    return result;
  }

  /** An ioctl that has no method, over a number or a structure; its result. @throws KvmError */
  protected checkIoctl(request: number, arg: U64 | Uint8Array): number {
    const result = this.calls.ioctlUnchecked(this.fd, checkU32(request, 'request'), arg);
    if (result >= 0) return result;
    const isMask = result === -ERRNO.EPERM && requestName(request, this.calls.arch) === 'KVM_SET_SIGNAL_MASK';
    const explanation = isMask ? MASK_IS_TAKEN : whyClosed(result, this);
    throw new KvmError(result, { syscall: `ioctl(${hex(request)})`, explanation });
  }

  /** `EventFd fd 5`. */
  [inspect.custom](_depth: number, _options: object): string {
    return `${this.constructor.name} ${this.closed ? '(closed)' : `fd ${this.fd}`}`;
  }

  protected failure(name: CallName, errno: number, info?: FailureInfo): KvmError {
    return callFailure(name, errno, this, info);
  }
}
