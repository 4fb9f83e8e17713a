import { hex, KvmError } from '../base/errors.ts';
import { partOf } from '../base/part-of.ts';
import type { U64 } from '../base/u64.ts';
import { callError } from '../calls/failure.ts';
import { type KvmCalls, VIEW_WINDOW } from '../calls/kvm-calls.ts';
import { ERRNO } from '../uapi/errno.ts';
import { placeAddresses } from './address-loops.ts';
import { advance, joinGpa, type SplitGpa, splitGpa } from './gpa.ts';
import type { GpaTranslation, MemoryLookup, MemoryRange, RemoteChanges } from './lookup.ts';
import type { MemoryWindow } from './memory-window.ts';

/** Of each place: how many bytes of its window the region has, and the offset of the first of them. */
const SPAN = 0;
const SHIFT = 1;
const NO_BUCKETS = new Int32Array(0);
/** Buckets for each region: where regions are spread evenly, none has two. */
const BUCKETS_EACH = 4;

/** The place of the last access, while ranges have none of their own. */
const HERE = 0;

/**
 * Finds addresses in a lookup, and remembers where they were.
 *
 * {@link HERE} is that of the last access, in members, which take half the time that arrays do. Once the ranges have stood still for
 * a while each has a place of its own instead, one further than its index, with its window of the last access there; and the span of
 * addresses is cut into buckets that name a place each, mostly the right one. What is needed lies side by side in arrays then: with
 * regions that have mappings of their own, each object on the way from one to the next would be a cache miss.
 */
export class Locator<R extends MemoryRange> {
  readonly #lookup: MemoryLookup<R>;
  readonly #remote: RemoteChanges | undefined;
  /** That of the places. */
  #generation = 0;
  /** Of {@link HERE}: the address of the first byte that the region has of the window, how many there are, and that one's offset. */
  #start = 0;
  #span = -1;
  #shift = 0;
  #window: MemoryWindow | undefined;
  #view: DataView | undefined;
  /** Whether ranges have places. */
  #isSpread = false;
  /** …and nobody else changes them. */
  #isOurs = false;
  #windows: (MemoryWindow | undefined)[] = [];
  #views: (DataView | undefined)[] = [];
  /** Of each place, as for {@link HERE}. */
  #starts = new Float64Array(0);
  #extents = new Int32Array(0);
  #calls: KvmCalls | undefined;
  /** The place of the last access. */
  #place = HERE;
  /** A place for each bucket of addresses. */
  #buckets = NO_BUCKETS;
  #first = 0;
  #scale = 0;
  /** Accesses elsewhere than the one before, while they have none. */
  #seeks = 0;

