import {
  checkBigU64,
  checkBytes,
  checkCallback,
  checkInstance,
  checkInteger,
  checkMethods,
  checkSize,
  checkU32,
  type NamesOf,
  takeOptions,
} from '../../base/arguments.ts';
import type { KvmCalls } from '../../calls/kvm-calls.ts';
import { checkCalls } from '../../calls/wrapped.ts';
import type { VmIo } from '../../handles/vm-io.ts';
import type { MmioRegion } from '../../memory/mmio-bus.ts';
import { AddressSpace } from '../../sharing/address-space.ts';
import { EventFd } from '../../sharing/eventfd.ts';
import { DEFAULT_QUEUE_SIZE, MOST_CONFIG } from '../device.ts';
import { bits, FEATURE, has, STATUS } from '../protocol.ts';
import { checkQueueSize } from '../virtqueue/layout.ts';
import { VhostUserFrontEnd } from './front-end.ts';

export interface VirtioMmioOptions {
  /** The guest's memory, which is shared with the back end. */
  readonly memory: AddressSpace;
  /** Where the registers are; they take {@link VirtioMmio.SIZE} bytes. */
  readonly gpa: number;
  /** What kind of device it is: 1 network, 2 disk, 26 file system. */
  readonly deviceId: number;
  /** Bytes of the back end's configuration space; 0 by default. */
  readonly configSize?: number;
  /**
   * The configuration space, where the back end has none: a network card's address, a file system's tag and number of
   * request queues.
   */
  readonly config?: Uint8Array;
  /** Features beyond the back end's that the driver is offered: those of which only `config` knows, as NETWORK.MAC. */
  readonly features?: bigint;
  /** The most descriptors of a queue, a power of two; 1024 by default. */
  readonly maxQueueSize?: number;
  /** The device's interrupt line goes up or down. */
  readonly interrupt?: (level: boolean) => void;
  /** The I/O of a VM on the real kernel: then doorbells don't leave the guest, and with `gsi` interrupts don't come by here. */
  readonly io?: VmIo;
  /** Interrupt that the back end injects itself. The device says "a buffer was used" then, whenever the guest asks. */
  readonly gsi?: number;
}

const OPTIONS: NamesOf<VirtioMmioOptions> = {
  memory: true,
  gpa: true,
  deviceId: true,
  configSize: true,
  config: true,
  features: true,
  maxQueueSize: true,
  interrupt: true,
  io: true,
  gsi: true,
};

const REGISTER = {
  MAGIC: 0x000,
  VERSION: 0x004,
  DEVICE_ID: 0x008,
  VENDOR_ID: 0x00c,
  DEVICE_FEATURES: 0x010,
  DEVICE_FEATURES_SEL: 0x014,
  DRIVER_FEATURES: 0x020,
  DRIVER_FEATURES_SEL: 0x024,
  QUEUE_SEL: 0x030,
  QUEUE_NUM_MAX: 0x034,
  QUEUE_NUM: 0x038,
  QUEUE_READY: 0x044,
  QUEUE_NOTIFY: 0x050,
  INTERRUPT_STATUS: 0x060,
  INTERRUPT_ACK: 0x064,
  STATUS: 0x070,
  QUEUE_DESC: 0x080,
  QUEUE_AVAIL: 0x090,
  QUEUE_USED: 0x0a0,
  CONFIG_GENERATION: 0x0fc,
  CONFIG: 0x100,
} as const;

const MAGIC = 0x7472_6976;
const VENDOR = 0x4d42_564b;
const INTERRUPT = { USED: 1, CONFIG: 2 } as const;
/** What lies between the two ends, and is none of the driver's business. */
const NOT_THE_DRIVERS = bits([FEATURE.LOG_ALL, FEATURE.PROTOCOL_FEATURES, FEATURE.ACCESS_PLATFORM]);

/** A queue as the driver has set it up. */
class MmioQueue {
  size = 0;
  isReady = false;
  isRunning = false;
  /** Low and high halves of the three addresses. */
  readonly halves = new Uint32Array(6);
  readonly kick: EventFd;

  constructor(calls: KvmCalls) {
    this.kick = new EventFd(calls);
  }

  /** @param part 0 the descriptor table, 1 the available ring, 2 the used ring */
  address(part: number): number {
    return this.halves[2 * part + 1]! * 2 ** 32 + this.halves[2 * part]!;
  }

  clear(): void {
    this.size = 0;
    this.isReady = false;
    this.halves.fill(0);
  }
}

