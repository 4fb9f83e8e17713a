import { inspect } from 'node:util';
import { checkBoolean, checkDoubles, checkFunction, checkOptions, checkSize, toU64 } from '../base/arguments.ts';
import { KvmError, outOfRange } from '../base/errors.ts';
import { type Range, RangeTable } from '../base/range-table.ts';
import { counted } from '../base/text.ts';
import type { U64 } from '../base/u64.ts';
import { callFailure } from '../calls/failure.ts';
import type { CallName } from '../calls/signatures.ts';
import { CLEAR_DIRTY_LOG_RULES, type DirtyLogContext, getDirtyLogRules } from '../rules/dirty-log.ts';
import { explain } from '../rules/rule.ts';
import { ERRNO } from '../uapi/errno.ts';
import { MEM } from '../uapi/flags.ts';
import { asIdOf, slotIdOf } from '../uapi/slot-word.ts';
import { type BitmapLoops, countBits, forEachBit, forEachBitRun, loopsFor, newBatch } from './bitmap-loops.ts';
import { DirtyBitmap } from './dirty-bitmap.ts';
import type { DirtyRing } from './dirty-ring.ts';
import { splitGpa } from './gpa.ts';
import type { Memslot, MemslotWatcher } from './memslots.ts';
import { PageSet } from './page-set.ts';
import type { RegionSet } from './region-set.ts';
import { type SharedPart, sharedParts, spreadDirt } from './slot-aliases.ts';
import type { SpaceSlots } from './space-slots.ts';

/** A run of guest frames that are dirty. */
export interface DirtyRun {
  readonly gfn: number;
  readonly npages: number;
}

/** Dirty pages of a memslot that went before they were collected. */
export interface RemovedPages {
  readonly slot: Memslot;
  /** The frames as they were. */
  readonly runs: readonly DirtyRun[];
}

/** How a VM's kernel reports dirty pages. */
export interface DirtyTracking {
  /** Bits of DIRTY_LOG that MANUAL_DIRTY_LOG_PROTECT2 was enabled with. */
  readonly manualProtect: number;
  /** Bytes of each vCPU's ring; 0 = bitmaps. */
  readonly ringBytes: number;
  readonly ringWithBitmap: boolean;
  /** Whether a vCPU is in the guest, and may store at any time. */
  readonly running: boolean;
  /** The rings of the vCPUs there are. */
  rings(): Iterable<DirtyRing>;
  /** Everybody who collects this VM's dirty pages, by address space: one harvest serves all. */
  readonly collectors: Map<number, DirtyPages>;
  /** In TypeScript, or the addon's. */
  readonly bitmapLoops: BitmapLoops;
}

/** A slot's bitmap, by the guest frames it covers. */
class SlotLog implements Range {
  readonly slot: Memslot;
  readonly bitmap: DirtyBitmap;
  start: number;

  constructor(slot: Memslot, bitmap: DirtyBitmap) {
    this.slot = slot;
    this.bitmap = bitmap;
    this.start = slot.baseGfn;
  }

  get end(): number {
    return this.start + this.slot.npages;
  }

  /** Whether this is of the same memory. */
  isOf({ npages, hva }: Memslot): boolean {
    return this.slot.npages === npages && BigInt(this.slot.hva) === BigInt(hva);
  }
}

/** A process may have some 65,000 mappings, and the guest's memory needs them, too. */
const MAPPED_BITMAPS = 1024;

const COLLECT_OPTIONS = { clear: true } as const;

const isUnlogged = ({ slot }: SlotLog): boolean => (slot.flags & MEM.LOG_DIRTY_PAGES) === 0;

// No closures: a collection that finds nothing makes no object.
const forEachCollected = ({ log, page, npages }: SharedPart<SlotLog>, see: (page: number) => void): void =>
  log.bitmap.forEachIn(page, page + npages, see);
const markCollected = ({ bitmap }: SlotLog, page: number): void => bitmap.set(page);

/** A slot that went, with what was not collected of it: it may have been made anew, or gone for good. */
interface GoneSlot {
  readonly log: SlotLog;
  readonly pending: PageSet;
}

/** Most collections find no slot gone. */
const NOTHING: readonly RemovedPages[] = Object.freeze([]);