  constructor(lookup: MemoryLookup<R>) {
    this.#lookup = lookup;
    this.#remote = lookup.remote;
    if (this.#remote !== undefined) this.#generation = Atomics.load(this.#remote.generation, 0);
    this.#makePlaces(0);
  }

  /** Where memory is, in ascending order. */
  get ranges(): readonly R[] {
    return this.#lookup.ranges.entries;
  }

  /** The window that the last access was in. */
  get window(): MemoryWindow | undefined {
    return this.#place === HERE ? this.#window : this.#windows[this.#place];
  }

  /** Its view. */
  get view(): DataView {
    return (this.#place === HERE ? this.#view : this.#views[this.#place])!;
  }

  /** Forgets where accesses were: memory went, or is elsewhere. */
  forget(): void {
    this.#makePlaces(0);
  }

  // Nothing is called here, so that it becomes a part of whoever asks; and V8 needs ten instructions to make a truth of a member.
  /** Offset in {@link window} of `size` bytes at `gpa` where accesses were before; −1 elsewhere: {@link seek} knows more. */
  at(gpa: U64, size: number): number {
    return this.#isOurs === true ? this.#atBucket(gpa, size) : this.#atHere(gpa, size);
  }

  /** Offset in {@link window} of `size` bytes at `gpa`, or −1 when they are not in one window. */
  seek(gpa: U64, size: number): number {
    const at = this.at(gpa, size);
    return at >= 0 ? at : this.#seek(gpa, size);
  }

  /** As {@link at}, in the place of the last access, while nobody else changes that. */
  #atHere(gpa: U64, size: number): number {
    if (typeof gpa !== 'number') return -1;
    const offset = gpa - this.#start;
    // An integer from here on, which the DataView need not make one of again.
    const at = offset | 0;
    return at === offset && at >= 0 && at <= this.#span - size ? (at + this.#shift) | 0 : -1;
  }

  /** As {@link at}, in the place that the address's bucket names. */
  #atBucket(gpa: U64, size: number): number {
    if (typeof gpa !== 'number') return -1;
    // For an address outside all buckets any will do: it isn't in that one's place.
    const bucket = ((gpa - this.#first) * this.#scale) | 0;
    return this.#inPlace(this.#buckets[bucket]! | 0, gpa, size);
  }

  /** As {@link at}, in a place, which is that of the last access then. */
  #inPlace(place: number, gpa: number, size: number): number {
    const extents = this.#extents;
    const extent = place << 1;
    const offset = gpa - this.#starts[place]!;
    const at = offset | 0;
    if (at !== offset || at < 0 || at > extents[extent | SPAN]! - size) return -1;
    this.#place = place;
    return (at + extents[extent | SHIFT]!) | 0;
  }

  /** Host virtual address of `size` bytes at `gpa`, or −1 when they are not in one window. */
  hvaAt(gpa: number, size: number): number {
    const at = this.seek(gpa, size);
    return at < 0 ? -1 : this.window!.hva + at;
  }

  /**
   * Host virtual addresses of `size` bytes at each of `gpas` from `first` on, `most` of them, as long as each is in one window, and all in
   * memory of the same {@link calls}: how many.
   */
  hvasAt(gpas: Float64Array, first: number, most: number, size: number, into: Float64Array): number {
    if (this.#remote !== undefined) this.#lookForChanges(this.#remote);
    this.#calls = this.window?.calls;
    let count = 0;
    for (;;) {
      count += this.#hvasHere(gpas, first + count, into, count, most - count, size);
      if (count === most) return count;
      const hva = this.hvaAt(gpas[first + count]!, size);
      if (hva < 0) return count;
      const { calls } = this.window!;
      if (calls !== this.#calls && count > 0) return count;
      this.#calls = calls;
      into[count++] = hva;
    }
  }

  /** Whose memory the last {@link hvasAt} were of. */
  get calls(): KvmCalls | undefined {
    return this.#calls;
  }

  /** Those in the window of the last access. */
  #hvasHere(gpas: Float64Array, from: number, into: Float64Array, at: number, count: number, size: number): number {
    const { window } = this;
    if (window === undefined) return 0;
    const place = this.#place;
    const start = this.#starts[place]!;
    const span = this.#extents[2 * place + SPAN]!;
    const shift = this.#extents[2 * place + SHIFT]!;
    return placeAddresses(gpas, from, into, at, count, start, start + span - size, window.hva + shift);
  }

  find({ page, rest }: SplitGpa): GpaTranslation<R> | undefined {
    if (this.#remote !== undefined) this.#lookForChanges(this.#remote);
    const region = this.#lookup.ranges.find(page);
    if (region === undefined) return undefined;
    const inRegion = page - region.start + rest;
    if (inRegion >= region.size) return undefined;
    const offset = region.offset + inRegion;
    const { hva, fd = -1 } = region.mapping;
    return { region, offset, hva: hva + offset, fd, available: region.size - inRegion };
  }

  /** The addresses at which a byte of host memory is seen. */
  gpasOf(hva: number): U64[] {
    const found: U64[] = [];
    for (const { start, size, offset, mapping } of this.#lookup.ranges.entries) {
      const inRegion = hva - mapping.hva - offset;
      if (inRegion < 0 || inRegion >= size) continue;
      const at = { page: start, rest: 0 };
      advance(at, inRegion);
      found.push(joinGpa(at));
    }
    return found;
  }

  /** Moves bytes across regions until memory ends: how many. */
  transfer(from: SplitGpa, bytes: Uint8Array, write: boolean): number {
    const at = { ...from };
    let done = 0;
    while (done < bytes.length) {
      const found = this.find(at);
      if (found === undefined) break;
      const count = Math.min(bytes.length - done, found.available);
      const part = partOf(bytes, done, done + count);
      const { mapping } = found.region;
      const moved = write ? mapping.write(found.offset, part) : mapping.read(found.offset, part);
      done += moved;
      if (moved < count) break;
      advance(at, count);
    }
    return done;
  }

  /** @throws KvmError EFAULT with the first address that was not accessed, unless all were */
  requireAll(access: 'read' | 'write', gpa: U64, wanted: number, done: number): void {
    if (done === wanted) return;
    const at = splitGpa(gpa);
    advance(at, done);
    throw this.fault(access, at, wanted - done, done > 0 ? ` (${done} of ${wanted} bytes are done)` : '');
  }

  fault(access: 'read' | 'write', at: SplitGpa, size: number, note = ''): KvmError {
    const found = this.find(at);
    const gpa = joinGpa(at);
    const why =
      found === undefined
        ? this.#lookup.describe(at)
        : `${found.region} has a page there that cannot be ${access === 'read' ? 'read' : 'written'}: ${found.region.mapping.whyNot(found.offset)}`;
    return new KvmError(ERRNO.EFAULT, { syscall: access, gpa, size, explanation: `${hex(gpa)}: ${why}${note}` });
  }

  notDirect(at: SplitGpa, size: number): KvmError {
    const gpa = joinGpa(at);
    const explanation = `${hex(gpa)} is in ${this.find(at)!.region}, which is not mapped directly: use read and write`;
    return callError('view', ERRNO.EACCES, { gpa, size, explanation });
  }

  #lookForChanges({ generation, refresh }: RemoteChanges): void {
    const now = Atomics.load(generation, 0);
    if (now === this.#generation) return;
    refresh();
    this.forget();
    this.#generation = now;
  }

  #seek(gpa: U64, size: number): number {
    if (typeof gpa !== 'number' && typeof gpa !== 'bigint') return -1;
    if (gpa > Number.MAX_SAFE_INTEGER) return -1;
    if (typeof gpa === 'bigint') return this.seek(Number(gpa), size);
    if (this.#remote !== undefined) {
      this.#lookForChanges(this.#remote);
      const at = this.#isSpread ? this.#atBucket(gpa, size) : this.#inPlace(HERE, gpa, size);
      if (at >= 0) return at;
    }
    const { ranges } = this.#lookup;
    if (!this.#isSpread) {
      if (ranges.length <= 1 || this.#seeks < ranges.length) {
        const range = ranges.find(gpa);
        if (range === undefined) return -1;
        this.#seeks++;
        return this.#look(range, HERE, gpa, size);
      }
      this.#givePlaces();
    }
    const entry = ranges.indexOf(gpa);
    if (entry < 0) return -1;
    const place = entry + 1;
    const at = this.#inPlace(place, gpa, size);
    return at >= 0 ? at : this.#look(ranges.entries[entry]!, place, gpa, size);
  }

  /** Asks the range for its window, and remembers that. */
  #look({ start, end, offset, mapping }: R, place: number, gpa: number, size: number): number {
    // Where byte 0 of the mapping would be.
    const origin = start - offset;
    const index = Math.floor((gpa - origin) / VIEW_WINDOW);
    const window = mapping.window(index);
    if (window === undefined) return -1;
    const base = origin + index * VIEW_WINDOW;
    const shift = Math.max(0, start - base);
    const span = Math.min(window.length, Math.min(end, Number.MAX_SAFE_INTEGER) - base) - shift;
    if (place === HERE) {
      this.#window = window;
      this.#view = window.view;
    } else {
      this.#windows[place] = window;
      this.#views[place] = window.view;
    }
    if (place === HERE && this.#remote === undefined) {
      this.#start = base + shift;
      this.#span = span;
      this.#shift = shift;
    }
    this.#starts[place] = base + shift;
    this.#extents[2 * place + SPAN] = span;
    this.#extents[2 * place + SHIFT] = shift;
    return this.#inPlace(place, gpa, size);
  }

  /** Empty places, for so many ranges. */
  #makePlaces(ranges: number): void {
    this.#window = undefined;
    this.#view = undefined;
    this.#span = -1;
    // Each change of regions comes here: arrays of this length are used again.
    if (this.#starts.length !== ranges + 1) {
      this.#windows = new Array<MemoryWindow | undefined>(ranges + 1);
      this.#views = new Array<DataView | undefined>(ranges + 1);
      this.#starts = new Float64Array(ranges + 1);
      this.#extents = new Int32Array(2 * (ranges + 1));
    }
    this.#windows.fill(undefined);
    this.#views.fill(undefined);
    this.#extents.fill(-1);
    this.#buckets = NO_BUCKETS;
    this.#isSpread = false;
    this.#isOurs = false;
    this.#place = HERE;
    this.#seeks = 0;
  }

  /** Gives each range a place, and each bucket that of the last range that has a part of it. */
  #givePlaces(): void {
    const { ranges } = this.#lookup;
    const { length } = ranges;
    this.#makePlaces(length);
    this.#first = ranges.startAt(0);
    const span = ranges.endAt(length - 1) - this.#first;
    // Regions mostly begin at multiples of a power of two: so do buckets then.
    this.#scale = 2 ** -Math.floor(Math.log2(span / (BUCKETS_EACH * length)));
    const bucketOf = (gpa: number): number => Math.floor((gpa - this.#first) * this.#scale);
    this.#buckets = new Int32Array(bucketOf(this.#first + span - 1) + 1);
    for (let entry = 0; entry < length; entry++) {
      this.#buckets.fill(entry + 1, bucketOf(ranges.startAt(entry)), bucketOf(ranges.endAt(entry) - 1) + 1);
    }
    this.#isSpread = true;
    this.#isOurs = this.#remote === undefined;
  }
}
