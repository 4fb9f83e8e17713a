import { lstatSync, unlinkSync } from 'node:fs';
import {
  checkBytes,
  checkInstance,
  checkInteger,
  checkOneOf,
  checkOptions,
  checkSignal,
  checkText,
} from '../base/arguments.ts';
import { invalidArgType, KvmError, outOfRange } from '../base/errors.ts';
import { partOf } from '../base/part-of.ts';
import { callError } from '../calls/failure.ts';
import { Handle } from '../calls/handle.ts';
import type { KvmCalls } from '../calls/kvm-calls.ts';
import type { CallName } from '../calls/signatures.ts';
import { checkCalls } from '../calls/wrapped.ts';
import { ERRNO } from '../uapi/errno.ts';
import { POLL, SCM_MAX_FD, SOCK } from '../uapi/flags.ts';
import { checkFd, Descriptor, sharingOf, whyNotOurs } from './descriptor.ts';
import { signalOf, type WaitOptions } from './eventfd.ts';

export interface UnixSocketOptions {
  /** A stream of bytes (the default), or messages that keep their boundaries. */
  readonly type?: 'stream' | 'seqpacket';
}

/** Who is at the other end: whoever connected or listened. */
export interface PeerCredentials {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
}

/** Connections that may wait to be accepted. */
const BACKLOG = 128;
/** A listener whose queue is full doesn't say when it has room again. */
const RETRY_CONNECT_MS = 10;
const RETRY_ACCEPT_MS = 100;
const NO_DESCRIPTOR = ['EMFILE', 'ENFILE'];

// Filled and emptied within one call.
const received = new Int32Array(SCM_MAX_FD);
const NO_DESCRIPTORS = new Int32Array(0);

/** One end of a Unix socket, over which descriptors can be sent beside bytes. */
export class UnixConnection extends Handle {
  override readonly noun = 'the socket';
  #sending: Promise<void> | undefined;

  /** Takes over a socket that is ours already. */
  constructor(calls: KvmCalls, fd: number | Descriptor) {
    super(checkCalls(calls), typeof fd === 'number' ? checkFd(fd, 'fd') : checkInstance(fd, 'fd', Descriptor).giveUp());
  }

  /**
   * Connects to a listener at a path; waits while that has as many others waiting as it takes.
   * @throws KvmError ENOENT, ECONNREFUSED when nobody listens, ENAMETOOLONG for more than 107 bytes; the signal's reason
   */
  static async connect(
    calls: KvmCalls,
    path: string,
    options: UnixSocketOptions & WaitOptions = {},
  ): Promise<UnixConnection> {
    const { type, signal } = checkOptions(options, { type: true, signal: true });
    checkSignal(signal, 'options.signal');
    const socketType = typeNumber(type);
    const sharing = sharingOf(calls, 'socketConnect');
    for (;;) {
      signal?.throwIfAborted();
      const fd = sharing.socketConnect(checkPath(path), socketType);
      if (fd >= 0) return new UnixConnection(calls, fd);
      if (fd !== -ERRNO.EAGAIN) throw callError('socketConnect', fd, { explanation: path });
      await new Promise((resolve) => setTimeout(resolve, RETRY_CONNECT_MS));
    }
  }

  /** Two connected ends. @throws KvmError EMFILE */
  static pair(calls: KvmCalls, options: UnixSocketOptions = {}): [UnixConnection, UnixConnection] {
    const fds = new Int32Array(2);
    const result = sharingOf(calls, 'socketPair').socketPair(
      typeNumber(checkOptions(options, { type: true }).type),
      fds,
    );
    if (result < 0) throw callError('socketPair', result);
    return [new UnixConnection(calls, fds[0]!), new UnixConnection(calls, fds[1]!)];
  }

  /** The process at the other end, as the kernel knows it. @throws KvmError EBADF */
  get peer(): PeerCredentials {
    const [pid, uid, gid] = this.#credentials();
    return { pid, uid, gid };
  }