/**
 * Which pages of a VM changed: by its vCPUs and by the kernel, as KVM reports them (in bitmaps or rings), and by this
 * process through typed access and through mappings, of which KVM knows nothing.
 *
 * Pages keep being dirty when their region moves or changes READONLY, and when the vCPU goes that stored to them. A
 * region that is added is new as a whole, and nothing is told of what was in it. Where regions show the same part of a mapping, a page is dirty at each of
 * its addresses, of which the kernel tells one. Other mappings of the same memfd or file are other memory here.
 *
 * @example
 * using dirty = vm.dirtyPages.start();
 * await vcpu.run();
 * for (const { gfn, npages } of dirty.collect().runs()) console.log(gfn, npages);
 */
export class DirtyPages implements MemslotWatcher {
  readonly #space: RegionSet;
  readonly #slots: SpaceSlots;
  readonly #tracking: DirtyTracking;
  readonly #logs = new RangeTable<SlotLog>();
  readonly #bySlot = new Map<Memslot, SlotLog>();
  /** By the last collect. */
  #removed: readonly RemovedPages[] = NOTHING;
  /** Since the last collect, by their first frames; of one, in the order in which they went. */
  readonly #gone = new Map<number, GoneSlot[]>();
  /** Since the last collect: written by us, harvested from rings, and what the kernel said before it forgot. */
  #pending = new PageSet();
  /** What slots show of each other's host memory; undefined after slots came or went. */
  #shared: readonly SharedPart<SlotLog>[] | undefined;
  #started = false;
  /** Why there is nothing to collect any more. */
  #ended: string | undefined;
  /** How many are going through what was collected. */
  #walks = 0;

  constructor(space: RegionSet, slots: SpaceSlots, tracking: DirtyTracking) {
    this.#space = space;
    this.#slots = slots;
    this.#tracking = tracking;
  }

  get started(): boolean {
    return this.#started;
  }

