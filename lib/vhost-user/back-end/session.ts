import { isPowerOfTwo } from '../../base/arguments.ts';
import { KvmError } from '../../base/errors.ts';
import { counted } from '../../base/text.ts';
import type { KvmCalls } from '../../calls/kvm-calls.ts';
import { EventFd } from '../../sharing/eventfd.ts';
import { UnixConnection } from '../../sharing/socket.ts';
import { isLittleEndianHost } from '../../uapi/arch.ts';
import { ERRNO } from '../../uapi/errno.ts';
import { Channel, closeAll, type Message } from '../channel.ts';
import { DEFAULT_QUEUE_SIZE, type VirtioDevice } from '../device.ts';
import { PageLog } from '../log.ts';
import { MAX_REGIONS, MemoryTable } from '../memory-table.ts';
import * as codec from '../message.ts';
import { BACKEND_REQUEST, bits, FEATURE, has, MESSAGE_FLAG, PROTOCOL_FEATURE, REQUEST } from '../protocol.ts';
import { Inflight } from './inflight.ts';
import { type QueueOwner, ServedQueue } from './served-queue.ts';

const TRANSPORT_FEATURES = bits(Object.values(FEATURE).filter((number) => number !== FEATURE.ACCESS_PLATFORM));
const PROTOCOL_FEATURES = bits(Object.values(PROTOCOL_FEATURE));

type Answer = Uint8Array | undefined;
type Handler = (message: Message) => Answer | Promise<Answer>;

/** One front end that is served, from its first message to its last. */
export class Session implements QueueOwner {
  readonly device: VirtioDevice;
  readonly table: MemoryTable;
  readonly #calls: KvmCalls;
  readonly #channel: Channel;
  readonly #onError: (error: Error) => void;
  readonly #queues: readonly ServedQueue[];
  #features = 0n;
  #protocolFeatures = 0n;
  #status = 0;
  #log: PageLog | undefined;
  #logEvents: EventFd | undefined;
  #inflight: Inflight | undefined;
  #requests: Channel | undefined;

  constructor(
    calls: KvmCalls,
    device: VirtioDevice,
    connection: UnixConnection,
    timeoutMs: number,
    onError: (error: Error) => void,
  ) {
    this.#calls = calls;
    this.device = device;
    this.#channel = new Channel(connection, timeoutMs);
    this.#onError = onError;
    this.table = new MemoryTable(calls, isLittleEndianHost(calls.arch));
    this.#queues = Array.from({ length: device.queues }, (_, index) => new ServedQueue(this, index));
  }

