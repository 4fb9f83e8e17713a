import { ERRNO } from '../uapi/errno.ts';
import type { EmulatedEventfd } from './open-file.ts';

/**
 * The irqfds of a VM. An eventfd is an irqfd once, whatever the gsi. Nobody but the guest hears of its signals then: KVM reads
 * the counter in the same moment (virt/kvm/eventfd.c, `irqfd_wakeup`). What was counted
 * before stays until the irqfd ends.
 */
export class Irqfds {
  readonly #gsis = new Map<EmulatedEventfd, number>();

  add(eventfd: EmulatedEventfd, gsi: number): number {
    if (this.#gsis.has(eventfd)) return -ERRNO.EBUSY;
    this.#gsis.set(eventfd, gsi);
    eventfd.irqfds.add(this);
    return 0;
  }

  /** Nothing to delete is no error. */
  delete(eventfd: EmulatedEventfd, gsi: number): void {
    if (this.#gsis.get(eventfd) !== gsi) return;
    this.#gsis.delete(eventfd);
    eventfd.irqfdEnded(this);
  }

  /** The VM's descriptor was closed. */
  clear(): void {
    for (const [eventfd, gsi] of this.#gsis) this.delete(eventfd, gsi);
  }

  eventfdReleased(eventfd: EmulatedEventfd): void {
    this.#gsis.delete(eventfd);
  }
}