  /**
   * Sends all bytes, and descriptors with the first of them; what was sent before goes first. Descriptors may be anybody's, and
   * must stay open until it is done. @throws KvmError EPIPE, ECONNRESET when the peer is gone, EBADF; EFAULT when the array is
   * detached or resized meanwhile
   */
  send(bytes: Uint8Array, descriptors: readonly number[] = []): Promise<void> {
    checkBytes(bytes, 'bytes');
    const fds = checkDescriptors(descriptors);
    const before = this.#sending;
    const { length } = bytes;
    const send = (): Promise<void> => this.#send(bytes, length, fds);
    const sending = before === undefined ? send() : before.then(send);
    const settled = sending
      .catch(() => {})
      .then(() => {
        if (this.#sending === settled) this.#sending = undefined;
      });
    this.#sending = settled;
    return sending;
  }

  /**
   * Receives what there is, at most `into.length` bytes, and puts the descriptors that came along into `descriptors`, whose
   * they are from now on.
   * @returns the number of bytes; 0 when the peer has closed
   * @throws KvmError ECONNRESET, EBADF when it is closed meanwhile, EMFILE when there is no room for a descriptor, EPERM for one of a VM or vCPU, EFAULT when the array is
   *   detached or resized meanwhile; the signal's reason
   */
  async receive(into: Uint8Array, descriptors: Descriptor[], options: WaitOptions = {}): Promise<number> {
    checkBytes(into, 'into');
    checkInstance(descriptors, 'descriptors', Array);
    const { length } = into;
    const signal = signalOf(options);
    const sharing = sharingOf(this.calls, 'receiveMessage');
    for (;;) {
      signal?.throwIfAborted();
      requireWhole('receiveMessage', into, length, 0);
      const result = sharing.receiveMessage(this.fd, into, received);
      if (result !== -ERRNO.EAGAIN) {
        for (let i = 0; i < received.length && received[i]! >= 0; i++) {
          descriptors.push(new Descriptor(this.calls, received[i]!));
        }
        return this.check('receiveMessage', result, { explanation: whyNotOurs(result) });
      }
      await this.untilReady(POLL.IN, signal);
    }
  }

  /**
   * Receives until the array is full.
   * @returns false when the peer has closed before the first byte
   * @throws KvmError as {@link receive}; ECONNRESET when it closed later
   */
  async receiveAll(into: Uint8Array, descriptors: Descriptor[], options: WaitOptions = {}): Promise<boolean> {
    const { length } = checkBytes(into, 'into');
    for (let done = 0; done < length; ) {
      requireWhole('receiveMessage', into, length, done);
      const count = await this.receive(partOf(into, done), descriptors, options);
      if (count === 0 && done === 0) return false;
      if (count === 0) {
        const explanation = `the peer closed in the middle of a message, after ${done} of ${length} bytes`;
        throw callError('receiveMessage', ERRNO.ECONNRESET, { size: length, explanation });
      }
      done += count;
    }
    return true;
  }

  async #send(bytes: Uint8Array, length: number, descriptors: Int32Array): Promise<void> {
    const sharing = sharingOf(this.calls, 'sendMessage');
    let fds = descriptors;
    for (let done = 0; done < length; ) {
      requireWhole('sendMessage', bytes, length, done);
      const sent = sharing.sendMessage(this.fd, done === 0 ? bytes : partOf(bytes, done), fds);
      if (sent === -ERRNO.EAGAIN) {
        await this.untilReady(POLL.OUT);
        continue;
      }
      done += this.check('sendMessage', sent, { size: length });
      fds = NO_DESCRIPTORS;
    }
  }

  #credentials(): [number, number, number] {
    const values = new Uint32Array(3);
    const result = sharingOf(this.calls, 'peerCredentials').peerCredentials(this.fd, values);
    this.check('peerCredentials', result);
    return [values[0]!, values[1]!, values[2]!];
  }
}

/**
 * Listens at a path, which is removed when it is closed. An iteration gets each connection, and is over then; while the process has no
 * descriptor left it waits.
 *
 * @example
 * using listener = UnixListener.listen(calls, '/run/disk.sock');
 * for await (const connection of listener) serve(connection);
 */
export class UnixListener extends Handle implements AsyncIterable<UnixConnection> {
  override readonly noun = 'the listener';
  readonly path: string;
  /** The file at the path as we made it. */
  readonly #file: { readonly dev: number; readonly ino: number };