  get queueOptions() {
    return {
      eventIdx: has(this.#features, FEATURE.RING_EVENT_IDX),
      indirect: has(this.#features, FEATURE.RING_INDIRECT_DESC),
    };
  }

  queueFailed(_index: number, error: Error): void {
    this.#onError(error);
  }

  /** Answers requests until the front end closes. */
  async run(): Promise<void> {
    try {
      for (;;) {
        const message = await this.#channel.receive();
        if (message === undefined) return;
        try {
          await this.#answer(message);
        } finally {
          // Those that nobody took.
          closeAll(message.descriptors);
        }
      }
    } catch (error) {
      if (!this.#channel.closed || (error as KvmError).code === 'ETIMEDOUT') throw error;
    } finally {
      this.#release();
    }
  }

  close(): void {
    this.#channel.close();
  }

  async configChanged(): Promise<void> {
    await this.#requests?.send(BACKEND_REQUEST.CONFIG_CHANGE_MSG, 0, codec.NO_PAYLOAD);
  }

  async #answer(message: Message): Promise<void> {
    const { request } = message;
    const wantsAck = message.needsReply && has(this.#protocolFeatures, PROTOCOL_FEATURE.REPLY_ACK);
    let answer: Answer;
    try {
      answer = await this.#handle(message);
    } catch (error) {
      if (!wantsAck || !(error instanceof KvmError)) throw error;
      this.#onError(error);
      answer = codec.encodeU64(BigInt(-error.errno));
    }
    if (answer === undefined && wantsAck) answer = codec.encodeU64(0n);
    if (answer !== undefined) await this.#reply(request, answer);
  }

  async #reply(request: number, answer: Uint8Array): Promise<void> {
    try {
      await this.#channel.send(request, MESSAGE_FLAG.REPLY, answer);
    } catch (error) {
      // A front end that has closed doesn't wait for it; that it has comes next.
      if ((error as KvmError).code !== 'EPIPE') throw error;
    }
  }

  #handle(message: Message): Answer | Promise<Answer> {
    if (message.isReply) throw codec.protocolError(message.request, 'a reply to nothing');
    const handler = this.#handlers.get(message.request);
    if (handler === undefined) throw codec.protocolError(message.request, 'there is no such request');
    return handler(message);
  }

  readonly #handlers: ReadonlyMap<number, Handler> = new Map<number, Handler>([
    [REQUEST.GET_FEATURES, () => codec.encodeU64((this.device.features ?? 0n) | TRANSPORT_FEATURES)],
    [REQUEST.SET_FEATURES, (message) => this.#setFeatures(message)],
    [REQUEST.GET_PROTOCOL_FEATURES, () => codec.encodeU64(this.#offeredProtocolFeatures)],
    [REQUEST.SET_PROTOCOL_FEATURES, (message) => this.#setProtocolFeatures(message)],
    [REQUEST.SET_OWNER, () => undefined],
    [REQUEST.RESET_OWNER, () => this.#reset()],
    [REQUEST.RESET_DEVICE, () => this.#reset()],
    [REQUEST.GET_QUEUE_NUM, () => codec.encodeU64(BigInt(this.#queues.length))],
    [REQUEST.GET_MAX_MEM_SLOTS, () => codec.encodeU64(BigInt(MAX_REGIONS))],
    [REQUEST.SET_MEM_TABLE, (message) => this.#setTable(message)],
    [REQUEST.ADD_MEM_REG, (message) => this.#addRegion(message)],
    [REQUEST.REM_MEM_REG, (message) => this.#removeRegion(message)],
    [REQUEST.SET_LOG_BASE, (message) => this.#setLog(message)],
    [REQUEST.SET_LOG_FD, (message) => this.#setLogEvents(message)],
    [REQUEST.SET_VRING_NUM, (message) => this.#setSize(message)],
    [REQUEST.SET_VRING_ADDR, (message) => this.#setAddresses(message)],
    [REQUEST.SET_VRING_BASE, (message) => this.#setBase(message)],
    [REQUEST.GET_VRING_BASE, (message) => this.#stopQueue(message)],
    [REQUEST.SET_VRING_KICK, (message) => this.#setKick(message)],
    [REQUEST.SET_VRING_CALL, (message) => this.#setCall(message)],
    [REQUEST.SET_VRING_ERR, (message) => this.#setErr(message)],
    [REQUEST.SET_VRING_ENABLE, (message) => this.#setEnabled(message)],
    [REQUEST.GET_CONFIG, (message) => this.#getConfig(message)],
    [REQUEST.SET_CONFIG, (message) => this.#setConfig(message)],
    [REQUEST.SET_BACKEND_REQ_FD, (message) => this.#setRequests(message)],
    [REQUEST.GET_INFLIGHT_FD, (message) => this.#getInflight(message)],
    [REQUEST.SET_INFLIGHT_FD, (message) => this.#setInflight(message)],
    [REQUEST.GET_STATUS, () => codec.encodeU64(BigInt(this.#status))],
    [REQUEST.SET_STATUS, (message) => this.#setStatus(message)],
  ]);

  get #offeredProtocolFeatures(): bigint {
    return this.device.config === undefined ? PROTOCOL_FEATURES & ~bits([PROTOCOL_FEATURE.CONFIG]) : PROTOCOL_FEATURES;
  }

  #setFeatures({ request, payload }: Message): undefined {
    const features = codec.decodeU64(request, payload);
    requireOffered(request, features, (this.device.features ?? 0n) | TRANSPORT_FEATURES);
    this.#features = features;
    this.#updateLog();
    // Without protocol features there is no request for it.
    if (!has(features, FEATURE.PROTOCOL_FEATURES)) for (const queue of this.#queues) queue.enabled = true;
  }

  #setProtocolFeatures({ request, payload }: Message): undefined {
    const features = codec.decodeU64(request, payload);
    requireOffered(request, features, this.#offeredProtocolFeatures);
    this.#protocolFeatures = features;
  }

  async #reset(): Promise<undefined> {
    await this.#stop();
    for (const queue of this.#queues) queue.close();
  }

  async #stop(): Promise<void> {
    for (const queue of this.#queues) await queue.stop();
    this.#status = 0;
    this.device.reset?.();
  }

  #setTable({ request, payload, descriptors }: Message): undefined {
    const entries = codec.decodeMemoryTable(request, payload);
    if (descriptors.length !== entries.length) {
      throw codec.protocolError(
        request,
        `${counted(entries.length, 'region')}, and ${counted(descriptors.length, 'descriptor')}`,
      );
    }
    this.table.clear();
    try {
      for (const [i, entry] of entries.entries()) this.table.add(entry, descriptors[i]!);
    } catch (error) {
      // Half a table is none.
      this.table.clear();
      throw error;
    } finally {
      this.#tableChanged();
    }
  }

  #addRegion(message: Message): undefined {
    this.table.add(codec.decodeMemoryRegion(message.request, message.payload), theDescriptor(message));
    this.#tableChanged();
  }

  #removeRegion({ request, payload }: Message): undefined {
    this.table.remove(codec.decodeMemoryRegion(request, payload));
    this.#tableChanged();
  }

  #tableChanged(): void {
    for (const queue of this.#queues) queue.tableChanged();
  }

  #setLog(message: Message): Answer {
    const area = codec.decodeLogArea(message.request, message.payload);
    const log = PageLog.received(this.#calls, area, theDescriptor(message));
    this.#log?.close();
    this.#log = log;
    this.#updateLog();
    return has(this.#protocolFeatures, PROTOCOL_FEATURE.LOG_SHMFD) ? codec.encodeU64(0n) : undefined;
  }

  #updateLog(): void {
    this.table.written.log = has(this.#features, FEATURE.LOG_ALL) ? this.#log : undefined;
  }

  #setLogEvents(message: Message): undefined {
    this.#logEvents?.close();
    this.#logEvents = new EventFd(this.#calls, theDescriptor(message));
  }

  #setSize({ request, payload }: Message): undefined {
    const { index, num } = codec.decodeVringState(request, payload);
    const most = this.device.maxQueueSize ?? DEFAULT_QUEUE_SIZE;
    const queue = this.#stopped(request, index);
    if (num > most || !isPowerOfTwo(num)) {
      throw codec.protocolError(request, `${counted(num, 'descriptor')}: not a power of two, or more than ${most}`);
    }
    queue.size = num;
  }

  #setAddresses({ request, payload }: Message): undefined {
    const addresses = codec.decodeVringAddresses(request, payload);
    this.#queue(request, addresses.index).addresses = addresses;
  }

  #setBase({ request, payload }: Message): undefined {
    const { index, num } = codec.decodeVringState(request, payload);
    if (num > 0xffff) throw codec.protocolError(request, `the base is ${num}, and indices have 16 bits`);
    this.#stopped(request, index).base = num;
  }

  async #stopQueue({ request, payload }: Message): Promise<Answer> {
    const { index } = codec.decodeVringState(request, payload);
    const num = await this.#queue(request, index).stop();
    return codec.encodeVringState({ index, num });
  }

  #setKick(message: Message): undefined {
    const { queue, eventfd } = this.#vringDescriptor(message);
    if (eventfd === undefined) {
      throw codec.protocolError(message.request, `queue ${queue.index} would have to be polled: it has no eventfd`);
    }
    try {
      queue.inflight = this.#inflight?.queue(queue.index, queue.size);
    } catch (error) {
      eventfd.close();
      throw error;
    }
    queue.start(eventfd);
  }

  #setCall(message: Message): undefined {
    const { queue, eventfd } = this.#vringDescriptor(message);
    queue.call = eventfd;
  }

  #setErr(message: Message): undefined {
    const { queue, eventfd } = this.#vringDescriptor(message);
    queue.err = eventfd;
  }

  #setEnabled({ request, payload }: Message): undefined {
    const { index, num } = codec.decodeVringState(request, payload);
    this.#queue(request, index).enabled = num !== 0;
  }

  #getConfig({ request, payload }: Message): Answer {
    const { offset, size, flags } = codec.decodeConfig(request, payload);
    const config = this.device.config ?? codec.NO_PAYLOAD;
    if (offset + size > MAX_CONFIG) {
      throw codec.protocolError(request, `${counted(size, 'byte')} at ${offset}, of at most ${MAX_CONFIG}`);
    }
    // Front ends ask for more than there is: the rest is 0.
    const bytes = new Uint8Array(size);
    bytes.set(config.subarray(offset, offset + size));
    return codec.encodeConfig({ offset, size, flags, bytes });
  }

  #setConfig({ request, payload }: Message): undefined {
    const { offset, bytes } = codec.decodeConfig(request, payload);
    const length = this.device.config?.length ?? 0;
    if (this.device.writeConfig === undefined || offset + bytes.length > length) {
      const explanation = `${counted(bytes.length, 'byte')} at ${offset} of a configuration space of ${length} that ${this.device.writeConfig === undefined ? 'can not' : 'can'} be written`;
      throw new KvmError(ERRNO.EINVAL, { syscall: 'SET_CONFIG', explanation });
    }
    this.device.writeConfig(offset, bytes);
  }

  #setRequests(message: Message): undefined {
    this.#requests?.close();
    this.#requests = new Channel(new UnixConnection(this.#calls, theDescriptor(message)), this.#channel.timeoutMs);
  }

  async #getInflight({ request, payload }: Message): Promise<Answer> {
    const { queues, queueSize } = codec.decodeInflight(request, payload);
    const most = this.device.maxQueueSize ?? DEFAULT_QUEUE_SIZE;
    if (queues === 0 || queues > this.#queues.length || queueSize === 0 || queueSize > most) {
      throw codec.protocolError(
        request,
        `${counted(queues, 'queue')} of ${queueSize}; there are ${this.#queues.length} of at most ${most}`,
      );
    }
    const { inflight, descriptor } = Inflight.make(this.#calls, queues, queueSize);
    using _descriptor = descriptor;
    this.#useInflight(inflight);
    await this.#channel.send(request, MESSAGE_FLAG.REPLY, codec.encodeInflight(inflight.area), [descriptor.fd]);
    return undefined;
  }

  #setInflight(message: Message): undefined {
    const area = codec.decodeInflight(message.request, message.payload);
    this.#useInflight(Inflight.received(this.#calls, area, theDescriptor(message)));
  }

  #useInflight(inflight: Inflight): void {
    this.#inflight?.close();
    this.#inflight = inflight;
  }

  async #setStatus({ request, payload }: Message): Promise<undefined> {
    const status = Number(codec.decodeU64(request, payload) & 0xffn);
    // QEMU 7.2 asks only afterwards where each queue stands: that is kept.
    if (status === 0) await this.#stop();
    this.#status = status;
  }

  #vringDescriptor(message: Message) {
    const { index, hasDescriptor } = codec.decodeVringDescriptor(message.request, message.payload);
    const queue = this.#queue(message.request, index);
    return { queue, eventfd: hasDescriptor ? new EventFd(this.#calls, theDescriptor(message)) : undefined };
  }

  #queue(request: number, index: number): ServedQueue {
    const queue = this.#queues[index];
    if (queue === undefined) throw codec.protocolError(request, `queue ${index}, of ${this.#queues.length}`);
    return queue;
  }

  #stopped(request: number, index: number): ServedQueue {
    const queue = this.#queue(request, index);
    if (queue.started) throw codec.protocolError(request, `queue ${index} runs`);
    return queue;
  }

  #release(): void {
    this.#channel.close();
    for (const queue of this.#queues) queue.close();
    this.table.written.log = undefined;
    this.#log?.close();
    this.#logEvents?.close();
    this.#inflight?.close();
    this.#requests?.close();
    this.table.clear();
    this.device.reset?.();
  }
}

/** Bytes of the largest configuration space. */
const MAX_CONFIG = 256;

function requireOffered(request: number, taken: bigint, offered: bigint): void {
  const others = taken & ~offered;
  if (others !== 0n) throw codec.protocolError(request, `0x${others.toString(16)} was not offered`);
}

/** The one descriptor that a message must have. @throws KvmError EPROTO */
function theDescriptor({ request, descriptors }: Message) {
  if (descriptors.length !== 1)
    throw codec.protocolError(request, `${counted(descriptors.length, 'descriptor')}, and not one`);
  return descriptors[0]!;
}