/**
 * A device that a back end serves, as a guest finds it on the MMIO bus (virtio over MMIO, version 2). What the guest sets up is
 * told to the back end when it says DRIVER_OK; until a reset or the end of a queue is done, it reads the old state. When the back end gives a queue up, or
 * ends, the driver reads DEVICE_NEEDS_RESET, and a configuration interrupt tells it to look; after a reset a back end that is still there serves again.
 */
export class VirtioMmio {
  /** Bytes of the registers. */
  static readonly SIZE = 0x200;
  readonly #frontEnd: VhostUserFrontEnd;
  readonly #options: VirtioMmioOptions;
  #region: MmioRegion | undefined;
  readonly #queues: readonly MmioQueue[];
  readonly #call: EventFd;
  /** The back end has given a queue up. */
  readonly #err: EventFd;
  readonly #registrations: Disposable[] = [];
  readonly #config: Uint8Array;
  #configGeneration = 0;
  #deviceFeaturesSel = 0;
  #driverFeaturesSel = 0;
  #driverFeatures = 0n;
  #queueSel = 0;
  #status = 0;
  #interrupts = 0;
  /** What the back end is told, one after the other. */
  #work: Promise<void> = Promise.resolve();

  private constructor(calls: KvmCalls, frontEnd: VhostUserFrontEnd, options: VirtioMmioOptions, config: Uint8Array) {
    this.#frontEnd = frontEnd;
    this.#options = options;
    this.#config = config;
    this.#queues = Array.from({ length: frontEnd.queues }, () => new MmioQueue(calls));
    this.#call = new EventFd(calls);
    this.#err = new EventFd(calls);
  }

  /** Puts it on the bus. */
  #plug(): void {
    const { gpa, memory, io, gsi, deviceId } = this.#options;
    const handlers = {
      littleEndian: true,
      read: (offset: number, size: number) => this.#read(offset, size),
      write: (offset: number, value: number | bigint, size: number) => this.#write(offset, value, size),
    };
    this.#region = memory.addMmio(gpa, VirtioMmio.SIZE, handlers, { name: `virtio device ${deviceId}` });
    if (io !== undefined) {
      for (const [index, { kick }] of this.#queues.entries()) {
        const addr = gpa + REGISTER.QUEUE_NOTIFY;
        this.#registrations.push(io.ioeventfd({ addr, len: 4, eventfd: kick, datamatch: index }));
      }
      if (gsi !== undefined) this.#registrations.push(io.irqfd({ eventfd: this.#call, gsi }));
    }
    if (!this.#injectsItself)
      void this.#listen(this.#call, () => this.#setInterrupts(this.#interrupts | INTERRUPT.USED));
    void this.#listen(this.#err, () => this.#fail());
  }

  /**
   * Shares the memory with the back end, and puts the device's registers on the bus.
   * @throws KvmError as {@link VhostUserFrontEnd.share} and `readConfig`; EEXIST where there is something already
   */
  static async attach(calls: KvmCalls, frontEnd: VhostUserFrontEnd, given: VirtioMmioOptions): Promise<VirtioMmio> {
    checkCalls(calls);
    checkInstance(frontEnd, 'frontEnd', VhostUserFrontEnd);
    const options = takeOptions(given, OPTIONS);
    checkMmioOptions(options);
    const size = options.configSize ?? 0;
    const config = Uint8Array.from(options.config ?? (size === 0 ? [] : await frontEnd.readConfig(0, size)));
    if (!frontEnd.isSharing(options.memory)) await frontEnd.share(options.memory);
    const device = new VirtioMmio(calls, frontEnd, options, config);
    try {
      device.#plug();
    } catch (error) {
      device.close();
      throw error;
    }
    device.#registrations.push({ [Symbol.dispose]: frontEnd.onConfigChange(() => device.#configChanged()) });
    void frontEnd.ended.then(() => device.#fail());
    return device;
  }

  /** The device status, as the driver reads it. */
  get status(): number {
    return this.#status;
  }

  /** Resolves when the back end has been told everything so far. */
  async settled(): Promise<void> {
    await this.#work;
  }

  /** Takes the device off the bus. The front end stays as it is. */
  close(): void {
    for (const registration of this.#registrations.splice(0)) registration[Symbol.dispose]();
    this.#region?.remove();
    this.#call.close();
    this.#err.close();
    for (const { kick } of this.#queues) kick.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  get #injectsItself(): boolean {
    return this.#options.io !== undefined && this.#options.gsi !== undefined;
  }

  get #offered(): bigint {
    return (this.#frontEnd.features | (this.#options.features ?? 0n)) & ~NOT_THE_DRIVERS;
  }

  get #queue(): MmioQueue | undefined {
    return this.#queues[this.#queueSel];
  }

  #read(offset: number, size: number): number | bigint {
    if (offset >= REGISTER.CONFIG) return this.#readConfig(offset - REGISTER.CONFIG, size);
    if (size !== 4) return 0;
    switch (offset) {
      case REGISTER.MAGIC:
        return MAGIC;
      case REGISTER.VERSION:
        return 2;
      case REGISTER.DEVICE_ID:
        return this.#options.deviceId;
      case REGISTER.VENDOR_ID:
        return VENDOR;
      case REGISTER.DEVICE_FEATURES:
        return this.#deviceFeaturesSel > 1 ? 0 : half(this.#offered, this.#deviceFeaturesSel);
      case REGISTER.QUEUE_NUM_MAX:
        return this.#queue === undefined ? 0 : (this.#options.maxQueueSize ?? DEFAULT_QUEUE_SIZE);
      case REGISTER.QUEUE_READY:
        return this.#queue?.isReady === true ? 1 : 0;
      case REGISTER.INTERRUPT_STATUS:
        return this.#interrupts | (this.#injectsItself ? INTERRUPT.USED : 0);
      case REGISTER.STATUS:
        return this.#status;
      case REGISTER.CONFIG_GENERATION:
        return this.#configGeneration;
      default:
        return 0;
    }
  }

  #readConfig(offset: number, size: number): number | bigint {
    const bytes = this.#config.subarray(offset, offset + size);
    return bytes.reduceRight<bigint>((value, byte) => (value << 8n) | BigInt(byte), 0n);
  }