  /**
   * Turns LOG_DIRTY_PAGES on for every region, those added later included, and starts to note our own writes. Does
   * nothing when it is on already.
   * @throws KvmError ENOMEM; EBADF when the VM is closed, or bound to another address space: `vm.dirtyPages` is another then
   */
  start(): this {
    if (this.#started) return this;
    if (this.#ended !== undefined) throw this.#notStarted('start');
    const { memslots } = this.#slots;
    this.#slots.setLogging(true);
    memslots.watch(this);
    for (const slot of memslots.inSpace(this.#slots.asId)) this.slotAdded(slot);
    this.#tracking.collectors.set(this.#slots.asId, this);
    // What others wrote until now is not asked for.
    this.#space.written.gather();
    this.#space.written.record(this.#pending);
    this.#started = true;
    return this;
  }

  /** Turns it off and forgets what was collected. Does nothing when it is off. @throws KvmError */
  stop(): void {
    if (!this.#started) return;
    this.#release();
    if (!this.#slots.memslots.closed) this.#slots.setLogging(false);
  }

  [Symbol.dispose](): void {
    this.stop();
  }

  /**
   * Fetches what became dirty since the last time; {@link pages}, {@link runs} and {@link count} then tell it.
   * The pages are tracked anew from here on: read their contents afterwards, and no change is missed.
   * With `clear: false` and manual protection (MANUAL_DIRTY_LOG_PROTECT2) that is left to {@link clear}. When it fails, the next one
   * tells all of it.
   * @throws KvmError ENOENT when LOG_DIRTY_PAGES was taken from a slot by hand: nobody knows what is stored there until it is logged again, and then all of it
   * is dirty; EBUSY while what was collected is gone through; ENXIO, EINVAL, EBADF
   */
  collect(options?: { readonly clear?: boolean }): this {
    const clear =
      options === undefined || checkBoolean(checkOptions(options, COLLECT_OPTIONS).clear ?? true, 'options.clear');
    this.#assertStarted('collect');
    if (this.#walks > 0) {
      const explanation = 'the pages that were collected are just being gone through: collect when that is over';
      throw new KvmError(ERRNO.EBUSY, { syscall: 'collect dirty pages', explanation });
    }
    this.#space.written.gather();
    this.#assertLogged();
    if (this.#tracking.ringBytes !== 0) this.harvest();
    if (this.#usesBitmaps) this.#fetchAll(clear);
    else for (const { bitmap } of this.#logs.entries) bitmap.clear();
    this.#removed = this.#gone.size === 0 ? NOTHING : this.#takeGone();
    if (!this.#pending.empty) this.#takePending();
    this.#shared ??= sharedParts(this.#logs.entries, this.#space.pageSize);
    spreadDirt(this.#shared, forEachCollected, markCollected);
    return this;
  }

  /**
   * With manual protection, tracks the collected pages of a range anew (all of them by default): call it before their
   * contents are read. Without, {@link collect} has done so already, and nothing happens.
   * @throws KvmError EINVAL, EBADF
   */
  clear(gpa: U64 = 0, size: U64 = 1n << 64n): void {
    const { page } = splitGpa(gpa);
    const behind = BigInt(gpa) + (size === 1n << 64n ? size : toU64(size, 'size'));
    this.#assertStarted('clear');
    if (!this.#manual) return;
    const { pageSize } = this.#space;
    const first = Math.floor(page / pageSize);
    const end = Math.ceil(Number(behind) / pageSize);
    for (const log of this.#logs.entries) {
      if (log.end <= first || log.start >= end) continue;
      this.#clearPart(log, Math.max(first, log.start) - log.start, Math.min(end, log.end) - log.start);
    }
  }

  /**
   * What was dirty, by the last {@link collect}, of memslots that had been removed until then: nothing else tells of
   * these pages. Their memory may still be there (`slot.mapping`, if its owner didn't close it).
   */
  get removed(): readonly RemovedPages[] {
    return this.#removed;
  }

  /** The number of pages collected. */
  get count(): number {
    return this.#logs.entries.reduce((sum, { bitmap }) => sum + countBits(bitmap.words), 0);
  }

  /** Calls back with the frame number of every page collected, in ascending order. */
  forEachPage(callback: (gfn: number) => void): void {
    checkFunction(callback, 'callback');
    this.#walk((words, start) => forEachBit(words, start, callback));
  }

  /** Calls back with every run of pages collected, in ascending order, across the seams between memslots too. */
  forEachRun(callback: (gfn: number, npages: number) => void): void {
    checkFunction(callback, 'callback');
    let first = 0;
    let end = 0;
    const batch = newBatch();
    this.#walk((words, start) => {
      forEachBitRun(this.#loopsFor(words), words, start, batch, (gfn, npages) => {
        if (gfn !== end) {
          if (end > first) callback(first, end - first);
          first = gfn;
        }
        end = gfn + npages;
      });
    });
    if (end > first) callback(first, end - first);
  }

  /** The frame numbers of the pages collected, in ascending order. */
  pages(): Float64Array {
    const gfns = new Float64Array(this.count);
    this.pagesInto(gfns);
    return gfns;
  }

  /**
   * Fills an array with the frame numbers of the pages collected, from frame `from` on and in ascending order: a
   * list in as much memory as you like, and the fastest way through all of them.
   * @returns how many; fewer than `into.length` when there are no more. What is behind them in the array has no meaning
   * @throws TypeError, RangeError for another array or frame
   * @example
   * const gfns = new Float64Array(4096);
   * for (let count = dirty.pagesInto(gfns); count > 0; count = dirty.pagesInto(gfns, gfns[count - 1]! + 1)) send(gfns, count);
   */
  pagesInto(into: Float64Array, from = 0): number {
    checkDoubles(into, 'into');
    checkSize(from, 'from');
    let next = 0;
    for (const { bitmap, start, end } of this.#logs.entries) {
      if (next === into.length) break;
      if (end <= from) continue;
      const { words } = bitmap;
      next = this.#loopsFor(words).list(words, start, Math.max(0, from - start), into, next);
    }
    return next;
  }

  /**
   * Fills an array with the runs of pages collected, from frame `from` on and in ascending order, across the seams between memslots
   * too: for each the frame number of its first page, and how many pages it has. A run that `from` is inside of begins there.
   * @returns how many runs; fewer than `into.length / 2` when there are no more. What is behind them in the array has no meaning
   * @throws TypeError, RangeError for another array, one of an odd length, or another frame
   * @example
   * const runs = new Float64Array(2 * 1024);
   * let from = 0;
   * for (let count = dirty.runsInto(runs); count > 0; count = dirty.runsInto(runs, from)) {
   *   send(runs, count);
   *   from = runs[2 * count - 2]! + runs[2 * count - 1]!;
   * }
   */
  runsInto(into: Float64Array, from = 0): number {
    checkDoubles(into, 'into');
    if (into.length % 2 !== 0) throw outOfRange('into.length', 'even: two numbers for each run', into.length);
    checkSize(from, 'from');
    let next = 0;
    for (const { bitmap, start, end } of this.#logs.entries) {
      if (next === into.length && (next === 0 || into[next - 2]! + into[next - 1]! !== start)) break;
      if (end <= from) continue;
      const { words } = bitmap;
      next = this.#loopsFor(words).listRuns(words, start, Math.max(0, from - start), into, next);
    }
    return next / 2;
  }

  /** The runs of pages collected, in ascending order. */
  runs(): DirtyRun[] {
    const runs: DirtyRun[] = [];
    this.forEachRun((gfn, npages) => {
      runs.push({ gfn, npages });
    });
    return runs;
  }

  /** Empties the vCPUs' rings, so that they can run on; the number of entries. What was in them is kept for collect. */
  harvest(): number {
    const { rings, collectors } = this.#tracking;
    let count = 0;
    for (const ring of rings.call(this.#tracking)) {
      count += ring.harvest((word, offset) => collectors.get(asIdOf(word))?.harvested(slotIdOf(word), offset));
    }
    if (count === 0) return 0;
    const { calls, vm } = this.#slots.memslots;
    const result = calls.resetDirtyRings(vm);
    if (result < 0) throw callFailure('resetDirtyRings', result, this.#slots.memslots);
    return count;
  }

  /** @internal An entry of a ring. Entries of slots that are gone are ignored, as the kernel does. */
  harvested(id: number, offset: number): void {
    const slot = this.#slots.memslots.get(id, this.#slots.asId);
    if (slot !== undefined && offset < slot.npages) this.#pending.add(slot.baseGfn + offset);
  }

  /** @internal */
  slotAdded(slot: Memslot): void {
    if (slot.asId !== this.#slots.asId || (slot.flags & MEM.LOG_DIRTY_PAGES) === 0) return;
    const log = new SlotLog(slot, this.#resurrect(slot) ?? this.#newBitmap(slot));
    this.#shared = undefined;
    this.#bySlot.set(slot, log);
    this.#logs.insert(log);
  }

  /** @internal */
  slotMoved(slot: Memslot): void {
    const log = this.#bySlot.get(slot);
    if (log === undefined) return;
    this.#logs.remove(log);
    const pending = this.#pending.take(log.start, log.end);
    this.#pending.addAll(pending, slot.baseGfn - log.start);
    log.start = slot.baseGfn;
    this.#logs.insert(log);
  }

  /** @internal What was stored before that, nobody tells: where the slot is one of ours, all of it may have been. */
  slotLogged(slot: Memslot): void {
    const log = this.#bySlot.get(slot);
    if (log === undefined) this.slotAdded(slot);
    else this.#pending.addRange(log.start, log.end);
  }

  /** @internal What the kernel is going to forget is asked for now. */
  slotChanging(slot: Memslot, goes: boolean): void {
    const log = this.#bySlot.get(slot);
    if (log === undefined) return;
    if (this.#tracking.ringBytes !== 0) this.harvest();
    const isKnown = !this.#usesBitmaps || this.#ask(log);
    // A guest that runs may store after the answer, and nobody can be asked when the slot is gone.
    if (!isKnown || (goes && this.#tracking.running)) this.#pending.addRange(log.start, log.end);
  }

  /** @internal */
  slotRemoved(slot: Memslot): void {
    const log = this.#bySlot.get(slot);
    if (log === undefined) return;
    this.#shared = undefined;
    this.#bySlot.delete(slot);
    this.#logs.remove(log);
    const gone = { log, pending: this.#pending.take(log.start, log.end) };
    const others = this.#gone.get(log.start);
    if (others === undefined) this.#gone.set(log.start, [gone]);
    else others.push(gone);
  }

  /** @internal The VM is closed, or has other memory: nothing of this is its any more. */
  end(why: string): void {
    this.#ended ??= why;
    this.#release();
  }

  /** Forgets everything without a call to the kernel. */
  #release(): void {
    if (!this.#started) return;
    this.#started = false;
    this.#slots.memslots.unwatch(this);
    this.#tracking.collectors.delete(this.#slots.asId);
    this.#space.written.forget(this.#pending);
    this.#pending = new PageSet();
    for (const slot of [...this.#bySlot.keys()]) this.slotRemoved(slot);
    this.#forgetGone();
    this.#removed = NOTHING;
  }

  [inspect.custom](): string {
    if (!this.#started) return 'DirtyPages (stopped)';
    const how = this.#tracking.ringBytes === 0 ? 'log' : `ring of ${this.#tracking.ringBytes} bytes`;
    return `DirtyPages (${how}${this.#manual ? ', manual protect' : ''}), ${counted(this.count, 'page')} collected in ${counted(this.#logs.length, 'memslot')}`;
  }

  /** Through what was collected, whatever becomes of the regions meanwhile. */
  #walk(see: (words: Uint32Array, start: number) => void): void {
    this.#walks++;
    try {
      for (const { bitmap, start } of [...this.#logs.entries]) see(bitmap.words, start);
    } finally {
      this.#walks--;
    }
  }

  get #manual(): boolean {
    return this.#tracking.manualProtect !== 0 && this.#usesBitmaps;
  }

  #loopsFor(words: Uint32Array): BitmapLoops {
    return loopsFor(words, this.#tracking.bitmapLoops);
  }

  #newBitmap({ npages }: Memslot): DirtyBitmap {
    const { calls } = this.#slots.memslots;
    const isMapped = this.#usesBitmaps && this.#bySlot.size < MAPPED_BITMAPS;
    return new DirtyBitmap(calls, npages, isMapped ? calls.pageSize : undefined);
  }

  get #usesBitmaps(): boolean {
    return this.#tracking.ringBytes === 0 || this.#tracking.ringWithBitmap;
  }

  /** The bitmap of a slot that is made anew, as it was; what was pending is so again. */
  #resurrect(slot: Memslot): DirtyBitmap | undefined {
    const gone = this.#gone.get(slot.baseGfn) ?? [];
    // The one that went last: the same memory may have gone from there before.
    const index = gone.findLastIndex(({ log }) => log.isOf(slot));
    if (index < 0) return undefined;
    const [{ log, pending }] = gone.splice(index, 1) as [GoneSlot];
    this.#pending.addAll(pending);
    return log.bitmap;
  }

  /** What was dirty of slots that went. */
  #takeGone(): readonly RemovedPages[] {
    const gone = [...this.#gone.values()].flat().filter(({ pending }) => !pending.empty);
    if (gone.length > 0) this.#tellOthersOf(gone);
    this.#forgetGone();
    return gone.map(({ log, pending }) => ({ slot: log.slot, runs: runsOf(pending) }));
  }

  #takePending(): void {
    this.#pending.forEach((gfn) => {
      const log = this.#logs.find(gfn);
      log?.bitmap.set(gfn - log.start);
    });
    this.#pending.clear();
  }

  /** What was dirty of slots that went may be shown by others. */
  #tellOthersOf(gone: readonly GoneSlot[]): void {
    const pendingOf = new Map(gone.map(({ log, pending }) => [log, pending] as const));
    spreadDirt(
      sharedParts([...pendingOf.keys(), ...this.#logs.entries], this.#space.pageSize),
      ({ log }, see) => {
        pendingOf.get(log)?.forEach((gfn) => {
          see(gfn - log.start);
        });
      },
      (log, page) => {
        if (!pendingOf.has(log)) log.bitmap.set(page);
      },
    );
  }

  #forgetGone(): void {
    for (const { log } of [...this.#gone.values()].flat()) log.bitmap.close();
    this.#gone.clear();
  }

  /** Keeps what the kernel knows of a slot; false when it doesn't say. */
  #ask({ slot, start }: SlotLog): boolean {
    const { calls, vm } = this.#slots.memslots;
    const bitmap = new DirtyBitmap(calls, slot.npages);
    const result = calls.getDirtyLog(vm, slot.word, bitmap.bytes);
    forEachBit(bitmap.words, start, (gfn) => this.#pending.add(gfn));
    bitmap.close();
    return result >= 0;
  }

  /** Fetches every slot's bitmap. Where one fails, what the kernel gave before that is kept for the next time. */
  #fetchAll(clear: boolean): void {
    const logs = this.#logs.entries;
    let fetched = 0;
    try {
      for (; fetched < logs.length; fetched++) this.#fetch(logs[fetched]!, clear);
    } catch (error) {
      for (const { bitmap, start } of logs.slice(0, fetched)) {
        forEachBit(bitmap.words, start, (gfn) => this.#pending.add(gfn));
      }
      throw error;
    }
  }

  #fetch(log: SlotLog, clear: boolean): void {
    const { calls, vm } = this.#slots.memslots;
    const result = calls.getDirtyLog(vm, log.slot.word, log.bitmap.bytes);
    if (result < 0) {
      const explanation = explain(getDirtyLogRules(calls.arch), this.#context(log.slot), result);
      throw this.#failure('getDirtyLog', result, log.slot, explanation);
    }
    if (clear && this.#manual && countBits(log.bitmap.words) > 0)
      this.#clearBits(log.slot, 0, log.slot.npages, log.bitmap.bytes);
  }

  #clearPart(log: SlotLog, first: number, end: number): void {
    const { firstPage, numPages, bits } = log.bitmap.part(first, end);
    this.#clearBits(log.slot, firstPage, numPages, bits);
  }

  #clearBits(slot: Memslot, firstPage: number, numPages: number, bits: Uint8Array): void {
    const { calls, vm } = this.#slots.memslots;
    const result = calls.clearDirtyLog(vm, slot.word, firstPage, numPages, bits);
    if (result >= 0) return;
    const context = { ...this.#context(slot), firstPage: BigInt(firstPage), numPages };
    throw this.#failure('clearDirtyLog', result, slot, explain(CLEAR_DIRTY_LOG_RULES, context, result));
  }

  #context(slot: Memslot): DirtyLogContext {
    const { limits } = this.#slots.memslots;
    return {
      slot: slot.word,
      userSlots: limits.userSlots,
      addressSpaces: limits.addressSpaces,
      // Where there are only rings, nobody asks for a log.
      ringOnly: false,
      existing: { ...slot, hva: BigInt(slot.hva) },
    };
  }

  #failure(call: CallName, errno: number, slot: Memslot, explanation: string | undefined): KvmError {
    return callFailure(call, errno, this.#slots.memslots, {
      slot: slot.id,
      gpa: slot.baseGfn * this.#space.pageSize,
      size: slot.npages * this.#space.pageSize,
      explanation,
    });
  }

  #assertLogged(): void {
    const unlogged = this.#logs.entries.find(isUnlogged);
    if (unlogged === undefined) return;
    const explanation = `LOG_DIRTY_PAGES was taken from slot ${unlogged.slot.id} by hand: give it back (all of the slot is dirty then), or delete the slot`;
    throw this.#failure('getDirtyLog', ERRNO.ENOENT, unlogged.slot, explanation);
  }

  #assertStarted(what: string): void {
    if (!this.#started) throw this.#notStarted(what);
  }

  #notStarted(what: string): KvmError {
    return new KvmError(this.#ended === undefined ? ERRNO.ENOENT : ERRNO.EBADF, {
      syscall: `${what} dirty pages`,
      explanation: this.#ended ?? 'dirty tracking is not started',
    });
  }
}

/** @param pages taken out of others, and so in ascending order */
function runsOf(pages: PageSet): DirtyRun[] {
  const runs: { gfn: number; npages: number }[] = [];
  pages.forEach((gfn) => {
    const last = runs.at(-1);
    if (last !== undefined && last.gfn + last.npages === gfn) last.npages++;
    else runs.push({ gfn, npages: 1 });
  });
  return runs;
}
