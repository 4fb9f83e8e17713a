import { inspect } from 'node:util';
import {
  checkBoolean,
  checkBytes,
  checkFunction,
  checkInstance,
  checkInteger,
  checkObject,
  checkOptions,
  checkSignal,
  checkSize,
  checkU32,
  toU64,
} from '../../base/arguments.ts';
import { callBack } from '../../base/callback.ts';
import { hex, KvmError, outOfRange } from '../../base/errors.ts';
import { counted } from '../../base/text.ts';
import type { U64 } from '../../base/u64.ts';
import type { KvmCalls } from '../../calls/kvm-calls.ts';
import { AddressSpace } from '../../sharing/address-space.ts';
import { Descriptor } from '../../sharing/descriptor.ts';
import { EventFd, type WaitOptions } from '../../sharing/eventfd.ts';
import { UnixConnection } from '../../sharing/socket.ts';
import { ERRNO } from '../../uapi/errno.ts';
import { Channel, checkTimeout, closeAll, DEFAULT_TIMEOUT_MS } from '../channel.ts';
import { MOST_CONFIG, MOST_QUEUES } from '../device.ts';
import * as codec from '../message.ts';
import {
  BACKEND_REQUEST,
  BASELINE_REGIONS,
  bit,
  bits,
  FEATURE,
  has,
  MESSAGE_FLAG,
  PROTOCOL_FEATURE,
  REQUEST,
  VRING_LOG,
} from '../protocol.ts';
import {
  availBytes,
  checkLayout,
  checkQueueSize,
  descBytes,
  type QueueLayout,
  usedBytes,
} from '../virtqueue/layout.ts';
import { Requests } from './requests.ts';
import { type BackEndLog, SharedLog, TableLog } from './shared-log.ts';
import { SharedMemory } from './shared-memory.ts';

export interface FrontEndOptions extends WaitOptions {
  /** How long the back end may take for each answer; 10 s by default. */
  readonly timeoutMs?: number;
  /** How many queues the device has, where the back end doesn't say (it has no MQ), or counts pairs of them, as network devices do. */
  readonly queues?: number;
}

export interface QueueStart extends QueueLayout {
  /** Signalled by the driver when it made something available. */
  readonly kick: EventFd;
  /** Signalled by the back end when it gave something back. */
  readonly call: EventFd;
  /** Signalled by the back end when the queue is of no use any more. */
  readonly err?: EventFd;
  /** The index at which the queue goes on: what {@link VhostUserFrontEnd.stopQueue} gave. */
  readonly base?: number;
}

/** What a back end that goes leaves to the next: which chains it had not given back. */
export interface InflightMemory extends codec.InflightArea {
  readonly descriptor: Descriptor;
}

const PROTOCOL_FEATURES = bits(Object.values(PROTOCOL_FEATURE));
/** Features of the transport that say nothing about the device. */
const LOG_ALL = bit(FEATURE.LOG_ALL);

/** The checked rest of a {@link QueueStart}. */
interface QueueEnds extends Required<Pick<QueueStart, 'kick' | 'call' | 'base'>> {
  readonly err: EventFd | undefined;
}

/** What a queue that runs was started with. */
interface Running extends QueueLayout {
  readonly index: number;
}

/**
 * A device that another program serves: it gets the memory of an address space, and queues in it. The methods are in the order
 * in which they are used.
 *
 * @example
 * using disk = await VhostUserFrontEnd.connect(kvm.calls, '/run/disk.sock');
 * await disk.negotiate(disk.features);
 * await disk.share(vm.memory);
 * await disk.startQueue(0, { ...layOut(0x10_0000, 128), kick, call });
 */
