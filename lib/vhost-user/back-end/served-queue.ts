import { KvmError } from '../../base/errors.ts';
import type { EventFd } from '../../sharing/eventfd.ts';
import { ERRNO } from '../../uapi/errno.ts';
import type { VirtioDevice } from '../device.ts';
import type { MemoryTable } from '../memory-table.ts';
import type { VringAddresses } from '../message.ts';
import type { Chain } from '../virtqueue/chain.ts';
import { DeviceQueue } from '../virtqueue/device-queue.ts';
import { availBytes, descBytes, type QueueLayout, type QueueOptions, usedBytes } from '../virtqueue/layout.ts';
import type { InflightQueue } from './inflight.ts';

/** Chains that are begun before others have their turn. */
const CHAINS_AT_ONCE = 64;

/** What a queue needs of the session. */
export interface QueueOwner {
  readonly device: VirtioDevice;
  readonly table: MemoryTable;
  /** As they were negotiated. */
  readonly queueOptions: QueueOptions;
  /** The queue is of no use any more, until it is started anew. */
  queueFailed(index: number, error: Error): void;
}

/** A queue of a device, as a front end sets it up, starts and stops it. */
export class ServedQueue {
  readonly index: number;
  readonly #owner: QueueOwner;
  size = 0;
  base = 0;
  inflight: InflightQueue | undefined;
  #addresses: VringAddresses | undefined;
  #kick: EventFd | undefined;
  #call: EventFd | undefined;
  #err: EventFd | undefined;
  #enabled = false;
  #queue: DeviceQueue | undefined;
  #layout: QueueLayout | undefined;
  #running: Promise<void> | undefined;
  /** Chains that the device has not touched, and leaves to whoever goes on. */
  #left: Chain[] = [];
  /** Those who wait until nothing is in flight. */
  #idle: (() => void)[] = [];
  #callIsDue = false;

  constructor(owner: QueueOwner, index: number) {
    this.#owner = owner;
    this.index = index;
  }

  get started(): boolean {
    return this.#queue !== undefined;
  }

