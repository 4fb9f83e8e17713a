import { checkInstance, checkOptions, checkSize, checkU64 } from '../../base/arguments.ts';
import { KvmError, outOfRange } from '../../base/errors.ts';
import type { U64 } from '../../base/u64.ts';
import type { KvmCalls } from '../../calls/kvm-calls.ts';
import { checkCalls } from '../../calls/wrapped.ts';
import { AddressSpace } from '../../sharing/address-space.ts';
import { EventFd } from '../../sharing/eventfd.ts';
import { ERRNO } from '../../uapi/errno.ts';
import { BLOCK, BLOCK_FEATURE, BLOCK_HEADER, SECTOR } from '../block-device.ts';
import { bit, FEATURE, has } from '../protocol.ts';
import { DriverQueue } from '../virtqueue/driver-queue.ts';
import { type ChainSegment, checkQueueSize, layOut } from '../virtqueue/layout.ts';
import { VhostUserFrontEnd } from './front-end.ts';

export interface BlockDriverOptions {
  /** Guest physical address of memory that the driver may use, a multiple of 4096: {@link BlockDriver.areaSize} bytes. */
  readonly area: number;
  /** Descriptors of the queue, a power of two; 128 by default. A request takes three. */
  readonly queueSize?: number;
}

interface Request {
  readonly slot: number;
  readonly what: string;
  resolve(): void;
  reject(error: Error): void;
}

const PAGE = 4096;
const DESCRIPTORS_EACH = 3;
/** What the driver can make use of. */
const FEATURES = bit(BLOCK_FEATURE.FLUSH) | bit(BLOCK_FEATURE.RO) | bit(FEATURE.RING_EVENT_IDX);

/**
 * A driver for a disk, which plays the guest: it moves sectors between the disk and guest memory. The data itself is never
 * copied here.
 */
export class BlockDriver {
  /** Sectors of 512 bytes. */
  readonly capacity: bigint;
  readonly readOnly: boolean;
  readonly #frontEnd: VhostUserFrontEnd;
  readonly #memory: AddressSpace;
  readonly #queue: DriverQueue<Request>;
  readonly #kick: EventFd;
  readonly #call: EventFd;
  /** Signalled by a back end that can't go on with the queue. */
  readonly #err: EventFd;
  readonly #headers: number;
  readonly #statuses: number;
  readonly #slots: number[];
  readonly #inFlight = new Set<Request>();
  readonly #waiting: (() => void)[] = [];
  #failed: Error | undefined;
  #kickIsDue = false;

  private constructor(
    calls: KvmCalls,
    frontEnd: VhostUserFrontEnd,
    memory: AddressSpace,
    disk: Disk,
    queue: QueuePlace,
  ) {
    this.#frontEnd = frontEnd;
    this.#memory = memory;
    ({ capacity: this.capacity, readOnly: this.readOnly } = disk);
    const { area, queueSize } = queue;
    const { end, ...layout } = layOut(area, queueSize);
    const slots = Math.floor(queueSize / DESCRIPTORS_EACH);
    this.#slots = Array.from({ length: slots }, (_, i) => slots - 1 - i);
    this.#headers = end;
    this.#statuses = end + pages(slots * BLOCK_HEADER);
    this.#queue = new DriverQueue(memory, layout, { eventIdx: disk.eventIdx });
    this.#kick = new EventFd(calls);
    this.#call = new EventFd(calls);
    this.#err = new EventFd(calls);
  }

  /** Bytes of memory that a driver needs for a queue. */
  static areaSize(queueSize: number): number {
    checkQueueSize(queueSize, 'queueSize');
    const slots = Math.floor(queueSize / DESCRIPTORS_EACH);
    return layOut(0, queueSize).end + pages(slots * BLOCK_HEADER) + pages(slots);
  }

