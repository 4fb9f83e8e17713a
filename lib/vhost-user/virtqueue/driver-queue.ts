import { checkInstance } from '../../base/arguments.ts';
import { KvmError } from '../../base/errors.ts';
import { counted } from '../../base/text.ts';
import { GuestMemory } from '../../memory/guest-memory.ts';
import { ERRNO } from '../../uapi/errno.ts';
import {
  type ChainSegment,
  checkLayout,
  checkQueueOptions,
  checkSegments,
  DESC_FLAG,
  DESC_SIZE,
  indexDistance,
  isEventDue,
  type QueueLayout,
  type QueueOptions,
  queueError,
  SharedFields,
  USED_NO_NOTIFY,
  usedBytes,
} from './layout.ts';

/** A chain that came back. */
export interface UsedChain<T> {
  readonly token: T;
  /** Bytes that the device says it wrote. */
  readonly written: number;
}

interface InFlight<T> {
  readonly token: T;
  readonly descriptors: readonly number[];
  readonly writable: number;
}

/**
 * A split virtqueue as its driver uses it. The rings are made anew. It never reads what it wrote itself, so that nothing that
 * a device does to the memory leads it astray.
 */
export class DriverQueue<T> {
  readonly #memory: GuestMemory;
  readonly #fields: SharedFields;
  readonly #layout: QueueLayout;
  readonly #eventIdx: boolean;
  readonly #free: number[];
  readonly #inFlight = new Map<number, InFlight<T>>();
  #avail = 0;
  #published = 0;
  #lastUsed = 0;

  /** @throws RangeError for a layout that virtio doesn't allow; KvmError EFAULT where a ring has no memory */
  constructor(memory: GuestMemory, layout: QueueLayout, options: QueueOptions = {}) {
    const { eventIdx } = checkQueueOptions(options);
    checkLayout(layout);
    this.#memory = checkInstance(memory, 'memory', GuestMemory);
    this.#layout = layout;
    this.#eventIdx = eventIdx;
    const { size, avail, used } = layout;
    this.#free = Array.from({ length: size }, (_, i) => size - 1 - i);
    memory.fill(avail, 4);
    memory.fill(used, usedBytes(size));
    this.#fields = new SharedFields(memory, avail);
    if (eventIdx) this.#fields.store(avail + 4 + 2 * size, 0);
  }

  get inFlight(): number {
    return this.#inFlight.size;
  }

  /** Descriptors that are free. */
  get room(): number {
    return this.#free.length;
  }

  /** Makes a chain available, by {@link publish}. @throws KvmError ENOSPC when there are too few descriptors */
  add(readable: readonly ChainSegment[], writable: readonly ChainSegment[], token: T): void {
    checkSegments(readable, 'readable');
    checkSegments(writable, 'writable');
    const count = readable.length + writable.length;
    if (count === 0 || count > this.#free.length) {
      const explanation = `a chain of ${counted(count, 'descriptor')}; ${this.#free.length} of ${this.#layout.size} are free`;
      throw new KvmError(count === 0 ? ERRNO.EINVAL : ERRNO.ENOSPC, { syscall: 'virtqueue', explanation });
    }
    const descriptors = this.#free.splice(this.#free.length - count).reverse();
    for (const [i, segment] of [...readable, ...writable].entries()) {
      const isWritable = i >= readable.length;
      this.#putDescriptor(descriptors[i]!, segment, isWritable, descriptors[i + 1]);
    }
    const head = descriptors[0]!;
    const bytes = writable.reduce((sum, { length }) => sum + length, 0);
    this.#inFlight.set(head, { token, descriptors, writable: bytes });
    const { avail, size } = this.#layout;
    this.#memory.writeU16(avail + 4 + 2 * (this.#avail % size), head, true);
    this.#avail = (this.#avail + 1) & 0xffff;
  }

  /** Shows the device what was added. @returns whether it wants to be kicked */
  publish(): boolean {
    const before = this.#published;
    if (this.#avail === before) return false;
    this.#published = this.#avail;
    const { avail, used, size } = this.#layout;
    this.#fields.store(avail + 2, this.#avail);
    if (this.#eventIdx) return isEventDue(this.#fields.load(used + 4 + 8 * size), this.#avail, before);
    return (this.#fields.load(used) & USED_NO_NOTIFY) === 0;
  }

  /**
   * The next chain that came back; undefined when there is none, and the device then calls for the next.
   * @throws KvmError EPROTO for what a device must not do
   */
  take(): UsedChain<T> | undefined {
    const { avail, used, size } = this.#layout;
    let index = this.#fields.load(used + 2);
    if (index === this.#lastUsed && this.#eventIdx) {
      this.#fields.store(avail + 4 + 2 * size, this.#lastUsed);
      index = this.#fields.load(used + 2);
    }
    if (index === this.#lastUsed) return undefined;
    const count = indexDistance(index, this.#lastUsed);
    if (count > this.#inFlight.size) {
      throw queueError(`the device gives back ${count} chains, and ${this.#inFlight.size} are in flight`);
    }
    const at = used + 4 + 8 * (this.#lastUsed % size);
    const chain = this.#giveBack(this.#memory.readU32(at, true), this.#memory.readU32(at + 4, true));
    this.#lastUsed = (this.#lastUsed + 1) & 0xffff;
    return chain;
  }

  #giveBack(head: number, written: number): UsedChain<T> {
    const found = this.#inFlight.get(head);
    if (found === undefined) throw queueError(`the device gives back chain ${head}, which is not in flight`);
    if (written > found.writable) {
      throw queueError(
        `the device wrote ${counted(written, 'byte')} into chain ${head}, which has room for ${found.writable}`,
      );
    }
    this.#inFlight.delete(head);
    this.#free.push(...found.descriptors);
    return { token: found.token, written };
  }

  #putDescriptor(index: number, { gpa, length }: ChainSegment, isWritable: boolean, next: number | undefined): void {
    const at = this.#layout.desc + DESC_SIZE * index;
    this.#memory.writeU64(at, gpa, true);
    this.#memory.writeU32(at + 8, length, true);
    this.#memory.writeU16(
      at + 12,
      (isWritable ? DESC_FLAG.WRITE : 0) | (next === undefined ? 0 : DESC_FLAG.NEXT),
      true,
    );
    this.#memory.writeU16(at + 14, next ?? 0, true);
  }
}
