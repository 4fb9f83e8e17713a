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

/** Buckets for each region: where regions are spread evenly, none has two. */
const BUCKETS_EACH = 4;
const NO_VIEW = new DataView(new ArrayBuffer(0));

/**
 * What a region has of the window in which an access was. It is one object that fits a line of the cache: with regions that have mappings of
 * their own, each object on the way from one to the next would be a cache miss.
 */
export class Place {
  /** Address of the first byte. NaN while there is none: nothing is there then, and V8 keeps a double here from the start. */
  start = Number.NaN;
  /** Bytes. */
  span = 0;
  /** Offset of the first byte in the window. */
  shift = 0;
  view: DataView = NO_VIEW;
  window: MemoryWindow | undefined;

  // Nothing is called here, so that it becomes a part of whoever asks.
  /** Offset in the window of `size` bytes at `gpa`, or −1 when they are not in this place. */
  at(gpa: U64, size: number): number {
    if (typeof gpa !== 'number') return -1;
    const offset = gpa - this.start;
    // An integer from here on, which the DataView need not make one of again.
    const at = offset | 0;
    return at === offset && at >= 0 && at <= this.span - size ? (at + this.shift) | 0 : -1;
  }

  forget(): void {
    this.start = Number.NaN;
    this.view = NO_VIEW;
    this.window = undefined;
  }
}

/** Nothing is ever here. */
const NOWHERE = new Place();

/**
 * Finds addresses in a lookup, and remembers where they were.
 *
 * At first that is the place of the last access. Once the ranges have stood still for a while each has a place of its own, that of the last
 * access there; and the span of addresses is cut into buckets that name a place each, mostly the right one.
 */
export class Locator<R extends MemoryRange> {
  readonly #lookup: MemoryLookup<R>;
  readonly #remote: RemoteChanges | undefined;
  /** That of the places. */
  #generation = 0;
  /** The place of the last access, while ranges have none of their own. */
  readonly #here = new Place();
  /** The same where nobody else changes the ranges. */
  readonly #hereUnlessRemote: Place;
  /** Of each range, in their order. */
  #places: Place[] = [];
  /** A place for each bucket of addresses; as many as a power of two. */
  #buckets: Place[] = [];
  #first = 0;
  #scale = 0;
  /** Whether ranges have places. */
  #isSpread = false;
  /** …and nobody else changes them. */
  #isOurs = false;
  /** Where the last access was that was sought. */
  #last = this.#here;
  #calls: KvmCalls | undefined;
  /** Accesses elsewhere than the one before, while ranges have no places. */
  #seeks = 0;

  constructor(lookup: MemoryLookup<R>) {
    this.#lookup = lookup;
    this.#remote = lookup.remote;
    this.#hereUnlessRemote = this.#remote === undefined ? this.#here : NOWHERE;
    if (this.#remote !== undefined) this.#generation = Atomics.load(this.#remote.generation, 0);
  }

  /** Where memory is, in ascending order. */
  get ranges(): readonly R[] {
    return this.#lookup.ranges.entries;
  }

  /** The window that the last {@link seek} was in. */
  get window(): MemoryWindow | undefined {
    return this.#last.window;
  }

  /** Its view. */
  get view(): DataView {
    return this.#last.view;
  }

  /** Forgets where accesses were: memory went, or is elsewhere. */
  forget(): void {
    this.#here.forget();
    this.#last = this.#here;
    this.#seeks = 0;
    if (!this.#isSpread) return;
    this.#places = [];
    this.#buckets = [];
    this.#isSpread = false;
    this.#isOurs = false;
  }

  // V8 needs ten instructions to make a truth of a member.
  /** Where an address probably is, by accesses before: a place that {@link Place.at} may find it in. If not, {@link seek} knows more. */
  guess(gpa: U64): Place {
    return this.#isOurs === true ? this.#placeOfBucket(gpa) : this.#hereUnlessRemote;
  }

  /** Offset in {@link window} of `size` bytes at `gpa`, or −1 when they are not in one window. */
  seek(gpa: U64, size: number): number {
    const at = this.#atPlace(this.guess(gpa), gpa, size);
    return at >= 0 ? at : this.#seek(gpa, size);
  }

  /** As {@link Place.at}, of a place that is that of the last access then. */
  #atPlace(place: Place, gpa: U64, size: number): number {
    const at = place.at(gpa, size);
    if (at >= 0) this.#last = place;
    return at;
  }

  #placeOfBucket(gpa: U64): Place {
    if (typeof gpa !== 'number') return this.#here;
    // For an address outside all buckets any will do: it isn't in that one's place.
    const buckets = this.#buckets;
    return buckets[((gpa - this.#first) * this.#scale) & (buckets.length - 1)]!;
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
    const { window, start, span, shift } = this.#last;
    if (window === undefined) return 0;
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
      const at = this.#atPlace(this.#isSpread ? this.#placeOfBucket(gpa) : this.#here, gpa, size);
      if (at >= 0) return at;
    }
    const { ranges } = this.#lookup;
    if (!this.#isSpread) {
      if (ranges.length <= 1 || this.#seeks < ranges.length) {
        const range = ranges.find(gpa);
        if (range === undefined) return -1;
        this.#seeks++;
        return this.#look(range, this.#here, gpa, size);
      }
      this.#givePlaces();
    }
    const entry = ranges.indexOf(gpa);
    if (entry < 0) return -1;
    const place = this.#places[entry]!;
    const at = this.#atPlace(place, gpa, size);
    return at >= 0 ? at : this.#look(ranges.entries[entry]!, place, gpa, size);
  }

  /** Asks the range for its window, and remembers that. */
  #look({ start, end, offset, mapping }: R, place: Place, gpa: number, size: number): number {
    // Where byte 0 of the mapping would be.
    const origin = start - offset;
    const index = Math.floor((gpa - origin) / VIEW_WINDOW);
    const window = mapping.window(index);
    if (window === undefined) return -1;
    const base = origin + index * VIEW_WINDOW;
    const shift = Math.max(0, start - base);
    place.window = window;
    place.view = window.view;
    place.start = base + shift;
    place.span = Math.min(window.length, Math.min(end, Number.MAX_SAFE_INTEGER) - base) - shift;
    place.shift = shift;
    return this.#atPlace(place, gpa, size);
  }

  /** Gives each range a place, and each bucket that of the last range that has a part of it. */
  #givePlaces(): void {
    const { ranges } = this.#lookup;
    const { length } = ranges;
    this.forget();
    this.#first = ranges.startAt(0);
    const span = ranges.endAt(length - 1) - this.#first;
    // Regions mostly begin at multiples of a power of two: so do buckets then.
    this.#scale = 2 ** -Math.floor(Math.log2(span / (BUCKETS_EACH * length)));
    const bucketOf = (gpa: number): number => Math.floor((gpa - this.#first) * this.#scale);
    const places: Place[] = [];
    const buckets: Place[] = [];
    for (let entry = 0; entry < length; entry++) {
      const place = new Place();
      places.push(place);
      const last = bucketOf(ranges.endAt(entry) - 1);
      // Those of a hole before it, which are nobody's, too.
      for (let bucket = Math.min(buckets.length, bucketOf(ranges.startAt(entry))); bucket <= last; bucket++) {
        buckets[bucket] = place;
      }
    }
    while ((buckets.length & (buckets.length - 1)) !== 0) buckets.push(this.#here);
    this.#places = places;
    this.#buckets = buckets;
    this.#isSpread = true;
    this.#isOurs = this.#remote === undefined;
  }
}
