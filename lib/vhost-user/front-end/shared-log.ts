import type { KvmCalls } from '../../calls/kvm-calls.ts';
import { Mapping } from '../../memory/mapping.ts';
import type { AddressSpace } from '../../sharing/address-space.ts';
import { PageLog } from '../log.ts';
import type { LogArea } from '../message.ts';
import { LOG_PAGE } from '../protocol.ts';

/** The log that a back end fills, whose pages are dirty in the address space whenever somebody collects them. */
export class SharedLog {
  readonly #calls: KvmCalls;
  readonly #space: AddressSpace;
  #log: PageLog | undefined;
  /** One past the last address that it has bits for. */
  end = 0;

  constructor(calls: KvmCalls, space: AddressSpace) {
    this.#calls = calls;
    this.#space = space;
    space.written.addSource(this.#gather);
  }

  /**
   * A log that reaches further. The one before is read once more by `settle`, when the back end uses the new one, or
   * never will.
   */
  grow(end: number): { readonly fd: number; readonly area: LogArea; settle(): void } {
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

  /** Reads it for the last time. */
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
