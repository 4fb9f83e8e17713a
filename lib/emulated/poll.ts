import { ERRNO } from '../uapi/errno.ts';
import { POLL } from '../uapi/flags.ts';

interface Waiter {
  readonly events: number;
  settle(result: number): void;
}

/** As far ahead as a timer can be. */
export const FOREVER = 0x7fff_ffff;

/**
 * Those who wait for an emulated descriptor. As with the event loop's own poll, they hear of it in a later turn, and keep the
 * process alive meanwhile.
 */
export class PollQueue {
  readonly #ready: () => number;
  #waiters: Waiter[] = [];
  #scheduled = false;
  #keepAlive: NodeJS.Timeout | undefined;

  /** @param ready the bits of POLL that are true now */
  constructor(ready: () => number) {
    this.#ready = ready;
  }

  wait(events: number): Promise<number> {
    return new Promise((settle) => {
      this.#waiters.push({ events, settle });
      this.#keepAlive ??= setInterval(() => {}, FOREVER);
      this.changed();
    });
  }

  /** What is ready may be more than before. */
  changed(): void {
    if (this.#scheduled || this.#waiters.length === 0) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      const ready = this.#ready();
      this.#take((waiter) => (waiter.events & ready) !== 0, ready);
    });
  }

  /** Ends all waits with a result of their own. */
  settle(result: number): void {
    this.#take(() => true, result);
  }

  #take(isTaken: (waiter: Waiter) => boolean, result: number): void {
    const taken = this.#waiters.filter(isTaken);
    this.#waiters = this.#waiters.filter((waiter) => !taken.includes(waiter));
    for (const { events, settle } of taken) settle(result < 0 ? result : result & events);
    if (this.#waiters.length > 0) return;
    clearInterval(this.#keepAlive);
    this.#keepAlive = undefined;
  }
}

/** poll(2) of an emulated file, whose queue is absent where the file's kind can't be waited for. */
export async function pollFile(queue: PollQueue | undefined, events: number): Promise<number> {
  if ((events & ~(POLL.IN | POLL.OUT)) !== 0) return -ERRNO.EINVAL;
  if (events === 0) {
    queue?.settle(0);
    // Those who waited hear of it first.
    await new Promise((turn) => setImmediate(turn));
    return 0;
  }
  return queue === undefined ? -ERRNO.EPERM : queue.wait(events);
}
