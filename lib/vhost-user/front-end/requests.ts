import { KvmError } from '../../base/errors.ts';
import { isClosed } from '../../calls/failure.ts';
import { ERRNO } from '../../uapi/errno.ts';
import { type Channel, closeAll, type Message } from '../channel.ts';
import { decodeU64, encodeU64, NO_PAYLOAD, protocolError } from '../message.ts';
import { MESSAGE_FLAG, messageName, REQUEST } from '../protocol.ts';

interface Pending {
  readonly request: number;
  resolve(reply: Message): void;
  reject(error: Error): void;
}

/** Requests to a back end, one after the other, each with its answer. Whatever goes wrong with one ends the connection. */
export class Requests {
  readonly #channel: Channel;
  /** REPLY_ACK was negotiated: every request can be confirmed. */
  confirms = false;
  /** Resolves when the connection is over: with the reason, unless it was closed here. */
  readonly ended: Promise<Error | undefined>;
  #pending: Pending | undefined;
  #last: Promise<unknown> = Promise.resolve();
  #reason: Error | undefined;

  constructor(channel: Channel) {
    this.#channel = channel;
    this.ended = this.#receive();
  }

  get closed(): boolean {
    return this.#channel.closed;
  }

  close(): void {
    this.#channel.close();
  }

  /** @throws what ended the connection; KvmError EBADF when it was closed here */
  assertOpen(syscall: string): void {
    if (this.closed) throw this.#gone(syscall);
  }

  /** Ends the connection for a reason. */
  fail(error: Error): void {
    this.#reason ??= error;
    this.close();
  }

  /** A request that has an answer of its own. @throws KvmError EPROTO, ETIMEDOUT, ECONNRESET when the back end is gone */
  ask(request: number, payload: Uint8Array = NO_PAYLOAD, descriptors: readonly number[] = []): Promise<Message> {
    return this.#inTurn(() => this.#exchange(request, 0, payload, descriptors));
  }

  /** The same where the answer is a number. */
  async askU64(request: number): Promise<bigint> {
    const { payload, descriptors } = await this.ask(request);
    closeAll(descriptors);
    return decodeU64(request, payload);
  }

  /**
   * A request without an answer of its own: when this resolves, the back end has carried it out.
   * @throws KvmError EIO when it refuses, and as {@link ask}
   */
  tell(request: number, payload: Uint8Array = NO_PAYLOAD, descriptors: readonly number[] = []): Promise<void> {
    return this.#inTurn(async () => {
      if (this.confirms) {
        const reply = await this.#exchange(request, MESSAGE_FLAG.NEED_REPLY, payload, descriptors);
        closeAll(reply.descriptors);
        const refused = decodeU64(request, reply.payload);
        if (refused === 0n) return;
        const explanation = `the back end refuses, with ${refused}`;
        throw new KvmError(ERRNO.EIO, { syscall: syscallOf(request), explanation });
      }
      await this.#channel.send(request, 0, payload, descriptors);
      // It answers in order: with this it has seen the other.
      closeAll((await this.#exchange(REQUEST.GET_FEATURES, 0, NO_PAYLOAD, [])).descriptors);
    });
  }

  async tellU64(request: number, value: bigint): Promise<void> {
    await this.tell(request, encodeU64(value));
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(async () => {
      try {
        return await work();
      } catch (error) {
        this.fail(error as Error);
        throw this.#reason;
      }
    });
    this.#last = turn.catch(() => {});
    return turn;
  }

  async #exchange(
    request: number,
    flags: number,
    payload: Uint8Array,
    descriptors: readonly number[],
  ): Promise<Message> {
    this.assertOpen(syscallOf(request));
    const reply = new Promise<Message>((resolve, reject) => {
      this.#pending = { request, resolve, reject };
    });
    // Sending may fail first: then nobody waits for this.
    reply.catch(() => {});
    try {
      await this.#channel.send(request, flags, payload, descriptors);
      return await this.#channel.inTime(reply, request, 'the back end does not answer');
    } finally {
      this.#pending = undefined;
    }
  }

  async #receive(): Promise<Error | undefined> {
    try {
      for (;;) {
        const message = await this.#channel.receive();
        if (message === undefined) break;
        const pending = this.#pending;
        if (pending === undefined || !message.isReply || message.request !== pending.request) {
          closeAll(message.descriptors);
          throw protocolError(message.request, 'the back end sends what nobody asked for');
        }
        this.#pending = undefined;
        pending.resolve(message);
      }
      if (!this.closed) this.#reason ??= this.#gone(syscallOf(this.#pending?.request));
    } catch (error) {
      // Our own closing ends the wait as well.
      if (!this.closed) this.#reason ??= error as Error;
    }
    this.close();
    this.#pending?.reject(this.#gone(syscallOf(this.#pending.request)));
    return this.#reason;
  }

  #gone(syscall: string): Error {
    if (this.#reason !== undefined) return this.#reason;
    const explanation = this.closed ? isClosed('the connection') : 'the back end closed the connection';
    return new KvmError(this.closed ? ERRNO.EBADF : ERRNO.ECONNRESET, { syscall, explanation });
  }
}

const syscallOf = (request: number | undefined): string =>
  request === undefined ? 'vhost-user' : `vhost-user ${messageName(request)}`;
