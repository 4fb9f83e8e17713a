import { checkInteger } from '../base/arguments.ts';
import { KvmError } from '../base/errors.ts';
import { counted } from '../base/text.ts';
import { callError } from '../calls/failure.ts';
import type { Descriptor } from '../sharing/descriptor.ts';
import type { UnixConnection } from '../sharing/socket.ts';
import { ERRNO } from '../uapi/errno.ts';
import { decodeHeader, encodeMessage, HEADER_SIZE, NO_PAYLOAD, protocolError } from './message.ts';
import { BASELINE_REGIONS, MESSAGE_FLAG, messageName } from './protocol.ts';

export interface Message {
  readonly request: number;
  readonly payload: Uint8Array;
  /** The receiver's, who closes them or gives them up. */
  readonly descriptors: Descriptor[];
  readonly isReply: boolean;
  readonly needsReply: boolean;
}

/** How long a peer may take for the rest of a message, for an answer, or until it reads. */
export const DEFAULT_TIMEOUT_MS = 10_000;

/** Checks what was said of that. */
export const checkTimeout = (timeoutMs: number): number => checkInteger(timeoutMs, 'options.timeoutMs', 0, 0x7fff_ffff);

/** Messages over a connection, one after the other. */
export class Channel {
  readonly #connection: UnixConnection;
  readonly timeoutMs: number;
  readonly #header = new Uint8Array(HEADER_SIZE);

  /** Takes the connection over. */
  constructor(connection: UnixConnection, timeoutMs: number = DEFAULT_TIMEOUT_MS) {
    this.#connection = connection;
    this.timeoutMs = timeoutMs;
  }

  get closed(): boolean {
    return this.#connection.closed;
  }

  close(): void {
    this.#connection.close();
  }

  /**
   * The next message; undefined when the peer has closed. Waits for its beginning for as long as it takes.
   * @throws KvmError EPROTO, ECONNRESET in the middle of a message, ETIMEDOUT when the rest of one doesn't come
   */
  async receive(): Promise<Message | undefined> {
    const descriptors: Descriptor[] = [];
    try {
      const began = await this.#begin(descriptors);
      if (began === 0) return undefined;
      return await this.#rest(began, descriptors);
    } catch (error) {
      closeAll(descriptors);
      throw error;
    }
  }

  /** @throws KvmError EPIPE, ETIMEDOUT when the peer reads nothing */
  send(request: number, flags: number, payload: Uint8Array, descriptors: readonly number[] = []): Promise<void> {
    const sending = this.#connection.send(encodeMessage(request, flags, payload), descriptors);
    return this.inTime(sending, request, 'the peer reads nothing');
  }

  /** What a promise gives in time. After that nobody knows what would come next: whoever uses the channel closes it. */
  async inTime<T>(promise: Promise<T>, request: number, what: string): Promise<T> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        const syscall = `vhost-user ${messageName(request)}`;
        reject(new KvmError(ERRNO.ETIMEDOUT, { syscall, explanation: `${what}, for ${this.timeoutMs} ms` }));
      }, this.timeoutMs);
    });
    try {
      return await Promise.race([promise, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** The first bytes of a message: how many. A peer that has closed without reading all that it was sent has closed. */
  async #begin(descriptors: Descriptor[]): Promise<number> {
    try {
      return await this.#connection.receive(this.#header, descriptors);
    } catch (error) {
      if ((error as KvmError).code === 'ECONNRESET') return 0;
      throw error;
    }
  }

  async #rest(began: number, descriptors: Descriptor[]): Promise<Message> {
    const late = 'the rest of a message does not come';
    if (began < HEADER_SIZE) {
      await this.inTime(this.#fill(this.#header.subarray(began), descriptors), 0, late);
    }
    const { request, flags, size } = decodeHeader(this.#header);
    const payload = size === 0 ? NO_PAYLOAD : new Uint8Array(size);
    await this.inTime(this.#fill(payload, descriptors), request, late);
    if (descriptors.length > BASELINE_REGIONS) {
      throw protocolError(request, `${counted(descriptors.length, 'descriptor')}; ${BASELINE_REGIONS} are the most`);
    }
    const isReply = (flags & MESSAGE_FLAG.REPLY) !== 0;
    return { request, payload, descriptors, isReply, needsReply: (flags & MESSAGE_FLAG.NEED_REPLY) !== 0 };
  }

  async #fill(bytes: Uint8Array, descriptors: Descriptor[]): Promise<void> {
    if (await this.#connection.receiveAll(bytes, descriptors)) return;
    if (bytes.length === 0) return;
    const explanation = 'the peer closed in the middle of a message';
    throw callError('receiveMessage', ERRNO.ECONNRESET, { size: bytes.length, explanation });
  }
}

export function closeAll(descriptors: readonly Descriptor[]): void {
  for (const descriptor of descriptors) descriptor.close();
}
