import { KvmError, type KvmErrorInfo } from '../base/errors.ts';
import { ERRNO } from '../uapi/errno.ts';
import type { KvmCalls } from './kvm-calls.ts';

/** What goes with a handle: its descriptor, and what was mapped through it, which keeps the file open in the kernel. */
interface OpenFd {
  readonly calls: KvmCalls;
  readonly fd: number;
  readonly mapped: { readonly hva: number; readonly size: number }[];
}

const dropped = new FinalizationRegistry<OpenFd>(release);

/** First the descriptor: nobody is inside KVM_RUN afterwards, and nobody looks at what was mapped. */
function release({ calls, fd, mapped }: OpenFd): void {
  calls.close(fd);
  for (const { hva, size } of mapped) calls.munmap(hva, size);
}

/**
 * An open file descriptor. It is closed by {@link close}, by `using`, or, when the handle was dropped, by the garbage
 * collector. Closing twice does nothing; using it afterwards is EBADF, and never reaches somebody else's descriptor
 * that happens to have got the same number.
 */
export abstract class Handle {
  readonly calls: KvmCalls;
  /** What an error calls it: `the VM`. */
  protected abstract readonly noun: string;
  #open: OpenFd | undefined;
  #fd: number;

  protected constructor(calls: KvmCalls, fd: number) {
    this.calls = calls;
    this.#fd = fd;
    this.#open = { calls, fd, mapped: [] };
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
    this.#open = undefined;
    this.#fd = -1;
    dropped.unregister(this);
    release(open);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** Unmaps a range of memory when the handle is closed. */
  protected unmapLater(hva: number, size: number): void {
    this.#open?.mapped.push({ hva, size });
  }

  /** The result of a call on this descriptor, or the error that it stands for. */
  protected check(result: number, syscall: string, info?: Omit<KvmErrorInfo, 'syscall'>): number {
    if (result < 0) throw this.failure(result, syscall, info);
    return result;
  }

  protected failure(errno: number, syscall: string, info?: Omit<KvmErrorInfo, 'syscall'>): KvmError {
    const explanation = errno === -ERRNO.EBADF && this.closed ? `${this.noun} is closed` : info?.explanation;
    return new KvmError(errno, { ...info, syscall, explanation });
  }
}
