import { inspect } from 'node:util';
import { checkBoolean, checkFunction, checkInstance, checkName, checkOptions, toU64 } from '../base/arguments.ts';
import { callBack } from '../base/callback.ts';
import { hex, hexRange, invalidReturnValue, KvmError } from '../base/errors.ts';
import { RangeTable } from '../base/range-table.ts';
import { counted, humanSize, table } from '../base/text.ts';
import type { U64 } from '../base/u64.ts';
import { isClosed } from '../calls/failure.ts';
import { explain, firstBroken } from '../rules/rule.ts';
import { ERRNO } from '../uapi/errno.ts';
import { advance, exactGpa, joinGpa, type SplitGpa, splitGpa } from './gpa.ts';
import { checkMemoryOptions, GuestMemory } from './guest-memory.ts';
import type { MemoryLookup } from './lookup.ts';
import { Mapping } from './mapping.ts';
import { HandlerError, MmioBus, type MmioHandlers, type MmioRegion, takeValue } from './mmio-bus.ts';
import { MemoryRegion, type Placement, type RegionOptions, type RegionOwner, toPlacement } from './region.ts';
import { PLACEMENT_RULES, type RegionContext, UNCHECKED_RULES } from './region-rules.ts';
import type { SpaceChange, SpaceFollower, SpaceUser } from './space-user.ts';
import { Undo } from './undo.ts';

export type Region = MemoryRegion | MmioRegion;

/** A range without a region. */
export interface Hole {
  readonly gpa: U64;
  readonly size: U64;
}

/** What a set of regions must know of the machine. */
export interface RegionSetOptions {
  readonly littleEndian: boolean;
  readonly pageSize: number;
}

type UnnumberedChange = Omit<SpaceChange, 'generation'>;

/** Changes that become one. */
interface ChangeGroup {
  readonly changes: UnnumberedChange[];
  readonly undo: Undo;
}

const NOUN = 'the address space';

let sets = 0;

/**
 * The books of an address space: its regions, sorted, none of which overlap; each RAM, a device's memory, or MMIO with
 * handlers. Every change of RAM or a device's memory is a transaction: it is made by all VMs, or by none, and then told to
 * all who follow, once and in order.
 */
export class RegionSet extends GuestMemory<MemoryRegion> implements RegionOwner {
  /** Identifies the space in this process. */
  readonly id = ++sets;
  /** The MMIO ranges. */
  readonly mmio: MmioBus;
  readonly #lookup: MemoryLookup<MemoryRegion>;
  readonly #table: RangeTable<MemoryRegion>;
  /** Weak, so that a space which outlives a dropped VM doesn't keep it. */
  readonly #users = new Map<WeakRef<SpaceUser>, WeakRef<SpaceUser>>();
  readonly #followers = new Set<SpaceFollower>();
  /** Changes that not everybody has heard of: there are some while one is told, if that makes others. */
  readonly #untold: SpaceChange[] = [];
  #telling = false;
  /** What {@link change} has done so far. */
  #group: ChangeGroup | undefined;
  #generation = 0;
  #holds = 0;
  readonly #state: { closed: boolean };

  constructor(options: RegionSetOptions) {
    const { littleEndian, pageSize } = checkMemoryOptions(options);
    const table = new RangeTable<MemoryRegion>();
    const mmio = new MmioBus('mmio', littleEndian, (start, end) => table.overlapping(start, end));
    // Not this: who has a binding asks for it, too.
    const state = { closed: false };
    const lookup: MemoryLookup<MemoryRegion> = {
      ranges: table,
      describe: (at) => {
        if (state.closed && table.length === 0) throw closedError('access');
        return describe(table, mmio, at);
      },
    };
    super(lookup, { littleEndian, pageSize });
    this.#state = state;
    this.#lookup = lookup;
    this.#table = table;
    this.mmio = mmio;
    mmio.whyClosed = () => (state.closed ? isClosed(NOUN) : undefined);
    mmio.settle = () => {
      for (const user of this.users) user.settle?.();
    };
  }

  /** How many changes of RAM and devices' memory there were. */
  get generation(): number {
    return this.#generation;
  }

  /** @internal Where memory is, for others who read and write it. */
  get lookup(): MemoryLookup<MemoryRegion> {
    return this.#lookup;
  }

