import { checkBoolean, checkInstance, checkInstances, checkInteger, checkU32 } from '../../base/arguments.ts';
import type { KvmError } from '../../base/errors.ts';
import { counted } from '../../base/text.ts';
import { GuestMemory } from '../../memory/guest-memory.ts';
import { Chain, readChain } from './chain.ts';
import {
  AVAIL_NO_INTERRUPT,
  checkLayout,
  checkQueueOptions,
  indexDistance,
  isEventDue,
  type QueueLayout,
  type QueueOptions,
  queueError,
  SharedFields,
  USED_NO_NOTIFY,
} from './layout.ts';

/**
 * A split virtqueue as its device uses it: takes chains, and gives them back. What the driver wrote is checked, and read once.
 */
export class DeviceQueue {
  readonly #memory: GuestMemory;
  readonly #fields: SharedFields;
  readonly #layout: QueueLayout;
  readonly #eventIdx: boolean;
  readonly #indirect: boolean;
  #nextAvail: number;
  #used: number;
  /** The used index when the driver was told the last time. */
  #told: number;
  readonly #inFlight = new Map<number, Chain>();
  /** At which index each of them was taken. */
  readonly #takenAt = new Map<number, number>();
  /** Descriptors of the table that chains in flight have. */
  #claimed = 0;

  /** @throws RangeError for a layout that virtio doesn't allow; KvmError EFAULT where a ring has no memory */
  constructor(memory: GuestMemory, layout: QueueLayout, options: QueueOptions = {}) {
    const { eventIdx, indirect, base } = checkQueueOptions(options);
    checkLayout(layout);
    this.#memory = checkInstance(memory, 'memory', GuestMemory);
    this.#layout = layout;
    this.#eventIdx = eventIdx;
    this.#indirect = indirect;
    this.#fields = new SharedFields(memory, layout.avail);
    this.#nextAvail = base;
    this.#used = this.#fields.load(layout.used + 2);
    this.#told = this.#used;
  }

  /** Index of the chain that comes next: where another device would go on. */
  get base(): number {
    return this.#nextAvail;
  }

  /** Chains that were taken and not given back. */
  get inFlight(): number {
    return this.#inFlight.size;
  }

  /** Whether there is a chain to be taken. @throws KvmError EPROTO as {@link take} */
  get hasMore(): boolean {
    return this.#available() > 0;
  }

  /**
   * Takes the next chain; undefined when there is none.
   * @throws KvmError EPROTO for what virtio forbids: then the queue is of no use until the driver begins anew
   */
  take(): Chain | undefined {
    if (this.#available() === 0) return undefined;
    const { avail, size } = this.#layout;
    const head = this.#memory.readU16(avail + 4 + 2 * (this.#nextAvail % size), true);
    const chain = this.#claim(head);
    this.#takenAt.set(head, this.#nextAvail);
    this.#nextAvail = (this.#nextAvail + 1) & 0xffff;
    return chain;
  }

  /** Takes a chain again that was in flight when a device before this one went. @throws KvmError EPROTO */
  resume(head: number): Chain {
    checkInteger(head, 'head', 0, 0xffff);
    return this.#claim(head);
  }

  /** Gives a chain back, into which so many bytes were written. @throws KvmError EFAULT */
  complete(chain: Chain, written: number): void {
    const { head } = checkInstance(chain, 'chain', Chain);
    checkU32(written, 'written');
    if (this.#inFlight.get(head) !== chain) throw notInFlight(chain);
    this.#inFlight.delete(head);
    this.#claimed -= chain.direct;
    const { used, size } = this.#layout;
    const at = used + 4 + 8 * (this.#used % size);
    this.#memory.writeU32(at, head, true);
    this.#memory.writeU32(at + 4, written, true);
    this.#used = (this.#used + 1) & 0xffff;
    // Ordered behind what is in the chain and in the ring.
    this.#fields.store(used + 2, this.#used);
  }

  /**
   * Leaves chains that were not touched to whoever goes on at {@link base}. One behind which others were given back can't be left:
   * that is given back with nothing in it. @throws KvmError EFAULT
   */
  leave(chains: readonly Chain[]): void {
    checkInstances(chains, 'chains', Chain);
    for (const chain of chains) if (this.#inFlight.get(chain.head) !== chain) throw notInFlight(chain);
    const age = ({ head }: Chain) => indexDistance(this.#nextAvail, this.#takenAt.get(head)!);
    for (const chain of [...chains].sort((one, other) => age(one) - age(other))) {
      if (age(chain) !== 1) this.complete(chain, 0);
      else {
        this.#inFlight.delete(chain.head);
        this.#claimed -= chain.direct;
        this.#nextAvail = (this.#nextAvail - 1) & 0xffff;
      }
    }
  }

  /** Whether the driver wants to be told of the chains given back since it was asked last. */
  needsCall(): boolean {
    const before = this.#told;
    if (this.#used === before) return false;
    this.#told = this.#used;
    const { avail, size } = this.#layout;
    if (this.#eventIdx) return isEventDue(this.#fields.load(avail + 4 + 2 * size), this.#used, before);
    return (this.#fields.load(avail) & AVAIL_NO_INTERRUPT) === 0;
  }

  /** Asks to be kicked, or not to be. After asking for it, look once more whether there is something. */
  setKicks(wanted: boolean): void {
    checkBoolean(wanted, 'wanted');
    const { used, size } = this.#layout;
    if (!this.#eventIdx) this.#fields.store(used, wanted ? 0 : USED_NO_NOTIFY);
    else if (wanted) this.#fields.store(used + 4 + 8 * size, this.#nextAvail);
  }

  #claim(head: number): Chain {
    const { size } = this.#layout;
    if (this.#inFlight.has(head)) throw queueError(`chain ${head} is made available while it is in flight`);
    const chain = readChain(this.#memory, this.#layout, head, this.#indirect);
    this.#claimed += chain.direct;
    if (this.#claimed > size)
      throw queueError(`chains in flight share descriptors: they have ${this.#claimed} of ${size}`);
    this.#inFlight.set(head, chain);
    return chain;
  }

  #available(): number {
    const { avail, size } = this.#layout;
    const index = this.#fields.load(avail + 2);
    const count = indexDistance(index, this.#nextAvail);
    if (count > size) {
      throw queueError(
        `the available index went from ${this.#nextAvail} to ${index}, and the queue has ${counted(size, 'descriptor')}`,
      );
    }
    return count;
  }
}

const notInFlight = ({ head }: Chain): KvmError => queueError(`chain ${head} is not in flight`);