  /**
   * Negotiates with a disk, shares the memory with it unless that is done, and starts queue 0.
   * @throws KvmError as the front end's methods; EFAULT when the area isn't inside one region
   */
  static async start(
    calls: KvmCalls,
    frontEnd: VhostUserFrontEnd,
    memory: AddressSpace,
    options: BlockDriverOptions,
  ): Promise<BlockDriver> {
    const { area, queueSize = 128 } = checkOptions(options, { area: true, queueSize: true });
    checkCalls(calls);
    checkInstance(frontEnd, 'frontEnd', VhostUserFrontEnd);
    checkInstance(memory, 'memory', AddressSpace);
    if (checkSize(area, 'options.area') % PAGE !== 0) throw outOfRange('options.area', `a multiple of ${PAGE}`, area);
    if (checkQueueSize(queueSize, 'options.queueSize') < 4)
      throw outOfRange('options.queueSize', 'at least 4', queueSize);
    const taken = await frontEnd.negotiate(frontEnd.features & FEATURES);
    const config = await frontEnd.readConfig(0, 8);
    const disk = {
      capacity: new DataView(config.buffer, config.byteOffset).getBigUint64(0, true),
      readOnly: has(taken, BLOCK_FEATURE.RO),
      eventIdx: has(taken, FEATURE.RING_EVENT_IDX),
    };
    if (!frontEnd.isSharing(memory)) await frontEnd.share(memory);
    const driver = new BlockDriver(calls, frontEnd, memory, disk, { area, queueSize });
    try {
      const { end: _, ...layout } = layOut(area, queueSize);
      await frontEnd.startQueue(0, { ...layout, kick: driver.#kick, call: driver.#call, err: driver.#err });
    } catch (error) {
      driver.#close();
      throw error;
    }
    void driver.#collect();
    void driver.#watch();
    void frontEnd.ended.then((reason) => driver.#fail(reason ?? driver.#gone()));
    return driver;
  }

  /** Requests that are not answered yet. */
  get inFlight(): number {
    return this.#inFlight.size;
  }

  /** Reads sectors into guest memory. @throws KvmError EIO when the disk can't or the back end gave the queue up, ECONNRESET when the back end goes meanwhile */
  async read(sector: U64, gpa: number, length: number): Promise<void> {
    return this.#request(BLOCK.IN, sector, [], [{ gpa: checkSize(gpa, 'gpa'), length: checkLength(length) }]);
  }

  /** Writes sectors from guest memory. Errors as for {@link read}; EROFS is EIO as well. */
  async write(sector: U64, gpa: number, length: number): Promise<void> {
    return this.#request(BLOCK.OUT, sector, [{ gpa: checkSize(gpa, 'gpa'), length: checkLength(length) }], []);
  }

  /** Resolves when all that was written is on the medium. */
  flush(): Promise<void> {
    return this.#request(BLOCK.FLUSH, 0, [], []);
  }

  /** Takes the queue back, when everything is answered. The front end stays connected. */
  async stop(): Promise<void> {
    try {
      await this.#frontEnd.stopQueue(0);
      this.#take();
    } finally {
      this.#fail(this.#gone());
    }
  }

  async #request(
    type: number,
    sector: U64,
    out: readonly ChainSegment[],
    into: readonly ChainSegment[],
  ): Promise<void> {
    checkU64(sector, 'sector');
    while (this.#failed === undefined && this.#slots.length === 0) {
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
    if (this.#failed !== undefined) throw this.#failed;
    const slot = this.#slots.pop()!;
    const header = { gpa: this.#headers + BLOCK_HEADER * slot, length: BLOCK_HEADER };
    const status = { gpa: this.#statuses + slot, length: 1 };
    const memory = this.#memory;
    return new Promise((resolve, reject) => {
      const what = `request ${type} of sector ${sector}`;
      const request = { slot, what, resolve, reject };
      try {
        memory.writeU32(header.gpa, type, true);
        memory.writeU32(header.gpa + 4, 0, true);
        memory.writeU64(header.gpa + 8, sector, true);
        memory.writeU8(status.gpa, 0xff);
        this.#queue.add([header, ...out], [...into, status], request);
      } catch (error) {
        this.#free(slot);
        throw error;
      }
      this.#inFlight.add(request);
      this.#kickSoon();
    });
  }

  #free(slot: number): void {
    this.#slots.push(slot);
    this.#waiting.shift()?.();
  }

  /** One kick for all requests of the same turn. */
  #kickSoon(): void {
    if (this.#kickIsDue) return;
    this.#kickIsDue = true;
    queueMicrotask(() => {
      this.#kickIsDue = false;
      try {
        if (this.#failed === undefined && this.#queue.publish()) this.#kick.signal();
      } catch (error) {
        this.#fail(error as Error);
      }
    });
  }

  async #collect(): Promise<void> {
    try {
      for await (const _ of this.#call) this.#take();
    } catch (error) {
      this.#fail(error as Error);
    }
  }

  async #watch(): Promise<void> {
    try {
      await this.#err.wait();
      const explanation = 'the back end has given the queue up: its own errors say why';
      this.#fail(new KvmError(ERRNO.EIO, { syscall: 'virtio-blk', explanation }));
    } catch (error) {
      this.#fail(error as Error);
    }
  }

  #take(): void {
    for (let used = this.#queue.take(); used !== undefined; used = this.#queue.take()) {
      const { slot, what, resolve, reject } = used.token;
      this.#inFlight.delete(used.token);
      const status = this.#memory.readU8(this.#statuses + slot);
      this.#free(slot);
      if (status === BLOCK.OK) {
        resolve();
        continue;
      }
      const explanation = `${what} ended with status ${status}${STATUS_NAMES[status] ?? ''}; the disk has ${this.capacity} sectors`;
      reject(new KvmError(ERRNO.EIO, { syscall: 'virtio-blk', explanation }));
    }
  }

  #fail(error: Error): void {
    if (this.#failed !== undefined) return;
    this.#failed = error;
    this.#close();
    for (const { reject } of this.#inFlight) reject(error);
    this.#inFlight.clear();
    for (const resume of this.#waiting.splice(0)) resume();
  }

  #gone(): KvmError {
    return new KvmError(ERRNO.EBADF, { syscall: 'virtio-blk', explanation: 'the disk was given back' });
  }

  #close(): void {
    this.#kick.close();
    this.#call.close();
    this.#err.close();
  }
}

/** As virtio 1.2, 5.2.6 has them. */
const STATUS_NAMES: readonly (string | undefined)[] = [undefined, ' (VIRTIO_BLK_S_IOERR)', ' (VIRTIO_BLK_S_UNSUPP)'];

interface Disk {
  readonly capacity: bigint;
  readonly readOnly: boolean;
  readonly eventIdx: boolean;
}

interface QueuePlace {
  readonly area: number;
  readonly queueSize: number;
}

const pages = (bytes: number): number => Math.ceil(bytes / PAGE) * PAGE;

function checkLength(length: number): number {
  if (checkSize(length, 'length') === 0 || length % SECTOR !== 0) {
    throw outOfRange('length', `a multiple of ${SECTOR}, not 0`, length);
  }
  return length;
}
