import type { KvmCalls } from './calls/kvm-calls.ts';
import { KvmError, type KvmErrorInfo } from './errors.ts';
import { ERRNO } from './uapi/errno.ts';

interface OpenFd {
  readonly calls: KvmCalls;
  readonly fd: number;
}

const dropped = new FinalizationRegistry<OpenFd>(({ calls, fd }) => {
  calls.close(fd);
});

/**
 * An open file descriptor. It is closed by {@link close}, by `using`, or, when the handle was dropped, by the garbage
 * collector. Closing twice does nothing; using it afterwards is EBADF, and never reaches somebody else's descriptor
 * that happens to have got the same number.
 */
export abstract class Handle {
  readonly calls: KvmCalls;
  /** What an error calls it: `the VM`. */
  protected abstract readonly noun: string;
  #fd: number;

  protected constructor(calls: KvmCalls, fd: number) {
    this.calls = calls;
    this.#fd = fd;
    dropped.register(this, { calls, fd }, this);
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
    this.releaseFd();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  protected releaseFd(): void {
    this.forgetFd()?.();
  }

  /** Makes the handle closed now, and gives what closes the descriptor later. */
  protected forgetFd(): (() => void) | undefined {
    const fd = this.#fd;
    if (fd < 0) return undefined;
    this.#fd = -1;
    dropped.unregister(this);
    const { calls } = this;
    return () => {
      calls.close(fd);
    };
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