  /** @throws KvmError EFAULT when a ring isn't inside one region */
  set addresses(addresses: VringAddresses) {
    const layout = this.#translate(addresses);
    if (this.#layout !== undefined && !isSame(layout, this.#layout)) throw this.#busy('its rings can not move');
    this.#addresses = addresses;
  }

  set call(eventfd: EventFd | undefined) {
    this.#call?.close();
    this.#call = eventfd;
    // What was given back meanwhile.
    if (this.#queue !== undefined) eventfd?.signal();
  }

  set err(eventfd: EventFd | undefined) {
    this.#err?.close();
    this.#err = eventfd;
  }

  set enabled(enabled: boolean) {
    this.#enabled = enabled;
    if (enabled) this.#run();
  }

  /** Starts the queue, whose kicks come from now on. @throws KvmError EINVAL when it was not set up, EFAULT, EBUSY */
  start(kick: EventFd): void {
    if (this.#queue !== undefined) {
      kick.close();
      throw this.#busy('it runs');
    }
    try {
      this.#queue = this.#open();
    } catch (error) {
      kick.close();
      throw error;
    }
    this.#kick = kick;
    this.#run();
  }

  /** Stops the queue, when all that is in flight was given back. @returns the index at which another goes on */
  async stop(): Promise<number> {
    const queue = this.#queue;
    if (queue === undefined) return this.base;
    this.#kick?.close();
    await this.#running;
    this.#owner.device.stopping?.(this.index);
    while (queue.inFlight > this.#left.length && this.#queue === queue) {
      await new Promise<void>((resolve) => this.#idle.push(resolve));
    }
    // Who is told what was in flight begins with that.
    if (this.#queue === queue && this.inflight === undefined) queue.leave(this.#left);
    this.#end();
    return this.base;
  }

  /** The table has changed: the rings must be where they were. */
  tableChanged(): void {
    if (this.#queue === undefined) return;
    try {
      if (!isSame(this.#translate(this.#addresses!), this.#layout!)) throw this.#busy('its rings can not move');
    } catch (error) {
      this.#fail(error as Error);
    }
  }

  /** Ends everything at once: what is in flight is not given back. */
  close(): void {
    this.#end();
    this.call = undefined;
    this.err = undefined;
    this.#addresses = undefined;
    this.#enabled = false;
    this.size = 0;
    this.base = 0;
  }

  #open(): DeviceQueue {
    if (this.size === 0 || this.#addresses === undefined) {
      const explanation = `queue ${this.index} is started without ${this.size === 0 ? 'a size' : 'addresses'}`;
      throw new KvmError(ERRNO.EINVAL, { syscall: 'start queue', explanation });
    }
    const layout = this.#translate(this.#addresses);
    const { table, queueOptions } = this.#owner;
    const base = this.inflight?.recover(table.memory.readU16(layout.used + 2, true)) ?? this.base;
    const queue = new DeviceQueue(table.memory, layout, { ...queueOptions, base });
    this.#layout = layout;
    return queue;
  }

  #run(): void {
    const queue = this.#queue;
    if (queue === undefined || !this.#enabled || this.#running !== undefined) return;
    this.#running = this.#serve(queue, this.#kick!)
      .catch((error: Error) => {
        if (this.#queue === queue && !this.#kick!.closed) this.#fail(error);
      })
      .then(() => {
        this.#running = undefined;
        // It may have been enabled, or started anew, since the last look at it.
        if (this.#kick?.closed === false) this.#run();
      });
  }

  async #serve(queue: DeviceQueue, kick: EventFd): Promise<void> {
    for (const head of this.inflight?.takeLeft() ?? []) this.#begin(queue, queue.resume(head));
    while (this.#queue === queue && !kick.closed) {
      const isEmpty = await this.#drain(queue, kick);
      if (!this.#enabled) return;
      if (isEmpty) await kick.wait();
    }
  }

  /** Begins all chains that there are; false when that was ended, with kicks not asked for. */
  async #drain(queue: DeviceQueue, kick: EventFd): Promise<boolean> {
    let begun = 0;
    do {
      queue.setKicks(false);
      for (;;) {
        // It may have been stopped, or have failed, while others had their turn.
        if (this.#queue !== queue || kick.closed || !this.#enabled) return false;
        const chain = queue.take();
        if (chain === undefined) break;
        this.inflight?.began(chain.head);
        this.#begin(queue, chain);
        if (++begun % CHAINS_AT_ONCE !== 0) continue;
        this.#tell(queue);
        await new Promise((resolve) => setImmediate(resolve));
      }
      queue.setKicks(true);
    } while (queue.hasMore);
    this.#tell(queue);
    return true;
  }

  #begin(queue: DeviceQueue, chain: Chain): void {
    const result = this.#owner.device.handle(chain, this.index);
    if (typeof result === 'number') {
      this.#giveBack(queue, chain, result);
      return;
    }
    result
      .then((written) => {
        if (this.#queue !== queue) return;
        if (written === undefined) this.#leave(queue, chain);
        else {
          this.#giveBack(queue, chain, written);
          this.#tellSoon(queue);
        }
      })
      .catch((error: Error) => {
        if (this.#queue === queue) this.#fail(error);
      });
  }

  #giveBack(queue: DeviceQueue, chain: Chain, written: number): void {
    this.inflight?.ending(chain.head);
    queue.complete(chain, written);
    this.inflight?.ended(chain.head);
    const { flags, log } = this.#addresses!;
    const { used, size } = this.#layout!;
    if (flags !== 0 && log !== used) this.#owner.table.written.mark(log, usedBytes(size));
    this.#wakeIdle(queue);
  }

  #leave(queue: DeviceQueue, chain: Chain): void {
    this.#left.push(chain);
    this.#wakeIdle(queue);
  }

  #wakeIdle(queue: DeviceQueue): void {
    if (queue.inFlight === this.#left.length) for (const resolve of this.#idle.splice(0)) resolve();
  }

  #tell(queue: DeviceQueue): void {
    if (queue.needsCall()) this.#call?.signal();
  }

  /** One call for all chains that end in the same turn. */
  #tellSoon(queue: DeviceQueue): void {
    if (this.#callIsDue) return;
    this.#callIsDue = true;
    setImmediate(() => {
      this.#callIsDue = false;
      if (this.#queue !== queue) return;
      try {
        this.#tell(queue);
      } catch (error) {
        this.#fail(error as Error);
      }
    });
  }

  #fail(error: Error): void {
    try {
      this.#err?.signal();
    } catch {
      // A front end that can't be told is no reason to go on.
    }
    this.#end();
    this.#owner.queueFailed(this.index, error);
  }

  #end(): void {
    if (this.#queue !== undefined) this.base = this.#queue.base;
    this.#queue = undefined;
    this.#layout = undefined;
    this.#left = [];
    this.#kick?.close();
    for (const resolve of this.#idle.splice(0)) resolve();
  }

  #translate({ desc, avail, used }: VringAddresses): QueueLayout {
    const { size } = this;
    const { table } = this.#owner;
    return {
      size,
      desc: table.gpaOf(desc, descBytes(size), 'the descriptor table'),
      avail: table.gpaOf(avail, availBytes(size), 'the available ring'),
      used: table.gpaOf(used, usedBytes(size), 'the used ring'),
    };
  }

  #busy(why: string): KvmError {
    return new KvmError(ERRNO.EBUSY, { syscall: 'set up queue', explanation: `queue ${this.index}: ${why}` });
  }
}

function isSame(left: QueueLayout, right: QueueLayout): boolean {
  return (['size', 'desc', 'avail', 'used'] as const).every((part) => left[part] === right[part]);
}
