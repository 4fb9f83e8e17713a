import { KvmError } from '../../base/errors.ts';
import { weakInterval } from '../../base/weak-interval.ts';
import type { Mapping } from '../../memory/mapping.ts';
import type { RegionSet } from '../../memory/region-set.ts';
import type { SpaceChange } from '../../memory/space-user.ts';
import { ERRNO } from '../../uapi/errno.ts';
import type { UnixConnection } from '../socket.ts';
import { ConsumerConnection } from './consumer-connection.ts';
import { CONSUMER, LEFT } from './layout.ts';
import type { SpaceTable } from './space-table.ts';

/** Somebody in another thread or process who uses an address space. */
export interface Consumer {
  readonly name: string;
  readonly pid: number;
}

/** What became of a consumer. */
export interface ConsumerEvent {
  /**
   * It has released its binding; it died; or it has not let go of memory in time that was removed or moved, and the memory is
   * kept for it no longer.
   */
  readonly kind: 'left' | 'died' | 'late';
  readonly consumer: Consumer;
  /** Its death left it unknown what it had written, so that every page of the space counts as dirty. */
  readonly allDirty?: boolean;
}

/** Memory that is kept until all consumers know that it has gone. */
interface Lease {
  readonly mapping: Mapping;
  readonly generation: bigint;
  readonly until: number;
}

/** How often those are looked for who can't say anything, since they are dead or have no socket. */
const LOOK_MS = 50;

/** The consumers of a shared address space, as its owner knows them. */
export class Consumers {
  readonly #space: RegionSet;
  readonly #table: SpaceTable;
  readonly #patienceMs: number;
  readonly #onConsumer: ((event: ConsumerEvent) => void) | undefined;
  readonly #connections = new Set<ConsumerConnection>();
  readonly #known = new Map<number, Consumer>();
  #leases: Lease[] = [];
  #waiting: (() => void)[] = [];
  readonly #timer: NodeJS.Timeout;

  constructor(
    space: RegionSet,
    table: SpaceTable,
    patienceMs: number,
    onConsumer: ((event: ConsumerEvent) => void) | undefined,
  ) {
    this.#space = space;
    this.#table = table;
    this.#patienceMs = patienceMs;
    this.#onConsumer = onConsumer;
    this.#timer = weakInterval(this, LOOK_MS, (consumers) => consumers.look());
  }

  /** Those that are there now. */
  list(): Consumer[] {
    this.look();
    return [...this.#known.values()];
  }

  /** Hands the table and the memory over. The connection is ours from now on. */
  accept(connection: UnixConnection): void {
    this.look();
    const accepted = new ConsumerConnection(
      this.#table,
      connection,
      () => this.look(),
      () => {
        this.#connections.delete(accepted);
        this.look();
      },
    );
    this.#connections.add(accepted);
    accepted.send(this.#space);
  }

  /** New memory goes to those with a connection, before they can know of its region. */
  committing(): void {
    for (const connection of this.#connections) connection.send(this.#space);
  }

  /** Memory that consumers may still show is kept for them. */
  committed(changes: readonly SpaceChange[]): void {
    const removed = changes.filter(({ kind }) => kind === 'remove');
    if (removed.length === 0 || this.list().length === 0) return;
    const until = Date.now() + this.#patienceMs;
    for (const { region, generation } of removed) {
      region.mapping.pin();
      this.#leases.push({ mapping: region.mapping, generation: BigInt(generation), until });
    }
  }

  /** Waits until all consumers know of every change. @throws KvmError ETIMEDOUT naming those who don't; EBADF when it is closed */
  async settled(timeoutMs: number): Promise<void> {
    const until = Date.now() + timeoutMs;
    for (;;) {
      this.look();
      const behind = this.#behind(BigInt(this.#space.generation));
      if (behind.length === 0) return;
      if (Date.now() >= until) {
        const names = behind.map(({ name, pid }) => `'${name}' (process ${pid})`).join(', ');
        const explanation = `not yet known to ${names} after ${timeoutMs} ms: generation ${this.#space.generation}`;
        throw new KvmError(ERRNO.ETIMEDOUT, { syscall: 'settled', explanation });
      }
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, LOOK_MS / 2);
        this.#waiting.push(() => {
          clearTimeout(timer);
          resolve();
        });
      });
    }
  }

  /** Looks who has come, gone or died, and gives the memory back that nobody shows any more. */
  look(): void {
    if (this.#table.closed) return;
    const { memory } = this.#table;
    for (let index = 0; index < memory.shape.maxConsumers; index++) this.#lookAt(index);
    this.#endLeases();
    for (const wake of this.#waiting.splice(0)) wake();
  }

  close(): void {
    clearInterval(this.#timer);
    for (const connection of [...this.#connections]) connection.close();
    for (const { mapping } of this.#leases.splice(0)) mapping.unpin();
  }

  #lookAt(index: number): void {
    const { memory } = this.#table;
    const at = memory.consumerAt(index);
    const pid = memory.word(at + CONSUMER.PID);
    const known = this.#known.get(index);
    if (pid === 0) return;
    if (this.#table.isAlive(index)) {
      if (known?.pid === pid) return;
      if (known !== undefined) this.#tell({ kind: 'left', consumer: known });
      this.#known.set(index, { name: memory.consumerName(index), pid });
      return;
    }
    const consumer = known ?? { name: memory.consumerName(index), pid };
    const hasLeft = memory.long(at + CONSUMER.ACKNOWLEDGED) === LEFT;
    const allDirty = memory.word(at + CONSUMER.WRITERS) !== 0;
    // Somebody else may have taken the place just now.
    if (!this.#table.clear(index)) return;
    this.#known.delete(index);
    if (hasLeft) {
      this.#tell({ kind: 'left', consumer });
      return;
    }
    if (allDirty) this.#table.markAll();
    this.#tell({ kind: 'died', consumer, allDirty });
  }

  #endLeases(): void {
    if (this.#leases.length === 0) return;
    const now = Date.now();
    const ended = this.#leases.filter(({ generation, until }) => now >= until || this.#behind(generation).length === 0);
    if (ended.length === 0) return;
    this.#leases = this.#leases.filter((lease) => !ended.includes(lease));
    const late = new Set(ended.flatMap(({ generation }) => this.#behind(generation)));
    for (const { mapping } of ended) mapping.unpin();
    for (const consumer of late) this.#tell({ kind: 'late', consumer });
  }

  /** The consumers that have not acknowledged a generation. */
  #behind(generation: bigint): Consumer[] {
    const { memory } = this.#table;
    return [...this.#known]
      .filter(([index]) => memory.long(memory.consumerAt(index) + CONSUMER.ACKNOWLEDGED) < generation)
      .map(([, consumer]) => consumer);
  }

  #tell(event: ConsumerEvent): void {
    if (this.#onConsumer !== undefined) queueMicrotask(() => this.#onConsumer?.(event));
  }
}