  /** RAM and devices' memory, in ascending order of address. */
  get memoryRegions(): readonly MemoryRegion[] {
    return this.#table.entries;
  }

  /**
   * Calls back after each change, also those that a callback makes: everybody gets each of them once, in their order. What a
   * callback throws ends neither the change nor other callbacks; it is thrown later, in a task of its own.
   * @returns what ends it when it is closed
   */
  onChange(callback: (change: SpaceChange) => void): Disposable {
    return this.follow({ changed: checkFunction(callback, 'callback') });
  }

  /** @internal Tells somebody of changes, and of what is about to change. */
  follow(follower: SpaceFollower): Disposable {
    this.#followers.add(follower);
    return { [Symbol.dispose]: () => void this.#followers.delete(follower) };
  }

  /** @internal Keeps the regions, also when the space is closed, until {@link letGo}. */
  hold(): void {
    this.#assertOpen('bind');
    this.#holds++;
  }

  /** @internal */
  letGo(): void {
    this.#holds--;
    if (this.closed) this.#releaseWhenUnused();
  }

  get closed(): boolean {
    return this.#state.closed;
  }

  /**
   * Adds RAM: a slice of a mapping, at a guest physical address.
   * @throws KvmError EINVAL (unaligned, beyond the mapping …) or EEXIST (overlap) with an explanation
   */
  addRam(gpa: U64, mapping: Mapping, options: RegionOptions = {}): MemoryRegion {
    return this.#add('ram', gpa, mapping, options);
  }

  /** Adds a device's memory, passed through to the guest. Errors as for {@link addRam}. */
  addDevice(gpa: U64, mapping: Mapping, options: RegionOptions = {}): MemoryRegion {
    return this.#add('device', gpa, mapping, options);
  }

  /**
   * Adds handlers for a range of addresses, which may begin and end at any byte below 2^53, and at whole 4096-byte pages
   * from there on.
   * @throws KvmError EEXIST naming both ranges when it overlaps another region, EINVAL when it is empty, EBADF when the space is closed; RangeError
   */
  addMmio(gpa: U64, size: number, handlers: MmioHandlers, options: { readonly name?: string } = {}): MmioRegion {
    const name = checkName(checkOptions(options, { name: true }).name, 'options.name');
    this.#assertOpen('addMmio');
    return this.mmio.add(gpa, size, handlers, name);
  }

  /** Takes a region out; does nothing when it is out already. @throws KvmError when a VM's kernel refuses */
  remove(region: MemoryRegion): void {
    if (!this.#table.has(checkRegion(region))) return;
    this.#announce(region);
    const undo = new Undo(() => this.#conclude());
    for (const user of this.#live()) {
      undo.try(
        () => user.remove(region),
        () => user.add(region),
      );
    }
    this.#table.remove(region);
    this.#made({ kind: 'remove', region }, () => {
      try {
        this.#askAll((user) => user.add(region));
      } catch (error) {
        // It stays out, and nobody takes its memory back later.
        region.mapping.unpin();
        throw error;
      }
      this.#table.insert(region);
    });
  }

  /** Moves a region to another address, dirty bits kept. @throws KvmError EEXIST, EINVAL */
  move(region: MemoryRegion, gpa: U64): void {
    const start = exactGpa(gpa);
    this.#assertMember(region);
    const before = region.start;
    if (start === before) return;
    const placement = { ...slice(region), start, end: start + region.size };
    this.#require(UNCHECKED_RULES, 'move', this.#context(placement, region));
    this.#announce(region);
    const undo = new Undo(() => this.#conclude());
    for (const user of this.#live()) {
      undo.try(
        () => user.move(region, before, start),
        () => user.move(region, start, before),
      );
    }
    undo.try(
      () => this.#require(PLACEMENT_RULES, 'move', this.#context(placement, region)),
      () => {},
    );
    this.#place(region, start);
    this.#made({ kind: 'move', region, from: joinGpa({ page: before, rest: 0 }) }, () => {
      this.#askAll((user) => user.move(region, start, before));
      this.#place(region, before);
    });
  }

