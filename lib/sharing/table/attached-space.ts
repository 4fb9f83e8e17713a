import { fstatSync, readSync } from 'node:fs';
import { checkCallback, checkName, checkOptions } from '../../base/arguments.ts';
import { callBack } from '../../base/callback.ts';
import { hexRange, KvmError } from '../../base/errors.ts';
import { RangeTable } from '../../base/range-table.ts';
import { counted } from '../../base/text.ts';
import { weakInterval } from '../../base/weak-interval.ts';
import { callError } from '../../calls/failure.ts';
import { type KvmCalls, type SharingCalls, VIEW_WINDOW } from '../../calls/kvm-calls.ts';
import type { CallName } from '../../calls/signatures.ts';
import type { MemoryLookup } from '../../memory/lookup.ts';
import { ERRNO } from '../../uapi/errno.ts';
import { SCM_MAX_FD, SEAL } from '../../uapi/flags.ts';
import type { Binding, BindingClass, BoundSpace } from '../binding.ts';
import { Descriptor, sharingOf } from '../descriptor.ts';
import type { UnixConnection } from '../socket.ts';
import type { BoundRange } from '../vmap.ts';
import { MESSAGE_BYTES } from './consumer-connection.ts';
import { GivenMemory } from './given-memory.ts';
import { CONSUMER, HEADER, LEFT, OWNER_LOCK, putText } from './layout.ts';
import { LogWriter } from './log-writer.ts';
import { checkedHeader, readRegions, type TableHeader, type TableRegion } from './snapshot.ts';
import { TableMemory } from './table-memory.ts';

/** Why an address space of another thread or process ends for its consumers, whose memory still reads. */
export type SpaceEnd = 'closed' | 'died';

export interface AttachOptions {
  /** Who it is, for the owner. At most 47 bytes of it are kept. */
  readonly name?: string;
  /** Called when regions have changed, after views were revoked. */
  readonly onChange?: (generation: number) => void;
  /** Called once, when the owner has closed the space, or has died. */
  readonly onEnd?: (reason: SpaceEnd) => void;
}

/** Checks who it is that attaches, and what is called. Each is read once: a getter may say something else the next time. */
export function checkAttachOptions(options: AttachOptions): AttachOptions {
  const { name, onChange, onEnd } = checkOptions(options, { name: true, onChange: true, onEnd: true });
  return {
    ...(checkName(name, 'options.name') === undefined ? {} : { name }),
    ...(checkCallback(onChange, 'options.onChange') === undefined ? {} : { onChange }),
    ...(checkCallback(onEnd, 'options.onEnd') === undefined ? {} : { onEnd }),
  };
}

/** How often an owner is looked for who can't say anything, since it is dead or has no socket to us. */
const LOOK_MS = 50;
const MOST_MESSAGES = 4096;
const NO_CHANGES = new Int32Array(1);

// Filled and emptied within one call.
const message = new Uint8Array(MESSAGE_BYTES * 32);
const received = new Int32Array(SCM_MAX_FD);

/** A region of an attached space. */
class AttachedRegion implements BoundRange {
  readonly told: TableRegion;
  readonly mapping: BoundRange['mapping'];

  constructor(told: TableRegion, mapping: BoundRange['mapping']) {
    this.told = told;
    this.mapping = mapping;
  }

  get start(): number {
    return this.told.start;
  }

  get end(): number {
    return this.told.end;
  }

  get size(): number {
    return this.told.size;
  }

  get offset(): number {
    return this.told.offset;
  }

  get readOnly(): boolean {
    return this.told.readOnly;
  }

  isSame(other: TableRegion, mapping: BoundRange['mapping']): boolean {
    const { start, size, offset, memory, readOnly, name } = this.told;
    return (
      mapping === this.mapping &&
      start === other.start &&
      size === other.size &&
      offset === other.offset &&
      memory === other.memory &&
      readOnly === other.readOnly &&
      name === other.name
    );
  }

  toString(): string {
    const { kind, name, readOnly } = this.told;
    return `${kind}${name === '' ? '' : ` '${name}'`} ${hexRange(this.start, this.size)}${readOnly ? ' read-only' : ''}`;
  }
}

