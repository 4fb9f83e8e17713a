import { KvmError } from '../../base/errors.ts';
import type { KvmCalls } from '../../calls/kvm-calls.ts';
import { Mapping } from '../../memory/mapping.ts';
import type { AddressSpace } from '../../sharing/address-space.ts';
import { ERRNO } from '../../uapi/errno.ts';
import { PageLog } from '../log.ts';
import type { LogArea } from '../message.ts';
import { LOG_PAGE } from '../protocol.ts';

/** A log that a back end fills. */
export interface BackEndLog {
  /** One past the last address that it has bits for, as the back end knows it. */
  readonly end: number;
  /**
   * A log that reaches further. The one before is read once more by `settle`, when the back end uses the new one, or
   * never will.
   */
  grow(end: number): { readonly fd: number; readonly area: LogArea; settle(): void };
  /** Reads it for the last time. */
  close(): void;
}

/** The log of a shared address space's table, which the space itself reads. */
export class TableLog implements BackEndLog {
  readonly #log: NonNullable<AddressSpace['sharedLog']>;
  end = 0;

  /** @throws KvmError EBADF when the space is not shared */
  constructor({ sharedLog }: AddressSpace) {
    if (sharedLog === undefined) {
      const explanation = 'the address space has no table whose log could be used: share() comes first';
      throw new KvmError(ERRNO.EBADF, { syscall: 'startLog', explanation });
    }
    this.#log = sharedLog;
  }

  grow() {
    const { fd, offset, size } = this.#log;
    this.end = size * 8 * LOG_PAGE;
    return { fd, area: { offset, size }, settle: () => {} };
  }

  close(): void {}
}

/** The log that a back end fills, whose pages are dirty in the address space whenever somebody collects them. */
export class SharedLog implements BackEndLog {
  readonly #calls: KvmCalls;
  readonly #space: AddressSpace;
  #log: PageLog | undefined;
  end = 0;

  constructor(calls: KvmCalls, space: AddressSpace) {
    this.#calls = calls;
    this.#space = space;
    space.written.addSource(this.#gather);
  }

  grow(end: number): ReturnType<BackEndLog['grow']> {
    const before = this.#log;
    const size = Math.ceil(end / LOG_PAGE / 8 / this.#calls.pageSize) * this.#calls.pageSize;
    const mapping = Mapping.memfd(this.#calls, size, { name: 'vhost-log' });
    this.#log = new PageLog(mapping, 0, size);
    this.end = size * 8 * LOG_PAGE;
    const settle = (): void => {
      if (before === undefined) return;
      this.#take(before);
      before.close();
    };
    return { fd: mapping.fd, area: { size, offset: 0 }, settle };
  }

  close(): void {
    this.#space.written.removeSource(this.#gather);
    this.#gather();
    this.#log?.close();
    this.#log = undefined;
  }

  readonly #gather = (): void => {
    if (this.#log !== undefined) this.#take(this.#log);
  };

  #take(log: PageLog): void {
    log.take((page) => this.#space.markDirty(page * LOG_PAGE, LOG_PAGE));
  }
}