  /** Makes a region read-only for guests, or writable. Nothing is done when it is so already. @throws KvmError EINVAL */
  setReadOnly(region: MemoryRegion, readOnly: boolean): void {
    this.#assertMember(region);
    if (region.readOnly === checkBoolean(readOnly, 'readOnly')) return;
    const undo = new Undo(() => this.#conclude());
    for (const user of this.#live()) {
      undo.try(
        () => user.setReadOnly(region, readOnly),
        () => user.setReadOnly(region, !readOnly),
      );
    }
    region.readOnly = readOnly;
    this.#made({ kind: 'readOnly', region }, () => {
      this.#askAll((user) => user.setReadOnly(region, !readOnly));
      region.readOnly = !readOnly;
    });
  }

  /**
   * Makes several changes one: other threads and processes see all of them at once, with one generation, and callbacks are told
   * when the last is made. Is one refused, or does the function throw, all are taken back, those of MMIO ranges too, and nobody
   * hears of any. VMs make each as it is asked for, so that a guest which runs meanwhile may meet what is between. One
   * within another is a part of that, and is taken back by itself when it fails.
   * @returns what the function returns; it must not be a promise
   * @throws what the function throws; TypeError ERR_INVALID_RETURN_VALUE for a promise; AggregateError when a kernel refuses to take
   *   back what it did; KvmError EBADF
   * @example
   * space.change(() => {
   *   rom.remove();
   *   space.addRam(0xf_0000, shadow);
   * });
   */
  change<T>(callback: () => T): T {
    checkFunction(callback, 'callback');
    this.hold();
    const outer = this.#group;
    const group: ChangeGroup = { changes: [], undo: new Undo(() => this.#conclude()) };
    const restoreMmio = this.mmio.keep();
    let result: T;
    try {
      this.#group = group;
      result = callback();
      if (isThenable(result)) throw invalidReturnValue('no promise', 'callback', result);
    } catch (error) {
      this.#group = outer;
      restoreMmio();
      try {
        group.undo.takeBack(error);
      } finally {
        this.letGo();
      }
      throw error;
    }
    this.#group = outer;
    if (outer === undefined) this.#commit(group.changes);
    else {
      for (const change of group.changes) outer.changes.push(change);
      outer.undo.add(() => group.undo.takeBack(undefined));
    }
    this.letGo();
    return result;
  }

  /** The region at an address, whatever its kind. */
  find(gpa: U64): Region | undefined {
    const at = splitGpa(gpa);
    return this.#table.find(at.page) ?? this.mmio.find(gpa);
  }

  /** @internal Answers an access that took a guest out of KVM_RUN; false when nobody is there for it. */
  answerGuest(gpa: U64, data: Uint8Array, isStore: boolean): boolean {
    if (!isStore) return this.mmio.read(gpa, data);
    // First where almost all go; what is on the bus is in no region.
    return (this.mmio.find(gpa) === undefined && this.#storeReadOnly(gpa, data)) || this.mmio.write(gpa, data);
  }

  #storeReadOnly(gpa: U64, data: Uint8Array): boolean {
    const at = splitGpa(gpa);
    const region = this.#table.find(at.page);
    if (region?.onStore === undefined || !region.readOnly) return false;
    const offset = at.page - region.start + at.rest;
    if (offset + data.length > region.size) return false;
    try {
      region.onStore(offset, takeValue(data, this.littleEndian), data.length);
    } catch (error) {
      throw new HandlerError('store', region, offset, data.length, error);
    }
    return true;
  }

  /** All regions in ascending order of address, as they are when the first is asked for. */
  *regions(): Generator<Region> {
    const ranges = this.mmio.regions;
    let next = 0;
    for (const region of [...this.#table.entries]) {
      for (; next < ranges.length && ranges[next]!.start < region.start; next++) yield ranges[next]!;
      yield region;
    }
    yield* ranges.slice(next);
  }

  /** The ranges between regions, from address 0 to `end` (2^64 by default). */
  *holes(end: U64 = 1n << 64n): Generator<Hole> {
    const limit = end === 1n << 64n ? end : toU64(end, 'end');
    let at = 0n;
    for (const region of this.regions()) {
      const start = BigInt(region.start);
      if (start >= limit) break;
      if (start > at) yield { gpa: narrow(at), size: narrow(start - at) };
      at = BigInt(region.end);
    }
    if (at < limit) yield { gpa: narrow(at), size: narrow(limit - at) };
  }

  /** Those who follow it and are alive. */
  get users(): SpaceUser[] {
    return [...this.#live()];
  }

  /** @internal Gives a VM everything that is here, and all changes from now on. @throws KvmError as {@link addRam} */
  addUser(user: SpaceUser): void {
    this.#assertOpen('bind');
    const undo = new Undo(() => user.concluded?.());
    for (const region of this.#table.entries) {
      undo.try(
        () => user.add(region),
        () => user.remove(region),
      );
    }
    const weak = new WeakRef(user);
    this.#users.set(weak, weak);
  }

  /** @internal Takes its slots away from a VM, unless that is closed. */
  removeUser(user: SpaceUser): void {
    for (const weak of this.#users.keys()) {
      if (weak.deref() !== user) continue;
      if (!user.closed) for (const region of this.#table.entries) user.remove(region);
      user.release?.();
      this.#users.delete(weak);
    }
    if (this.closed) this.#releaseWhenUnused();
  }

  /** @internal A mapping reads otherwise than before: wherever it is shown, that is dirty. */
  memoryChanged(mapping: Mapping, offset: number, length: number): void {
    if (!this.written.on) return;
    for (const region of this.#table.entries) {
      const first = Math.max(offset, region.offset);
      const end = Math.min(offset + length, region.offset + region.size);
      if (region.mapping !== mapping || first >= end) continue;
      const at = { page: region.start, rest: 0 };
      advance(at, first - region.offset);
      this.written.mark(joinGpa(at), end - first);
    }
  }

  /** Gives the regions back: now, or when the last VM or binding goes. Does nothing the second time. */
  close(): void {
    this.#state.closed = true;
    this.#releaseWhenUnused();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  [inspect.custom](): string {
    const rows = [...this.regions()].map((region) => [
      hexRange(BigInt(region.start), region.size),
      humanSize(region.size),
      region.kind,
      region instanceof MemoryRegion ? `${region.mapping.kind} ${hex(region.hva)}` : '',
      region instanceof MemoryRegion && region.readOnly ? 'read-only' : '',
      region.name ?? '',
    ]);
    const head = `AddressSpace ${this.id}, ${counted(rows.length, 'region')}`;
    return rows.length === 0 ? head : `${head}\n${table(['gpa', 'size', 'kind', 'mapping, hva', '', 'name'], rows)}`;
  }

  #add(kind: 'ram' | 'device', gpa: U64, mapping: Mapping, options: RegionOptions): MemoryRegion {
    const syscall = kind === 'ram' ? 'addRam' : 'addDevice';
    const start = exactGpa(gpa);
    checkInstance(mapping, 'mapping', Mapping);
    const placement = toPlacement(start, mapping, options);
    // Not before the options are read: a getter may have closed either.
    this.#assertOpen(syscall);
    mapping.assertOpen(syscall);
    this.#require(UNCHECKED_RULES, syscall, this.#context(placement));
    const region = new MemoryRegion(this, kind, placement);
    const undo = new Undo(() => this.#conclude());
    for (const user of this.#live()) {
      undo.try(
        () => user.add(region),
        () => user.remove(region),
      );
    }
    undo.try(
      () => this.#require(PLACEMENT_RULES, syscall, this.#context(placement)),
      () => {},
    );
    mapping.pin(this);
    this.#table.insert(region);
    this.#made({ kind: 'add', region }, () => {
      this.#askAll((user) => user.remove(region));
      this.#table.remove(region);
      this.dropViews();
      mapping.unpin();
    });
    return region;
  }

  /** A region is about to go or to move: what was written to it through views is noted at the address that it has now. */
  #announce(region: MemoryRegion): void {
    for (const follower of this.#followers) follower.changing?.(region);
  }

  /** A change is made, by everybody; `undo` takes it back if it is one of several. */
  #made(change: UnnumberedChange, undo: () => void): void {
    this.dropViews();
    if (this.#group === undefined) {
      this.#commit([change]);
      return;
    }
    this.#group.changes.push(change);
    this.#group.undo.add(() => {
      undo();
      this.dropViews();
    });
  }

  #commit(changes: readonly UnnumberedChange[]): void {
    if (changes.length === 0) return;
    const generation = ++this.#generation;
    const numbered = changes.map((change) => ({ generation, ...change }));
    this.#conclude();
    this.committed(numbered);
    for (const change of numbered) this.#untold.push(change);
    this.#tellUntold();
    for (const { kind, region } of changes) if (kind === 'remove') region.mapping.unpin();
  }

  #tellUntold(): void {
    if (this.#telling) return;
    this.#telling = true;
    // Those that callbacks make come behind.
    for (const change of this.#untold) this.#tell(change);
    this.#untold.length = 0;
    this.#telling = false;
  }

  /** Nothing will be taken back any more. */
  #conclude(): void {
    if (this.#group === undefined) this.#askAll((user) => user.concluded?.());
  }

  #askAll(what: (user: SpaceUser) => void): void {
    for (const user of this.#live()) what(user);
  }

  #place(region: MemoryRegion, start: number): void {
    this.#table.remove(region);
    region.start = start;
    this.#table.insert(region);
  }

  #tell(change: SpaceChange): void {
    for (const follower of [...this.#followers]) {
      if (this.#followers.has(follower)) callBack((told) => follower.changed(told), change);
    }
  }

  #context(placement: Placement, except?: MemoryRegion): RegionContext {
    const { start, end } = placement;
    return {
      placement,
      pageSize: this.pageSize,
      memory: this.#table.overlapping(start, end, except),
      mmio: this.mmio.overlapping(start, end),
    };
  }

  #require(rules: typeof UNCHECKED_RULES, syscall: string, context: RegionContext): void {
    const rule = firstBroken(rules, context);
    if (rule === undefined) return;
    const { start, size } = context.placement;
    const errno = ERRNO[rule.errno];
    const gpa = joinGpa({ page: start, rest: 0 });
    throw new KvmError(errno, { syscall, gpa, size, explanation: explain(rules, context, errno) });
  }

  *#live(): Generator<SpaceUser> {
    for (const weak of this.#users.keys()) {
      const user = weak.deref();
      if (user === undefined || user.closed) this.#users.delete(weak);
      else yield user;
    }
  }

  #assertMember(region: MemoryRegion): void {
    this.#assertOpen('change region');
    if (!this.#table.has(checkRegion(region))) {
      throw new KvmError(ERRNO.EBADF, {
        syscall: 'change region',
        gpa: region.gpa,
        size: region.size,
        explanation: `${region} was removed from its address space`,
      });
    }
  }

  #assertOpen(syscall: string): void {
    if (this.closed) throw closedError(syscall);
  }

  #releaseWhenUnused(): void {
    if (this.#holds > 0) return;
    for (const user of this.#live()) if (user.onlyChecks !== true) return;
    for (const region of [...this.#table.entries]) {
      this.#table.remove(region);
      region.mapping.unpin();
    }
    this.dropViews();
    this.released();
  }

  /** Changes were made that are one, and nobody has heard of them yet. */
  protected committed(_changes: readonly SpaceChange[]): void {}

  /** The regions were given back, and there will be no others. */
  protected released(): void {}
}

const checkRegion = (region: MemoryRegion): MemoryRegion => checkInstance(region, 'region', MemoryRegion);

function slice({ mapping, offset, size, readOnly }: MemoryRegion) {
  return { mapping, offset, size, readOnly };
}

function isThenable(value: unknown): boolean {
  return typeof value === 'object' && value !== null && 'then' in value && typeof value.then === 'function';
}

function narrow(value: bigint): U64 {
  return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value;
}

function closedError(syscall: string): KvmError {
  return new KvmError(ERRNO.EBADF, { syscall, explanation: isClosed(NOUN) });
}

/** What is at an address that has no memory. */
function describe(table: RangeTable<MemoryRegion>, bus: MmioBus, at: SplitGpa): string {
  const mmio = bus.find(joinGpa(at));
  if (mmio !== undefined) return `that is ${mmio}, which has no memory`;
  const below = table.atOrBelow(at.page);
  const above = table.overlapping(below?.end ?? 0, Number.POSITIVE_INFINITY);
  const near = [below, above].filter((region) => region !== undefined);
  return near.length === 0 ? 'there are no memory regions' : `there is no memory; the nearest is ${near.join(' and ')}`;
}