/** The address space of another thread or process, through its table; with one binding. */
export class AttachedSpace<B extends Binding> implements BoundSpace {
  readonly littleEndian: boolean;
  readonly pageSize: number;
  readonly written: LogWriter;
  readonly lookup: MemoryLookup<BoundRange>;
  readonly binding: B;
  readonly #calls: KvmCalls;
  readonly #sharing: SharingCalls;
  readonly #table: TableMemory;
  readonly #index: number;
  readonly #given: GivenMemory;
  readonly #connection: UnixConnection | undefined;
  readonly #options: AttachOptions;
  readonly #timer: NodeJS.Timeout;
  readonly #remote: { generation: Int32Array; refresh(): void };
  #ranges = new RangeTable<AttachedRegion>();
  /** What they were before, while changes are taken over. */
  #before: RangeTable<AttachedRegion> | undefined;
  /** That of the ranges. */
  #generation = -1n;
  /** The last that was told. */
  #told = -1n;
  #ended = false;

  // Not made in the constructor, whose `this` it would keep.
  static readonly #lookAgain = (space: AttachedSpace<Binding>): void => space.#look();

  /**
   * @param table the table's descriptor, which is closed; so are the others, when the binding is released
   * @param descriptors of the memory, in any order
   * @throws KvmError EPROTO when it is no table, or tells what can't be; ENOSPC when it has as many consumers as it takes
   */
  constructor(
    calls: KvmCalls,
    table: Descriptor,
    descriptors: readonly Descriptor[],
    options: AttachOptions,
    bindingClass: BindingClass<B>,
    connection?: UnixConnection,
  ) {
    this.#calls = calls;
    this.#sharing = sharingOf(calls, 'reopen');
    this.#connection = connection;
    this.#options = options;
    const { memory, header } = openTable(calls, this.#sharing, table);
    this.#table = memory;
    ({ littleEndian: this.littleEndian, pageSize: this.pageSize } = header);
    this.#given = new GivenMemory(calls, header.ownerPid);
    for (const descriptor of descriptors)
      this.#given.add(descriptor, connection === undefined ? undefined : this.#table.generation);
    const name = options.name ?? `process ${process.pid}`;
    try {
      this.#index = this.#claim(name);
      this.written = new LogWriter(this.#table, this.#index, this.pageSize, (gpa, length) => this.#marked(gpa, length));
      this.#remote = { generation: this.#table.generationWord, refresh: () => this.refresh() };
      const space = this;
      this.lookup = {
        get ranges() {
          return space.#ranges;
        },
        describe: () => `the table of the address space tells of no memory there (generation ${space.generation})`,
        remote: this.#remote,
      };
      this.binding = new bindingClass(this, name);
      this.refresh();
    } catch (error) {
      this.#given.close();
      this.#table.close();
      throw error;
    }
    this.#timer = weakInterval(this, LOOK_MS, AttachedSpace.#lookAgain);
    if (connection !== undefined) void this.#receive(connection);
  }

  get generation(): number {
    return Number(this.#generation);
  }

  /** Takes over what has changed, and says so to the owner. Does nothing when nothing has. */
  refresh(): void {
    if (this.#before !== undefined || this.binding.released || this.#table.generation === this.#generation) return;
    this.#before = this.#ranges;
    try {
      this.#takeDescriptors();
      const { generation, regions } = readRegions(this.#table);
      this.#replace(this.#before, generation, regions);
    } finally {
      this.#before = undefined;
    }
    // It is looked at again when memory comes, and that is before the table tells of it.
    if (this.#told === this.#generation || this.binding.released) return;
    this.#told = this.#generation;
    callBack(this.#options.onChange, this.generation);
  }

  /** The binding is released. */
  unbind(): void {
    clearInterval(this.#timer);
    // Otherwise it is as if it had died in the middle of a write.
    if (this.written.close()) {
      this.#table.setLong(this.#table.consumerAt(this.#index) + CONSUMER.ACKNOWLEDGED, LEFT);
    }
    this.#given.close();
    // Those who look for changes find none, and then that the binding was released.
    this.#remote.generation = NO_CHANGES;
    // With its descriptor goes the lock of the record.
    this.#table.close();
    this.#connection?.close();
  }

  /** Takes a place that is empty, or else one that somebody has left. */
  #claim(name: string): number {
    const { maxConsumers } = this.#table.shape;
    for (const left of [false, true]) {
      for (let index = 0; index < maxConsumers; index++) if (this.#take(index, name, left)) return index;
    }
    const explanation = `the address space has ${counted(maxConsumers, 'consumer')}, which is as many as it takes`;
    throw new KvmError(ERRNO.ENOSPC, { syscall: 'attach', explanation });
  }

  #take(index: number, name: string, left: boolean): boolean {
    const { fd } = this.#table.mapping;
    const at = this.#table.consumerAt(index);
    if (this.#sharing.lockRange(fd, at, CONSUMER.BYTES) !== 0) return false;
    // Of somebody who died the owner has to know first.
    const isFree = this.#table.word(at + CONSUMER.PID) === 0;
    if (!isFree && !(left && this.#table.long(at + CONSUMER.ACKNOWLEDGED) === LEFT)) {
      this.#sharing.unlockRange(fd, at, CONSUMER.BYTES);
      return false;
    }
    this.#table.setLong(at + CONSUMER.ACKNOWLEDGED, 0n);
    this.#table.setWord(at + CONSUMER.WRITERS, 0);
    putText(this.#table.bytes.subarray(at + CONSUMER.NAME, at + CONSUMER.BYTES), name);
    this.#table.setWord(at + CONSUMER.PID, process.pid);
    return true;
  }

  #replace(before: RangeTable<AttachedRegion>, generation: bigint, told: readonly TableRegion[]): void {
    const ranges = new RangeTable<AttachedRegion>();
    for (const region of told) {
      const mapping = this.#given.of(region);
      const same = before.find(region.start);
      ranges.insert(same?.isSame(region, mapping) === true ? same : new AttachedRegion(region, mapping));
    }
    const gone = before.entries.filter((region) => !ranges.has(region));
    // What views have written is noted where the memory is now.
    this.#ranges = ranges;
    for (const region of gone) this.binding.changing(region);
    this.#generation = generation;
    this.binding.dropViews();
    const places = new Set(ranges.entries.map(placeOf));
    for (const region of gone) this.binding.changed(region, places.has(placeOf(region)) ? 'move' : 'remove');
    // By somebody who heard of that.
    if (this.binding.released) return;
    this.#given.keepOnly(new Set(told.map(({ memory }) => memory)), generation);
    this.#table.setLong(this.#table.consumerAt(this.#index) + CONSUMER.ACKNOWLEDGED, generation);
    this.#ring();
  }

  /** Bits were set for a write: if the memory has moved meanwhile, they are set there as well. False when nobody knows where it is. */
  #marked(gpa: number, length: number): boolean {
    if (this.#before === undefined && this.#table.generation === this.#generation) return true;
    const before = this.#before ?? this.#ranges;
    if (!this.#tryRefresh() || this.binding.released) return false;
    for (const region of before.entries) {
      const start = Math.max(gpa, region.start);
      const end = Math.min(gpa + length, region.end);
      if (start < end) this.#markMoved(region, start, end - start, this.#ranges);
    }
    return true;
  }

  /** Marks a range of a region that has gone wherever its memory is shown now. */
  #markMoved(region: AttachedRegion, start: number, length: number, now: RangeTable<AttachedRegion>): void {
    const offset = start - region.start + region.offset;
    for (const other of now.entries) {
      if (other.told.memory !== region.told.memory) continue;
      const first = Math.max(offset, other.offset);
      const end = Math.min(offset + length, other.offset + other.size);
      if (first < end) this.#table.log.mark(other.start + first - other.offset, end - first);
    }
  }

  #ring(): void {
    if (this.#connection === undefined || this.#connection.closed) return;
    // When the owner reads nothing there are messages enough for it.
    this.#sharing.sendMessage(this.#connection.fd, message.subarray(0, MESSAGE_BYTES), new Int32Array(0));
  }

  /** Descriptors are sent before the table tells of their regions. */
  #takeDescriptors(): void {
    if (this.#connection === undefined) return;
    for (let i = 0; i < MOST_MESSAGES && !this.#connection.closed; i++) {
      const count = this.#sharing.receiveMessage(this.#connection.fd, message, received);
      for (let n = 0; n < received.length && received[n]! >= 0; n++) {
        this.#given.add(new Descriptor(this.#calls, received[n]!), this.#table.generation);
      }
      if (count <= 0) return;
    }
  }

  async #receive(connection: UnixConnection): Promise<void> {
    const bytes = new Uint8Array(MESSAGE_BYTES);
    try {
      for (;;) {
        const descriptors: Descriptor[] = [];
        const count = await connection.receive(bytes, descriptors);
        if (this.binding.released) {
          for (const descriptor of descriptors) descriptor.close();
          return;
        }
        for (const descriptor of descriptors) this.#given.add(descriptor, this.#table.generation);
        if (count === 0) break;
        this.#arrived(descriptors.length > 0);
      }
    } catch (error) {
      if (!(error instanceof KvmError)) throw error;
    }
    if (!this.binding.released) this.#end();
  }

  /** A descriptor may be of a region that is known already. */
  #arrived(isMemory: boolean): void {
    if (isMemory && this.#table.generation === this.#generation) this.#generation = -1n;
    this.#tryRefresh();
  }

  /** What is wrong with the table is told to those who access memory; false when something is. */
  #tryRefresh(): boolean {
    try {
      this.refresh();
      return true;
    } catch (error) {
      if (!(error instanceof KvmError)) throw error;
      return false;
    }
  }

  #look(): void {
    this.#tryRefresh();
    if (this.binding.released) return;
    const { START, LENGTH } = OWNER_LOCK;
    if (this.#table.closed || this.#sharing.isLocked(this.#table.mapping.fd, START, LENGTH) === 0) this.#end();
  }

  #end(): void {
    if (this.#ended) return;
    this.#ended = true;
    clearInterval(this.#timer);
    callBack(this.#options.onEnd, this.#table.closed ? 'closed' : 'died');
  }
}

/** What a region shows, wherever it is; its own for each whose memory has no name. */
function placeOf(region: AttachedRegion): unknown {
  const { memory, offset, size } = region.told;
  return memory === 0n ? region : `${memory} ${offset} ${size}`;
}

/** Opens the table with locks of its own, and closes the descriptor. @throws KvmError EPROTO saying why it is none */
function openTable(
  calls: KvmCalls,
  sharing: SharingCalls,
  table: Descriptor,
): { readonly memory: TableMemory; readonly header: TableHeader } {
  const fail = (errno: number, name: CallName) => callError(name, errno, { explanation: 'the table' });
  try {
    const seals = sharing.getSeals(table.fd);
    if (seals < 0 || (~seals & (SEAL.SHRINK | SEAL.GROW)) !== 0) {
      const explanation =
        'the descriptor is no table of an address space: no memfd that is sealed against shrinking and growing';
      throw new KvmError(ERRNO.EPROTO, { syscall: 'attach', explanation });
    }
    const { size } = fstatSync(table.fd);
    const bytes = Buffer.alloc(HEADER.BYTES);
    readSync(table.fd, bytes, 0, bytes.length, 0);
    const header = checkedHeader(new DataView(bytes.buffer, bytes.byteOffset, bytes.length), size);
    const own = sharing.reopen(table.fd);
    if (own < 0) throw fail(own, 'reopen');
    const mapping = header.shape.tableBytes > VIEW_WINDOW ? undefined : TableMemory.map(calls, own, size);
    if (mapping === undefined) throw fail(ERRNO.ENOMEM, 'mmap');
    return { memory: new TableMemory(mapping, header.shape), header };
  } finally {
    table.close();
  }
}