export class VhostUserFrontEnd {
  /** What the device offers. */
  readonly features: bigint;
  /** What both ends have of the protocol. */
  readonly protocolFeatures: bigint;
  /** How many queues there may be. */
  readonly queues: number;
  /** How many regions of memory it takes. */
  readonly maxRegions: number;
  /** Resolves when the connection is over: with the reason, unless it was closed here. */
  readonly ended: Promise<Error | undefined>;
  readonly #calls: KvmCalls;
  readonly #requests: Requests;
  readonly #memory: SharedMemory;
  readonly #configListeners = new Set<() => void>();
  readonly #running = new Map<number, Running>();
  readonly #starting = new Set<number>();
  #backEndRequests: Channel | undefined;
  #negotiated = 0n;
  #space: AddressSpace | undefined;
  #log: BackEndLog | undefined;
  #beginningLog: Promise<void> | undefined;

  private constructor(calls: KvmCalls, requests: Requests, offer: Offer) {
    this.#calls = calls;
    this.#requests = requests;
    this.ended = requests.ended;
    ({
      features: this.features,
      protocolFeatures: this.protocolFeatures,
      queues: this.queues,
      maxRegions: this.maxRegions,
    } = offer);
    this.#memory = new SharedMemory(requests, {
      maxRegions: offer.maxRegions,
      oneByOne: this.#has(PROTOCOL_FEATURE.CONFIGURE_MEM_SLOTS),
      beforeAdding: (end) => this.#logUpTo(end),
    });
    void this.ended.then(() => this.#release());
  }

  /**
   * Connects to a back end, and asks what it has.
   * @param calls the addon's: an emulated kernel has no memory that others could share
   * @throws KvmError as {@link UnixConnection.connect}; EPROTO, ETIMEDOUT, ECONNRESET; EOPNOTSUPP for a device before virtio 1.0
   */
  static async connect(calls: KvmCalls, path: string, options: FrontEndOptions = {}): Promise<VhostUserFrontEnd> {
    const {
      timeoutMs = DEFAULT_TIMEOUT_MS,
      queues,
      signal,
    } = checkOptions(options, { timeoutMs: true, queues: true, signal: true });
    checkSignal(signal, 'options.signal');
    checkTimeout(timeoutMs);
    if (queues !== undefined) checkInteger(queues, 'options.queues', 1, MOST_QUEUES);
    const connection = await UnixConnection.connect(calls, path, signal === undefined ? {} : { signal });
    const requests = new Requests(new Channel(connection, timeoutMs));
    try {
      const frontEnd = new VhostUserFrontEnd(calls, requests, await askOffer(requests, queues));
      await frontEnd.#begin(timeoutMs);
      return frontEnd;
    } catch (error) {
      requests.close();
      throw error;
    }
  }

  get closed(): boolean {
    return this.#requests.closed;
  }

  /** Ends the connection, and gives back what was shared. */
  close(): void {
    this.#requests.close();
    this.#release();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /**
   * Takes features of the device; what of the transport must be is added, and what is not offered is left out.
   * @returns what was taken
   */
  async negotiate(features: U64): Promise<bigint> {
    const wanted = toU64(features, 'features');
    const must = bits([FEATURE.VERSION_1, FEATURE.PROTOCOL_FEATURES]);
    const never = bits([FEATURE.LOG_ALL, FEATURE.ACCESS_PLATFORM]);
    this.#negotiated = ((wanted & ~never) | must) & this.features;
    await this.#setFeatures();
    return this.#negotiated & ~bit(FEATURE.PROTOCOL_FEATURES);
  }

  /**
   * Shares the RAM of an address space, now and as it changes; what guests may only read, and devices' memory, is not.
   * @throws KvmError EINVAL when some has no memfd, ENOSPC when there are more regions than the back end takes; EBUSY for a second
   */
  async share(space: AddressSpace): Promise<void> {
    checkInstance(space, 'space', AddressSpace);
    this.#requests.assertOpen('share');
    if (this.#space !== undefined) {
      throw new KvmError(ERRNO.EBUSY, { syscall: 'share', explanation: 'an address space is shared already' });
    }
    space.addUser(this.#memory);
    this.#space = space;
    await this.settled();
  }

  /** Whether it is this address space that is shared. */
  isSharing(space: AddressSpace): boolean {
    return this.#space === space;
  }

  /** Resolves when the back end has all changes of the address space. @throws what ended the connection */
  async settled(): Promise<void> {
    await this.#memory.settled();
  }

  /** Hands a queue over. @throws KvmError EBUSY when it runs, EFAULT for a ring outside what is shared, EIO when the back end refuses */
  async startQueue(index: number, start: QueueStart): Promise<void> {
    const { kick, call, err, base = 0, size, desc, avail, used } = checkObject(start, 'start');
    const layout = { size, desc, avail, used };
    checkInteger(index, 'index', 0, this.queues - 1);
    checkLayout(layout);
    checkInteger(base, 'start.base', 0, 0xffff);
    checkInstance(kick, 'start.kick', EventFd);
    checkInstance(call, 'start.call', EventFd);
    if (err !== undefined) checkInstance(err, 'start.err', EventFd);
    this.#requests.assertOpen('startQueue');
    if (this.#running.has(index) || this.#starting.has(index)) {
      const explanation = `queue ${index} runs already: stopQueue(${index}) comes first`;
      throw new KvmError(ERRNO.EBUSY, { syscall: 'startQueue', explanation });
    }
    this.#starting.add(index);
    try {
      await this.#startIdle({ index, ...layout }, { kick, call, err, base });
    } finally {
      this.#starting.delete(index);
    }
  }

  async #startIdle(running: Running, { kick, call, err, base }: QueueEnds): Promise<void> {
    const { index, size } = running;
    await this.settled();
    const addresses = this.#addressesOf(running);
    const tell = (request: number, payload: Uint8Array, fds?: readonly number[]) =>
      this.#requests.tell(request, payload, fds);
    await tell(REQUEST.SET_VRING_NUM, codec.encodeVringState({ index, num: size }));
    await tell(REQUEST.SET_VRING_BASE, codec.encodeVringState({ index, num: base }));
    await tell(REQUEST.SET_VRING_ADDR, codec.encodeVringAddresses(addresses));
    const descriptor = codec.encodeVringDescriptor({ index, hasDescriptor: true });
    if (err !== undefined) await tell(REQUEST.SET_VRING_ERR, descriptor, [err.fd]);
    await tell(REQUEST.SET_VRING_CALL, descriptor, [call.fd]);
    await tell(REQUEST.SET_VRING_KICK, descriptor, [kick.fd]);
    this.#running.set(index, running);
    if (has(this.#negotiated, FEATURE.PROTOCOL_FEATURES)) {
      await tell(REQUEST.SET_VRING_ENABLE, codec.encodeVringState({ index, num: 1 }));
    }
  }

  /** Takes a queue back, when all that was in flight was given back. @returns the index at which it goes on */
  async stopQueue(index: number): Promise<number> {
    checkInteger(index, 'index', 0, this.queues - 1);
    const payload = codec.encodeVringState({ index, num: 0 });
    const reply = await this.#requests.ask(REQUEST.GET_VRING_BASE, payload);
    closeAll(reply.descriptors);
    this.#running.delete(index);
    return codec.decodeVringState(REQUEST.GET_VRING_BASE, reply.payload).num & 0xffff;
  }

  /**
   * Has the back end note what it writes, from when this resolves on: it is then in the dirty state of the address space,
   * so that `dirtyPages.collect()` of its VMs tells it. By default in a log of its own; with `table` in that of the shared address
   * space ({@link AddressSpace.share}), for a back end that is trusted with the whole table.
   * @throws KvmError EOPNOTSUPP when the back end can't; EINVAL when nothing is shared; EBADF with `table` for a space that isn't shared itself
   */
  async startLog(options: { readonly table?: boolean } = {}): Promise<void> {
    const table = checkBoolean(checkOptions(options, { table: true }).table ?? false, 'options.table');
    this.#requests.assertOpen('startLog');
    if (this.#log !== undefined && this.#beginningLog === undefined) return;
    if (this.#space === undefined)
      throw new KvmError(ERRNO.EINVAL, { syscall: 'startLog', explanation: 'nothing is shared' });
    if (!has(this.features, FEATURE.LOG_ALL) || !this.#has(PROTOCOL_FEATURE.LOG_SHMFD)) {
      const explanation = 'the back end offers no log (VHOST_F_LOG_ALL and LOG_SHMFD)';
      throw new KvmError(ERRNO.EOPNOTSUPP, { syscall: 'startLog', explanation });
    }
    const space = this.#space;
    this.#beginningLog ??= this.#beginLog(space, table).finally(() => {
      this.#beginningLog = undefined;
    });
    await this.#beginningLog;
  }

  async #beginLog(space: AddressSpace, table: boolean): Promise<void> {
    await this.settled();
    // It may have ended meanwhile.
    this.#requests.assertOpen('startLog');
    const log = table ? new TableLog(space) : new SharedLog(this.#calls, space);
    this.#log = log;
    try {
      await this.#logUpTo(this.#memory.end);
    } catch (error) {
      // There may be no room for one, and the back end knows of none.
      this.#log = undefined;
      log.close();
      throw error;
    }
    await this.#setFeatures();
    await this.#setAddresses();
  }

  /** Ends that. What was noted until then is in the dirty state. */
  async stopLog(): Promise<void> {
    const log = this.#log;
    if (log === undefined) return;
    this.#log = undefined;
    try {
      await this.#setAddresses();
      await this.#setFeatures();
    } finally {
      log.close();
    }
  }

  /** Reads the device's configuration space. @throws KvmError EOPNOTSUPP, EIO when the back end refuses */
  async readConfig(offset: number, size: number): Promise<Uint8Array> {
    checkU32(offset, 'offset');
    checkInteger(size, 'size', 0, MOST_CONFIG);
    this.#require(PROTOCOL_FEATURE.CONFIG, 'GET_CONFIG');
    const part = { offset, size, flags: 0, bytes: new Uint8Array(size) };
    const reply = await this.#requests.ask(REQUEST.GET_CONFIG, codec.encodeConfig(part));
    closeAll(reply.descriptors);
    const { bytes } = codec.decodeConfig(REQUEST.GET_CONFIG, reply.payload);
    if (bytes.length === size) return bytes;
    const explanation = `${bytes.length} of ${size} bytes at ${offset}`;
    throw new KvmError(ERRNO.EIO, { syscall: 'vhost-user GET_CONFIG', explanation });
  }

  /** Writes it. Errors as for {@link readConfig}. */
  async writeConfig(offset: number, bytes: Uint8Array): Promise<void> {
    checkU32(offset, 'offset');
    if (checkBytes(bytes, 'bytes').length > MOST_CONFIG)
      throw outOfRange('bytes.length', `at most ${MOST_CONFIG}`, bytes.length);
    this.#require(PROTOCOL_FEATURE.CONFIG, 'SET_CONFIG');
    const payload = codec.encodeConfig({ offset, size: bytes.length, flags: 0, bytes });
    await this.#requests.tell(REQUEST.SET_CONFIG, payload);
  }

  /** Calls back whenever the back end says that the configuration space has changed. @returns what ends it */
  onConfigChange(listener: () => void): () => void {
    this.#configListeners.add(checkFunction(listener, 'listener'));
    return () => this.#configListeners.delete(listener);
  }

  /** Tells the device's status, bits of STATUS, where the protocol has that. */
  async setStatus(status: number): Promise<void> {
    checkInteger(status, 'status', 0, 0xff);
    if (this.#has(PROTOCOL_FEATURE.STATUS)) await this.#requests.tellU64(REQUEST.SET_STATUS, BigInt(status));
  }

  /** Has the device begin anew; its queues are stopped. @throws KvmError EOPNOTSUPP */
  async reset(): Promise<void> {
    this.#require(PROTOCOL_FEATURE.RESET_DEVICE, 'RESET_DEVICE');
    await this.#requests.tell(REQUEST.RESET_DEVICE);
    this.#running.clear();
  }

  /**
   * Memory in which the back end notes what is in flight, before queues are started: to be given to the next one, should this
   * one go. The descriptor is the caller's. @throws KvmError EOPNOTSUPP
   */
  async getInflight(queues: number, queueSize: number): Promise<InflightMemory> {
    checkInteger(queues, 'queues', 1, MOST_QUEUES);
    checkQueueSize(queueSize, 'queueSize');
    this.#require(PROTOCOL_FEATURE.INFLIGHT_SHMFD, 'GET_INFLIGHT_FD');
    const payload = codec.encodeInflight({ size: 0, offset: 0, queues, queueSize });
    const reply = await this.#requests.ask(REQUEST.GET_INFLIGHT_FD, payload);
    const [descriptor, ...others] = reply.descriptors;
    closeAll(others);
    if (descriptor === undefined) {
      throw codec.protocolError(REQUEST.GET_INFLIGHT_FD, 'the answer has no descriptor');
    }
    return { ...codec.decodeInflight(REQUEST.GET_INFLIGHT_FD, reply.payload), descriptor };
  }

  /** Gives a back end the memory of the one before it, or its own; before queues are started. */
  async setInflight(inflight: InflightMemory): Promise<void> {
    const { descriptor, size, offset, queues, queueSize } = checkObject(inflight, 'inflight');
    checkInstance(descriptor, 'inflight.descriptor', Descriptor);
    checkSize(size, 'inflight.size');
    checkSize(offset, 'inflight.offset');
    checkInteger(queues, 'inflight.queues', 1, MOST_QUEUES);
    checkQueueSize(queueSize, 'inflight.queueSize');
    this.#require(PROTOCOL_FEATURE.INFLIGHT_SHMFD, 'SET_INFLIGHT_FD');
    await this.#requests.tell(REQUEST.SET_INFLIGHT_FD, codec.encodeInflight({ size, offset, queues, queueSize }), [
      descriptor.fd,
    ]);
  }

  [inspect.custom](): string {
    if (this.closed) return 'VhostUserFrontEnd (closed)';
    return `VhostUserFrontEnd, features ${hex(this.features)}, protocol ${hex(this.protocolFeatures)}, ${this.#running.size} of ${counted(this.queues, 'queue')} running, ${counted(this.#memory.regions.size, 'region')}${this.#log === undefined ? '' : ', logging'}`;
  }

  async #begin(timeoutMs: number): Promise<void> {
    this.#requests.confirms = this.#has(PROTOCOL_FEATURE.REPLY_ACK);
    await this.#requests.tell(REQUEST.SET_OWNER);
    if (!this.#has(PROTOCOL_FEATURE.BACKEND_REQ)) return;
    const [ours, theirs] = UnixConnection.pair(this.#calls);
    this.#backEndRequests = new Channel(ours, timeoutMs);
    try {
      await this.#requests.tell(REQUEST.SET_BACKEND_REQ_FD, codec.NO_PAYLOAD, [theirs.fd]);
    } finally {
      theirs.close();
    }
    void this.#listen(this.#backEndRequests);
  }

  /** What the back end asks of us, of which only the change of its configuration means something. */
  async #listen(channel: Channel): Promise<void> {
    try {
      for (;;) {
        const message = await channel.receive();
        if (message === undefined) return;
        closeAll(message.descriptors);
        const isKnown = message.request === BACKEND_REQUEST.CONFIG_CHANGE_MSG;
        if (isKnown) for (const listener of this.#configListeners) callBack(listener);
        if (!message.needsReply) continue;
        await channel.send(message.request, MESSAGE_FLAG.REPLY, codec.encodeU64(isKnown ? 0n : 1n));
      }
    } catch (error) {
      if (!channel.closed) this.#requests.fail(error as Error);
    }
  }

  async #setFeatures(): Promise<void> {
    await this.#requests.tellU64(REQUEST.SET_FEATURES, this.#negotiated | (this.#log === undefined ? 0n : LOG_ALL));
  }

  async #setAddresses(): Promise<void> {
    for (const queue of this.#running.values()) {
      await this.#requests.tell(REQUEST.SET_VRING_ADDR, codec.encodeVringAddresses(this.#addressesOf(queue)));
    }
  }

  #addressesOf({ index, size, desc, avail, used }: Running): codec.VringAddresses {
    return {
      index,
      flags: this.#log === undefined ? 0 : VRING_LOG,
      desc: this.#memory.userAddress(desc, descBytes(size), 'the descriptor table'),
      avail: this.#memory.userAddress(avail, availBytes(size), 'the available ring'),
      used: this.#memory.userAddress(used, usedBytes(size), 'the used ring'),
      log: used,
    };
  }

  /** Gives the back end a log that reaches as far as its memory. */
  async #logUpTo(end: number): Promise<void> {
    const log = this.#log;
    if (log === undefined || end <= log.end) return;
    const { fd, area, settle } = log.grow(end);
    try {
      const reply = await this.#requests.ask(REQUEST.SET_LOG_BASE, codec.encodeLogArea(area), [fd]);
      closeAll(reply.descriptors);
    } finally {
      settle();
    }
  }

  #has(feature: number): boolean {
    return has(this.protocolFeatures, feature);
  }

  #require(feature: number, request: string): void {
    if (this.#has(feature)) return;
    const explanation = 'the back end does not have that part of the protocol';
    throw new KvmError(ERRNO.EOPNOTSUPP, { syscall: `vhost-user ${request}`, explanation });
  }

  #release(): void {
    this.#backEndRequests?.close();
    this.#log?.close();
    this.#log = undefined;
    this.#running.clear();
    this.#space?.removeUser(this.#memory);
    this.#space = undefined;
  }
}