  private constructor(calls: KvmCalls, fd: number, path: string) {
    super(calls, fd);
    this.path = path;
    try {
      this.#file = lstatSync(path);
    } catch (error) {
      super.close();
      throw error;
    }
  }

  /** @throws KvmError EADDRINUSE when there is a file already, ENOENT, EACCES, ENAMETOOLONG for more than 107 bytes */
  static listen(calls: KvmCalls, path: string, options: UnixSocketOptions = {}): UnixListener {
    const type = typeNumber(checkOptions(options, { type: true }).type);
    const sharing = sharingOf(calls, 'socketListen');
    const fd = sharing.socketListen(checkPath(path), type, BACKLOG);
    if (fd >= 0) return new UnixListener(calls, fd, path);
    const explanation = fd === -ERRNO.EADDRINUSE ? whyInUse(calls, path, type) : path;
    throw callError('socketListen', fd, { explanation });
  }

  /** The next connection. @throws KvmError EBADF when it is closed, also meanwhile; EMFILE; the signal's reason */
  async accept(options: WaitOptions = {}): Promise<UnixConnection> {
    const signal = signalOf(options);
    const sharing = sharingOf(this.calls, 'socketAccept');
    for (;;) {
      signal?.throwIfAborted();
      const fd = sharing.socketAccept(this.fd);
      if (fd >= 0) return new UnixConnection(this.calls, fd);
      // One that gave up before it was accepted is no concern of ours.
      if (fd !== -ERRNO.EAGAIN && fd !== -ERRNO.ECONNABORTED)
        this.check('socketAccept', fd, { explanation: this.path });
      await this.untilReady(POLL.IN, signal);
    }
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<UnixConnection, void> {
    while (!this.closed) {
      try {
        yield await this.accept();
      } catch (error) {
        if (this.closed) return;
        if (!(error instanceof KvmError) || !NO_DESCRIPTOR.includes(error.code)) throw error;
        // Whoever waits to be accepted waits on until one is free.
        await new Promise((resolve) => setTimeout(resolve, RETRY_ACCEPT_MS));
      }
    }
  }

  override close(): void {
    if (this.closed) return;
    super.close();
    const file = lstatSync(this.path, { throwIfNoEntry: false });
    // Somebody else may have put another file there.
    if (file?.dev === this.#file.dev && file.ino === this.#file.ino) unlinkSync(this.path);
  }
}

/** @throws KvmError EFAULT when an array is not what it was when it was given */
function requireWhole(name: CallName, bytes: Uint8Array, length: number, done: number): void {
  // Not `length`: see checkThere.
  if (bytes.byteLength === length) return;
  const explanation = `the array of ${length} bytes was detached or resized, and has ${bytes.byteLength}; ${done} were moved before`;
  throw callError(name, ERRNO.EFAULT, { size: length, explanation });
}

function typeNumber(type: UnixSocketOptions['type'] = 'stream'): number {
  return checkOneOf(type, 'options.type', ['stream', 'seqpacket']) === 'stream' ? SOCK.STREAM : SOCK.SEQPACKET;
}

/** To the kernel an empty one is a name of its abstract namespace. */
function checkPath(path: string): string {
  if (checkText(path, 'path') === '' || path.includes('\0')) throw outOfRange('path', 'a path, without NUL', path);
  return path;
}

/** Nothing is taken for descriptor 0 that is none. */
function checkDescriptors(descriptors: readonly number[]): Int32Array {
  if (!Array.isArray(descriptors)) throw invalidArgType('descriptors', 'an array of descriptors', descriptors);
  if (descriptors.length === 0) return NO_DESCRIPTORS;
  return Int32Array.from(descriptors as readonly number[], (fd, index) =>
    checkInteger(fd, `descriptors[${index}]`, -0x8000_0000, 0x7fff_ffff),
  );
}

function whyInUse(calls: KvmCalls, path: string, type: number): string {
  const fd = sharingOf(calls, 'socketConnect').socketConnect(path, type);
  if (fd >= 0) calls.close(fd);
  return fd === -ERRNO.ECONNREFUSED
    ? `${path} is left of a listener that is gone: remove it`
    : `${path} is there already, and somebody listens or it is no socket`;
}
