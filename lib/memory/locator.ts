import { hex, KvmError } from '../base/errors.ts';
import type { U64 } from '../base/u64.ts';
import { callError } from '../calls/failure.ts';
import { VIEW_WINDOW } from '../calls/kvm-calls.ts';
import { ERRNO } from '../uapi/errno.ts';
import { placeAddresses } from './address-loops.ts';
import { advance, joinGpa, type SplitGpa, splitGpa } from './gpa.ts';
import type { GpaTranslation, MemoryLookup, MemoryRange, RemoteChanges } from './lookup.ts';
import type { MemoryWindow } from './memory-window.ts';

/** Of each place: the address of byte 0 of its window, and the range of the window's bytes that the region has. */
const BASE = 0;
const LOW = 1;
const HIGH = 2;
const BOUNDS = 3;
const NO_BUCKETS = new Uint32Array(0);
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
  #base = 0;
  #low = 0;
  #high = -1;
  #window: MemoryWindow | undefined;
  #view: DataView | undefined;
  /** Whether ranges have places. */
  #isSpread = false;
  /** They haven't, and nobody else changes them: what was {@link HERE} still is. */
  #isHere: boolean;
  #windows: (MemoryWindow | undefined)[] = [];
  #views: (DataView | undefined)[] = [];
  #bounds = new Float64Array(0);
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
    this.#isHere = this.#remote === undefined;
    if (this.#remote !== undefined) this.#generation = Atomics.load(this.#remote.generation, 0);
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

  /** Offset in {@link window} of `size` bytes at `gpa`, or −1 when they are not in one window. */
  at(gpa: U64, size: number): number {
    // Short, so that it becomes a part of whoever asks.
    if (this.#isHere && typeof gpa === 'number') {
      const at = offsetIn(this.#base, this.#low, this.#high, gpa, size);
      if (at >= 0) return at;
    }
    return this.#atPlace(gpa, size);
  }

  #atPlace(gpa: U64, size: number): number {
    if (this.#remote !== undefined) this.#lookForChanges(this.#remote);
    if (typeof gpa === 'number') {
      const place = this.#isSpread ? this.#placeOf(gpa) : HERE;
      const at =
        place === HERE ? offsetIn(this.#base, this.#low, this.#high, gpa, size) : this.#inPlace(place, gpa, size);
      if (at < 0) return this.#seek(gpa, size);
      this.#place = place;
      return at;
    }
    if (typeof gpa !== 'bigint' || gpa > Number.MAX_SAFE_INTEGER) return -1;
    return this.at(Number(gpa), size);
  }

  /** Host virtual address of `size` bytes at `gpa`, or −1 when they are not in one window. */
  hvaAt(gpa: number, size: number): number {
    const at = this.at(gpa, size);
    return at < 0 ? -1 : this.window!.hva + at;
  }

  /**
   * Host virtual addresses of `size` bytes at each of `gpas` from `first` on, `most` of them, as long as each is in one window: how
   * many. Where one is in the window of the one before it is a comparison.
   */
  hvasAt(gpas: Float64Array, first: number, most: number, size: number, into: Float64Array): number {
    if (this.#remote !== undefined) this.#lookForChanges(this.#remote);
    let count = 0;
    for (;;) {
      count += this.#hvasHere(gpas, first + count, into, count, most - count, size);
      if (count === most) return count;
      const hva = this.hvaAt(gpas[first + count]!, size);
      if (hva < 0) return count;
      into[count++] = hva;
    }
  }

  /** Those in the window of the last access. */
  #hvasHere(gpas: Float64Array, from: number, into: Float64Array, at: number, count: number, size: number): number {
    const { window } = this;
    if (window === undefined) return 0;
    const isHere = this.#place === HERE;
    const place = BOUNDS * this.#place;
    const base = isHere ? this.#base : this.#bounds[place + BASE]!;
    const first = isHere ? this.#low : this.#bounds[place + LOW]!;
    const high = base + (isHere ? this.#high : this.#bounds[place + HIGH]!) - size;
    return placeAddresses(gpas, from, into, at, count, base + first, high, window.hva + first);
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
      const part = bytes.subarray(done, done + count);
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

  /** The place that the address's bucket names; {@link HERE}, which has nothing then, outside all of them. */
  #placeOf(gpa: number): number {
    const bucket = (gpa - this.#first) * this.#scale;
    return bucket >= 0 && bucket < this.#buckets.length ? this.#buckets[bucket | 0]! : HERE;
  }

  /** Offset of `size` bytes at `gpa` in the window of a place; −1 where they are not, or there is no window. */
  #inPlace(place: number, gpa: number, size: number): number {
    const bounds = this.#bounds;
    const first = BOUNDS * place;
    return offsetIn(bounds[first + BASE]!, bounds[first + LOW]!, bounds[first + HIGH]!, gpa, size);
  }

  #seek(gpa: number, size: number): number {
    const { ranges } = this.#lookup;
    if (gpa > Number.MAX_SAFE_INTEGER) return -1;
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
    if (at < 0) return this.#look(ranges.entries[entry]!, place, gpa, size);
    this.#place = place;
    return at;
  }

  /** Asks the range for its window, and remembers that. */
  #look({ start, end, offset, mapping }: R, place: number, gpa: number, size: number): number {
    // Where byte 0 of the mapping would be.
    const origin = start - offset;
    const index = Math.floor((gpa - origin) / VIEW_WINDOW);
    const window = mapping.window(index);
    if (window === undefined) return -1;
    const base = origin + index * VIEW_WINDOW;
    const high = Math.min(window.length, Math.min(end, Number.MAX_SAFE_INTEGER) - base);
    const low = Math.max(0, start - base);
    if (place === HERE) {
      this.#window = window;
      this.#view = window.view;
      this.#base = base;
      this.#low = low;
      this.#high = high;
    } else {
      this.#windows[place] = window;
      this.#views[place] = window.view;
      this.#bounds[BOUNDS * place + BASE] = base;
      this.#bounds[BOUNDS * place + LOW] = low;
      this.#bounds[BOUNDS * place + HIGH] = high;
    }
    this.#place = place;
    return offsetIn(base, low, high, gpa, size);
  }

  /** Empty places, for so many ranges. */
  #makePlaces(ranges: number): void {
    this.#window = undefined;
    this.#view = undefined;
    this.#high = -1;
    this.#windows = new Array<MemoryWindow | undefined>(ranges + 1).fill(undefined);
    this.#views = new Array<DataView | undefined>(ranges + 1).fill(undefined);
    this.#bounds = new Float64Array(BOUNDS * (ranges + 1));
    for (let place = 0; place <= ranges; place++) this.#bounds[BOUNDS * place + HIGH] = -1;
    this.#buckets = NO_BUCKETS;
    this.#isSpread = false;
    this.#isHere = this.#remote === undefined;
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
    this.#buckets = new Uint32Array(bucketOf(this.#first + span - 1) + 1);
    for (let entry = 0; entry < length; entry++) {
      this.#buckets.fill(entry + 1, bucketOf(ranges.startAt(entry)), bucketOf(ranges.endAt(entry) - 1) + 1);
    }
    this.#isSpread = true;
    this.#isHere = false;
  }
}

/** Offset of `size` bytes at `gpa` from `base` on; −1 where they are not in [low, high). */
function offsetIn(base: number, low: number, high: number, gpa: number, size: number): number {
  const offset = gpa - base;
  // An integer from here on, which the DataView need not make one of again.
  const at = offset | 0;
  return at === offset && at >= low && at <= high - size ? at : -1;
}