type Offer = Pick<VhostUserFrontEnd, 'features' | 'protocolFeatures' | 'queues' | 'maxRegions'>;

async function askOffer(requests: Requests, wanted: number | undefined): Promise<Offer> {
  const features = await requests.askU64(REQUEST.GET_FEATURES);
  if (!has(features, FEATURE.VERSION_1)) {
    const explanation = `the device offers ${hex(features)}, and is older than virtio 1.0`;
    throw new KvmError(ERRNO.EOPNOTSUPP, { syscall: 'vhost-user GET_FEATURES', explanation });
  }
  if (!has(features, FEATURE.PROTOCOL_FEATURES)) {
    return { features, protocolFeatures: 0n, queues: wanted ?? 1, maxRegions: BASELINE_REGIONS };
  }
  const protocolFeatures = (await requests.askU64(REQUEST.GET_PROTOCOL_FEATURES)) & PROTOCOL_FEATURES;
  await requests.tellU64(REQUEST.SET_PROTOCOL_FEATURES, protocolFeatures);
  const queues = has(protocolFeatures, PROTOCOL_FEATURE.MQ) ? await requests.askU64(REQUEST.GET_QUEUE_NUM) : 1n;
  const slots = has(protocolFeatures, PROTOCOL_FEATURE.CONFIGURE_MEM_SLOTS)
    ? await requests.askU64(REQUEST.GET_MAX_MEM_SLOTS)
    : BigInt(BASELINE_REGIONS);
  return { features, protocolFeatures, queues: wanted ?? atMost(queues, MOST_QUEUES), maxRegions: atMost(slots, 4096) };
}

const atMost = (value: bigint, most: number): number => Number(value < BigInt(most) ? value : BigInt(most));
