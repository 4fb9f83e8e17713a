import { KvmError } from '../../base/errors.ts';
import type { RegionSet } from '../../memory/region-set.ts';
import { ERRNO } from '../../uapi/errno.ts';
import { type Descriptor, sharingOf } from '../descriptor.ts';
import type { UnixConnection } from '../socket.ts';
import type { SpaceTable } from './space-table.ts';
import { inodeOf, isShareable } from './space-table.ts';

/** Bytes of every message, in both directions. What they are says nothing: what there is to know stands in the table. */
export const MESSAGE_BYTES = 8;
/** Descriptors that go with one message. */
const MOST_DESCRIPTORS = 250;

/** The owner's end of a consumer's connection: descriptors go out, and a message comes when a record has changed. */
export class ConsumerConnection {
  readonly #table: SpaceTable;
  readonly #connection: UnixConnection;
  readonly #onMessage: () => void;
  readonly #onEnd: () => void;
  /** Inodes of the memory that it was given, and that is in the space still. */
  #given = new Set<bigint>();
  #greeted = false;
  #sending: Promise<void> | undefined;

  constructor(table: SpaceTable, connection: UnixConnection, onMessage: () => void, onEnd: () => void) {
    this.#table = table;
    this.#connection = connection;
    this.#onMessage = onMessage;
    this.#onEnd = onEnd;
    void this.#receive();
  }

  /** Sends the descriptors that it has not got, and that there is something new. */
  send(space: RegionSet): void {
    const present = new Map(
      space.memoryRegions.flatMap(({ mapping }) => (isShareable(mapping) ? [[inodeOf(mapping), mapping.fd]] : [])),
    );
    const fresh = [...present].filter(([inode]) => !this.#given.has(inode)).map(([, fd]) => fd);
    this.#given = new Set(present.keys());
    const fds = this.#greeted ? fresh : [this.#table.memory.mapping.fd, ...fresh];
    this.#greeted = true;
    for (let first = 0; first === 0 || first < fds.length; first += MOST_DESCRIPTORS) {
      this.#sendOne(fds.slice(first, first + MOST_DESCRIPTORS));
    }
  }

  close(): void {
    this.#connection.close();
  }

  /** At once where that is possible: it is there then before the table says so. */
  #sendOne(fds: readonly number[]): void {
    const { calls, fd } = this.#connection;
    const message = new Uint8Array(MESSAGE_BYTES);
    if (this.#sending === undefined) {
      const sent = sharingOf(calls, 'sendMessage').sendMessage(fd, message, Int32Array.from(fds));
      if (sent === MESSAGE_BYTES) return;
      if (sent !== -ERRNO.EAGAIN) {
        this.close();
        return;
      }
    }
    // Descriptors that close meanwhile are of memory that has gone again.
    const sending: Promise<void> = this.#connection
      .send(message, fds)
      .catch(() => this.close())
      .finally(() => {
        if (this.#sending === sending) this.#sending = undefined;
      });
    this.#sending = sending;
  }

  async #receive(): Promise<void> {
    const message = new Uint8Array(MESSAGE_BYTES * 16);
    const descriptors: Descriptor[] = [];
    try {
      while ((await this.#connection.receive(message, descriptors)) > 0) {
        // Nobody asked for any.
        for (const descriptor of descriptors.splice(0)) descriptor.close();
        this.#onMessage();
      }
    } catch (error) {
      if (!(error instanceof KvmError)) throw error;
    } finally {
      this.#connection.close();
      this.#onEnd();
    }
  }
}