  #write(offset: number, wide: number | bigint, size: number): void {
    if (offset >= REGISTER.CONFIG) {
      this.#writeConfig(offset - REGISTER.CONFIG, BigInt(wide), size);
      return;
    }
    if (size !== 4) return;
    const value = Number(wide);
    switch (offset) {
      case REGISTER.DEVICE_FEATURES_SEL:
        this.#deviceFeaturesSel = value;
        break;
      case REGISTER.DRIVER_FEATURES_SEL:
        this.#driverFeaturesSel = value;
        break;
      case REGISTER.DRIVER_FEATURES:
        this.#setDriverFeatures(value);
        break;
      case REGISTER.QUEUE_SEL:
        this.#queueSel = value;
        break;
      case REGISTER.QUEUE_NOTIFY:
        this.#queues[value]?.kick.signal();
        break;
      case REGISTER.INTERRUPT_ACK:
        this.#setInterrupts(this.#interrupts & ~value);
        break;
      case REGISTER.STATUS:
        this.#setStatus(value);
        break;
      default:
        this.#setUpQueue(offset, value);
    }
  }

  #setDriverFeatures(value: number): void {
    if ((this.#status & STATUS.FEATURES_OK) !== 0 || this.#driverFeaturesSel > 1) return;
    const shift = 32n * BigInt(this.#driverFeaturesSel);
    this.#driverFeatures = (this.#driverFeatures & ~(0xffff_ffffn << shift)) | (BigInt(value) << shift);
  }

  #setUpQueue(offset: number, value: number): void {
    const queue = this.#queue;
    if (queue === undefined) return;
    if (offset === REGISTER.QUEUE_READY) {
      if (value === 1) this.#makeReady(this.#queueSel, queue);
      else this.#endQueue(this.#queueSel, queue);
      return;
    }
    if (queue.isReady) return;
    if (offset === REGISTER.QUEUE_NUM) queue.size = value;
    const half = [REGISTER.QUEUE_DESC, REGISTER.QUEUE_AVAIL, REGISTER.QUEUE_USED]
      .flatMap((at) => [at, at + 4])
      .indexOf(offset);
    if (half >= 0) queue.halves[half] = value;
  }

  #makeReady(index: number, queue: MmioQueue): void {
    queue.isReady = true;
    if ((this.#status & STATUS.DRIVER_OK) !== 0) this.#tell(() => this.#start(index, queue));
  }

  #endQueue(index: number, queue: MmioQueue): void {
    this.#tell(() => this.#stop(index, queue));
  }

  #setStatus(value: number): void {
    if (value === 0) {
      this.#tell(() => this.#reset());
      return;
    }
    let next = value | (this.#status & STATUS.NEEDS_RESET);
    if ((next & STATUS.FEATURES_OK) !== 0 && !this.#featuresAreFine()) next &= ~STATUS.FEATURES_OK;
    const starts = (next & ~this.#status & STATUS.DRIVER_OK) !== 0;
    this.#status = next;
    if (starts) this.#tell(() => this.#begin());
  }

  #featuresAreFine(): boolean {
    return has(this.#driverFeatures, FEATURE.VERSION_1) && (this.#driverFeatures & ~this.#offered) === 0n;
  }

  async #begin(): Promise<void> {
    await this.#frontEnd.negotiate(this.#driverFeatures);
    for (const [index, queue] of this.#queues.entries()) if (queue.isReady) await this.#start(index, queue);
    await this.#frontEnd.setStatus(this.#status);
  }

  async #start(index: number, queue: MmioQueue): Promise<void> {
    if (queue.isRunning) return;
    const layout = { size: queue.size, desc: queue.address(0), avail: queue.address(1), used: queue.address(2) };
    await this.#frontEnd.startQueue(index, { ...layout, kick: queue.kick, call: this.#call, err: this.#err });
    queue.isRunning = true;
  }

  async #stop(index: number, queue: MmioQueue): Promise<void> {
    if (queue.isRunning) await this.#frontEnd.stopQueue(index);
    queue.isRunning = false;
    queue.isReady = false;
  }

  async #reset(): Promise<void> {
    for (const [index, queue] of this.#queues.entries()) {
      if (!this.#frontEnd.closed) await this.#stop(index, queue);
      queue.clear();
    }
    this.#driverFeatures = 0n;
    this.#queueSel = 0;
    this.#setInterrupts(0);
    // A device whose back end is gone doesn't come back.
    this.#status = this.#frontEnd.closed ? STATUS.NEEDS_RESET : 0;
  }

  #writeConfig(offset: number, value: bigint, size: number): void {
    if (offset + size > this.#config.length) return;
    const bytes = Uint8Array.from({ length: size }, (_, i) => Number((value >> BigInt(8 * i)) & 0xffn));
    // Nothing in that of network cards and file systems is for the driver to write.
    if (this.#options.config !== undefined) return;
    this.#config.set(bytes, offset);
    this.#tell(() => this.#frontEnd.writeConfig(offset, bytes));
  }

  #configChanged(): void {
    if (this.#config.length === 0 || this.#options.config !== undefined) return;
    this.#tell(async () => {
      this.#config.set(await this.#frontEnd.readConfig(0, this.#config.length));
      this.#configGeneration = (this.#configGeneration + 1) >>> 0;
      this.#interruptForConfig();
    });
  }

  /** Does what takes its time. What goes wrong, the driver reads as NEEDS_RESET. */
  #tell(work: () => Promise<void>): void {
    this.#work = this.#work.then(work).catch(() => this.#fail());
  }

  #fail(): void {
    if (this.#call.closed) return;
    this.#status |= STATUS.NEEDS_RESET;
    this.#interruptForConfig();
  }

  #interruptForConfig(): void {
    this.#setInterrupts(this.#interrupts | INTERRUPT.CONFIG);
    // The line is the kernel's then, and this is what raises it.
    if (this.#injectsItself) this.#call.signal();
  }

  async #listen(eventfd: EventFd, heard: () => void): Promise<void> {
    for await (const _ of eventfd) heard();
  }

  #setInterrupts(interrupts: number): void {
    const before = this.#interrupts !== 0;
    this.#interrupts = interrupts;
    if (before !== (interrupts !== 0)) this.#options.interrupt?.(interrupts !== 0);
  }
}

/** Checks what the registers are made of. */
function checkMmioOptions(options: VirtioMmioOptions): void {
  const { memory, gpa, deviceId, configSize, config, features, maxQueueSize, interrupt, io, gsi } = options;
  checkInstance(memory, 'options.memory', AddressSpace);
  checkSize(gpa, 'options.gpa');
  checkU32(deviceId, 'options.deviceId');
  if (configSize !== undefined) checkInteger(configSize, 'options.configSize', 0, MOST_CONFIG);
  if (config !== undefined) checkBytes(config, 'options.config');
  if (features !== undefined) checkBigU64(features, 'options.features');
  if (maxQueueSize !== undefined) checkQueueSize(maxQueueSize, 'options.maxQueueSize');
  checkCallback(interrupt, 'options.interrupt');
  if (io !== undefined) checkMethods(io, 'options.io', ['ioeventfd', 'irqfd']);
  if (gsi !== undefined) checkU32(gsi, 'options.gsi');
}

const half = (features: bigint, which: number): number => Number((features >> (32n * BigInt(which))) & 0xffff_ffffn);
