import { checkCallback, checkInstance, checkOptions } from '../../base/arguments.ts';
import { KvmError } from '../../base/errors.ts';
import type { KvmCalls } from '../../calls/kvm-calls.ts';
import { checkCalls } from '../../calls/wrapped.ts';
import { UnixConnection } from '../../sharing/socket.ts';
import { checkTimeout, DEFAULT_TIMEOUT_MS } from '../channel.ts';
import { checkDevice, type VirtioDevice } from '../device.ts';
import { Session } from './session.ts';

export interface BackEndOptions {
  /** How long a front end may take for the rest of a message, or to read one; 10 s by default. */
  readonly timeoutMs?: number;
  /** Told of requests that were refused, and of queues that stopped since their driver broke the rules. */
  readonly onError?: (error: Error) => void;
}

/**
 * Serves a device to programs that have guests: QEMU, or a {@link VhostUserFrontEnd}.
 *
 * @example
 * const backEnd = new VhostUserBackEnd(calls, new BlockDevice(file, { size: 1 << 30 }));
 * using listener = UnixListener.listen(calls, '/run/disk.sock');
 * for await (const connection of listener) await backEnd.serve(connection);
 */
export class VhostUserBackEnd {
  readonly #calls: KvmCalls;
  readonly #device: VirtioDevice;
  readonly #timeoutMs: number;
  readonly #onError: (error: Error) => void;
  readonly #sessions = new Set<Session>();

  /** @param calls the addon's: an emulated kernel has no memory that others could share */
  constructor(calls: KvmCalls, device: VirtioDevice, options: BackEndOptions = {}) {
    const { timeoutMs = DEFAULT_TIMEOUT_MS, onError } = checkOptions(options, { timeoutMs: true, onError: true });
    this.#calls = checkCalls(calls);
    this.#device = checkDevice(device);
    this.#timeoutMs = checkTimeout(timeoutMs);
    this.#onError = checkCallback(onError, 'options.onError') ?? (() => {});
  }

  /**
   * Serves a front end until it closes the connection, which is then closed here.
   * @throws KvmError EPROTO when it breaks the protocol, ETIMEDOUT, ECONNRESET; all that it had given is given back
   */
  async serve(connection: UnixConnection): Promise<void> {
    checkInstance(connection, 'connection', UnixConnection);
    const session = new Session(this.#calls, this.#device, connection, this.#timeoutMs, this.#onError);
    this.#sessions.add(session);
    try {
      await session.run();
    } finally {
      this.#sessions.delete(session);
    }
  }

  /** Tells front ends that the configuration space has changed, if they want to know. */
  async configChanged(): Promise<void> {
    for (const session of this.#sessions) {
      try {
        await session.configChanged();
      } catch (error) {
        if (!(error instanceof KvmError)) throw error;
        this.#onError(error);
      }
    }
  }

  /** Ends all that is served: {@link serve} returns. */
  close(): void {
    for (const session of this.#sessions) session.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
