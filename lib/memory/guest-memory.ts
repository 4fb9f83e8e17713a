import { endianness } from 'node:os';
import { isTypedArray } from 'node:util/types';
import {
  bytesFor,
  checkBoolean,
  checkBytes,
  checkInteger,
  checkObject,
  checkOneOf,
  checkOptions,
  checkSize,
  checkText,
  checkThere,
  checkU64,
  isIntegerIn,
  newBytes,
} from '../base/arguments.ts';
import { copyMemory } from '../base/copy-bytes.ts';
import { hex, invalidArgType, outOfRange } from '../base/errors.ts';
import { partOf } from '../base/part-of.ts';
import type { U64 } from '../base/u64.ts';
import { VIEW_WINDOW } from '../calls/kvm-calls.ts';
import { advance, joinGpa, MIN_PAGE, splitGpa } from './gpa.ts';
import { Locator } from './locator.ts';
import type { GpaTranslation, MemoryLookup, MemoryRange } from './lookup.ts';
import type { ViewHolder } from './mapping.ts';
import { PieceBatch } from './piece-batch.ts';
import { checkI8, checkI16, checkI32, checkI64, checkU8, checkU16, checkU32Value, checkU64Value } from './values.ts';
import { WrittenPages } from './written-pages.ts';

const HOST_IS_LITTLE_ENDIAN = endianness() === 'LE';
/** What is to be written and is not inside one window is put here first; nothing runs between filling and copying it. */
const scratchBytes = new Uint8Array(8);
const scratch = new DataView(scratchBytes.buffer);
const COPY_CHUNK = 0x1_0000;
const TWO_32 = 2 ** 32;

export interface GuestMemoryOptions {
  readonly littleEndian: boolean;
  readonly pageSize: number;
  /** Where frames that are written are noted; by default its own. */
  readonly written?: WrittenPages;
}

/**
 * Typed access at guest physical addresses.
 *
 * An address is a number below 2^53 or a bigint below 2^64. Integers are in the guest's byte order unless
 * `littleEndian` says otherwise. Access is a lookup and a DataView in JavaScript; where touching the memory could
 * fault (files, devices, protected pages) the addon copies instead. An address without memory throws KvmError EFAULT
 * with the address; a value that does not fit throws RangeError ERR_OUT_OF_RANGE.
 *
 * What is written here is known to dirty tracking; what is written through a {@link slice} is not, unless
 * {@link markDirty} is called.
 *
 * It needs to know where memory is, and nothing else: it can be held by whoever doesn't own the map.
 */
export class GuestMemory<R extends MemoryRange = MemoryRange> implements ViewHolder {
  /** The guest's byte order: the default of every access. */
  readonly littleEndian: boolean;
  /** Bytes of a page of the host, and so of a guest frame. */
  readonly pageSize: number;
  /** @internal The frames that are written here. */
  readonly written: WrittenPages;
  readonly #locator: Locator<R>;
  /** Where what was sought is. */
  #at = 0;

  /** @param lookup where memory is; whoever changes that calls {@link dropViews} */
  constructor(lookup: MemoryLookup<R>, options: GuestMemoryOptions) {
    const { littleEndian, pageSize } = checkMemoryOptions(options);
    const { written } = options;
    checkObject(checkObject(lookup, 'lookup').ranges, 'lookup.ranges');
    this.littleEndian = littleEndian;
    this.pageSize = pageSize;
    this.written = written ?? new WrittenPages(pageSize);
    this.#locator = new Locator(lookup);
  }

  /** Where an address is: region, offset in its mapping, host virtual address. Undefined when it has no memory. */
  translate(gpa: U64): GpaTranslation<R> | undefined {
    return this.#locator.find(splitGpa(gpa));
  }

  /** The guest physical addresses at which a byte of host memory is seen: none, one, or several. */
  gpasOf(hva: number): U64[] {
    return this.#locator.gpasOf(checkSize(hva, 'hva'));
  }

  /** Tells dirty tracking about a write that was made through a slice. */
  markDirty(gpa: U64, length: number): void {
    const { page, rest } = splitGpa(gpa);
    const behind = page + rest + checkSize(length, 'length');
    // Each frame costs a bit: of a range that may be nearly all addresses, only those that have memory.
    if (length <= VIEW_WINDOW) {
      this.written.mark(gpa, length);
      return;
    }
    for (const { start, end } of this.#locator.ranges) {
      const first = Math.max(start, page);
      const size = Math.min(end, behind) - first;
      if (size > 0) this.written.mark(joinGpa({ page: first, rest: 0 }), size);
    }
  }

  /** @internal Forgets where the last access was: memory went, or is elsewhere. */
  dropViews(): void {
    this.#locator.forget();
  }

  readU8(gpa: U64): number {
    const place = this.#locator.guess(gpa);
    const at = place.at(gpa, 1);
    return at >= 0 ? place.view.getUint8(at) : this.#seek(gpa, 1).getUint8(this.#at);
  }

  readI8(gpa: U64): number {
    const place = this.#locator.guess(gpa);
    const at = place.at(gpa, 1);
    return at >= 0 ? place.view.getInt8(at) : this.#seek(gpa, 1).getInt8(this.#at);
  }

  readU16(gpa: U64, littleEndian?: boolean): number {
    const place = this.#locator.guess(gpa);
    const at = place.at(gpa, 2);
    return at >= 0
      ? place.view.getUint16(at, isLittle(littleEndian, this.littleEndian))
      : this.#seek(gpa, 2).getUint16(this.#at, isLittle(littleEndian, this.littleEndian));
  }

  readI16(gpa: U64, littleEndian?: boolean): number {
    const place = this.#locator.guess(gpa);
    const at = place.at(gpa, 2);
    return at >= 0
      ? place.view.getInt16(at, isLittle(littleEndian, this.littleEndian))
      : this.#seek(gpa, 2).getInt16(this.#at, isLittle(littleEndian, this.littleEndian));
  }

  /**
   * Reads an unsigned 32-bit integer.
   * @example vm.memory.readU32(0x1000)
   */
  readU32(gpa: U64, littleEndian?: boolean): number {
    const place = this.#locator.guess(gpa);
    const at = place.at(gpa, 4);
    return at >= 0
      ? place.view.getUint32(at, isLittle(littleEndian, this.littleEndian))
      : this.#seek(gpa, 4).getUint32(this.#at, isLittle(littleEndian, this.littleEndian));
  }

  readI32(gpa: U64, littleEndian?: boolean): number {
    const place = this.#locator.guess(gpa);
    const at = place.at(gpa, 4);
    return at >= 0
      ? place.view.getInt32(at, isLittle(littleEndian, this.littleEndian))
      : this.#seek(gpa, 4).getInt32(this.#at, isLittle(littleEndian, this.littleEndian));
  }

  readU64(gpa: U64, littleEndian?: boolean): bigint {
    const place = this.#locator.guess(gpa);
    const at = place.at(gpa, 8);
    return at >= 0
      ? place.view.getBigUint64(at, isLittle(littleEndian, this.littleEndian))
      : this.#seek(gpa, 8).getBigUint64(this.#at, isLittle(littleEndian, this.littleEndian));
  }

  /**
   * Reads an unsigned 64-bit integer as a number: half as dear as the bigint of {@link readU64}.
   * @throws RangeError ERR_OUT_OF_RANGE when it is 2^53 or more; KvmError EFAULT
   */
  readU64Number(gpa: U64, littleEndian?: boolean): number {
    const place = this.#locator.guess(gpa);
    const at = place.at(gpa, 8);
    return at >= 0
      ? u64Number(place.view, at, isLittle(littleEndian, this.littleEndian))
      : u64Number(this.#seek(gpa, 8), this.#at, isLittle(littleEndian, this.littleEndian));
  }

  readI64(gpa: U64, littleEndian?: boolean): bigint {
    const place = this.#locator.guess(gpa);
    const at = place.at(gpa, 8);
    return at >= 0
      ? place.view.getBigInt64(at, isLittle(littleEndian, this.littleEndian))
      : this.#seek(gpa, 8).getBigInt64(this.#at, isLittle(littleEndian, this.littleEndian));
  }

  writeU8(gpa: U64, value: number): void {
    checkU8(value);
    const at = this.#writeAt(gpa, 1);
    if (at >= 0) this.#locator.view.setUint8(at, value);
    else scratch.setUint8(0, value);
    this.#stored(gpa, 1, at);
  }

  writeI8(gpa: U64, value: number): void {
    checkI8(value);
    const at = this.#writeAt(gpa, 1);
    if (at >= 0) this.#locator.view.setInt8(at, value);
    else scratch.setInt8(0, value);
    this.#stored(gpa, 1, at);
  }

  writeU16(gpa: U64, value: number, littleEndian?: boolean): void {
    checkU16(value);
    const at = this.#writeAt(gpa, 2);
    if (at >= 0) this.#locator.view.setUint16(at, value, isLittle(littleEndian, this.littleEndian));
    else scratch.setUint16(0, value, isLittle(littleEndian, this.littleEndian));
    this.#stored(gpa, 2, at);
  }

  writeI16(gpa: U64, value: number, littleEndian?: boolean): void {
    checkI16(value);
    const at = this.#writeAt(gpa, 2);
    if (at >= 0) this.#locator.view.setInt16(at, value, isLittle(littleEndian, this.littleEndian));
    else scratch.setInt16(0, value, isLittle(littleEndian, this.littleEndian));
    this.#stored(gpa, 2, at);
  }

  /**
   * Writes an unsigned 32-bit integer.
   * @example vm.memory.writeU32(0x1000, 0xdead_beef)
   */
  writeU32(gpa: U64, value: number, littleEndian?: boolean): void {
    checkU32Value(value);
    const at = this.#writeAt(gpa, 4);
    if (at >= 0) this.#locator.view.setUint32(at, value, isLittle(littleEndian, this.littleEndian));
    else scratch.setUint32(0, value, isLittle(littleEndian, this.littleEndian));
    this.#stored(gpa, 4, at);
  }

  writeI32(gpa: U64, value: number, littleEndian?: boolean): void {
    checkI32(value);
    const at = this.#writeAt(gpa, 4);
    if (at >= 0) this.#locator.view.setInt32(at, value, isLittle(littleEndian, this.littleEndian));
    else scratch.setInt32(0, value, isLittle(littleEndian, this.littleEndian));
    this.#stored(gpa, 4, at);
  }

  writeU64(gpa: U64, value: U64, littleEndian?: boolean): void {
    checkU64Value(value);
    const at = this.#writeAt(gpa, 8);
    if (at >= 0) setU64(this.#locator.view, at, value, isLittle(littleEndian, this.littleEndian));
    else setU64(scratch, 0, value, isLittle(littleEndian, this.littleEndian));
    this.#stored(gpa, 8, at);
  }

  writeI64(gpa: U64, value: U64, littleEndian?: boolean): void {
    const wide = checkI64(value);
    const at = this.#writeAt(gpa, 8);
    if (at >= 0) this.#locator.view.setBigInt64(at, wide, isLittle(littleEndian, this.littleEndian));
    else scratch.setBigInt64(0, wide, isLittle(littleEndian, this.littleEndian));
    this.#stored(gpa, 8, at);
  }

  /**
   * Reads bytes, across regions, until the array is full or memory ends.
   * @returns how many were read: fewer than `into.length` where an address has no memory. With a length in place of the
   *   array: a new array of so many bytes, as of {@link readExact}
   * @throws KvmError EFAULT with a length, where an address has no memory
   * @example vm.memory.read(0x1000, 64)
   */
  read(gpa: U64, length: number): Uint8Array;
  read(gpa: U64, into: Uint8Array): number;
  read(gpa: U64, into: number | Uint8Array): number | Uint8Array {
    return typeof into === 'number' ? this.readExact(gpa, into) : this.#readInto(gpa, checkBytes(into, 'into'));
  }

  #readInto(gpa: U64, into: Uint8Array): number {
    const at = this.#locator.seek(gpa, into.length);
    if (at < 0) return this.#locator.transfer(splitGpa(gpa), into, false);
    copyMemory(this.#locator.window!.bytes, at, into, 0, into.length);
    return into.length;
  }

  /**
   * Reads exactly `length` bytes into a new array, or fills the given one.
   * @throws KvmError EFAULT with the first address that has no memory; the array may be partly filled
   * @example vm.memory.readExact(0x1000, 16)
   */
  readExact(gpa: U64, lengthOrInto: number | Uint8Array): Uint8Array {
    const into = bytesFor(lengthOrInto, 'length');
    this.#locator.requireAll('read', gpa, into.length, this.#readInto(gpa, into));
    return into;
  }

  /** Writes bytes, across regions, until all are written or memory ends: how many were written. */
  write(gpa: U64, from: Uint8Array): number {
    checkBytes(from, 'from');
    const at = this.#writeAt(gpa, from.length);
    if (at < 0) return this.#writeAcross(gpa, from);
    // Nothing may be set from an array that was detached since it was looked at, not even nothing.
    if (from.length > 0) this.#locator.window!.bytes.set(from, at);
    if (this.written.on === true) this.written.mark(gpa, from.length);
    return from.length;
  }

  /** Writes all bytes. @throws KvmError EFAULT with the first address that has no memory; those before it are written */
  writeExact(gpa: U64, from: Uint8Array): void {
    const done = this.write(gpa, from);
    this.#locator.requireAll('write', gpa, from.length, done);
  }

  /**
   * Reads a string up to its NUL.
   * @throws RangeError when there is no NUL among the first `maxLength` bytes; KvmError EFAULT where memory ends before
   */
  readCString(gpa: U64, options: { readonly maxLength?: number; readonly encoding?: BufferEncoding } = {}): string {
    const { maxLength = 4096, encoding = 'utf8' } = checkOptions(options, { maxLength: true, encoding: true });
    checkEncoding(encoding, 'options.encoding');
    const bytes = Buffer.from(newBytes(maxLength, 'options.maxLength').buffer);
    const count = this.read(gpa, bytes);
    const end = bytes.subarray(0, count).indexOf(0);
    if (end >= 0) return bytes.toString(encoding, 0, end);
    this.#locator.requireAll('read', gpa, maxLength, count);
    throw outOfRange('maxLength', `enough to reach the NUL of the string at ${hex(gpa)}`, maxLength);
  }

  /** Writes a string and a NUL; the number of bytes with it. @throws KvmError EFAULT */
  writeCString(gpa: U64, text: string, encoding: BufferEncoding = 'utf8'): number {
    const bytes = Buffer.from(`${checkText(text, 'text')}\0`, checkEncoding(encoding, 'encoding'));
    this.writeExact(gpa, bytes);
    return bytes.length;
  }

  /** Fills a range with one byte value. @throws KvmError EFAULT with the first address that has no memory */
  fill(gpa: U64, length: number, value = 0): void {
    checkU8(value);
    const at = splitGpa(gpa);
    const chunk = new Uint8Array(Math.min(checkSize(length, 'length'), COPY_CHUNK)).fill(value);
    for (let done = 0; done < length; ) {
      const part = chunk.subarray(0, Math.min(chunk.length, length - done));
      this.writeExact(joinGpa(at), part);
      advance(at, part.length);
      done += part.length;
    }
  }

  /**
   * Copies within guest memory, across regions; ranges may overlap, as for memmove.
   * @throws KvmError EFAULT where either side has no memory
   */
  copy(to: U64, from: U64, length: number): void {
    checkSize(length, 'length');
    checkU64(to, 'to');
    checkU64(from, 'from');
    // The target last: where another process changes regions meanwhile, what is marked is where the bytes went.
    const source = this.#locator.seek(from, length);
    const { window } = this.#locator;
    const target = this.#writeAt(to, length);
    if (target >= 0 && source >= 0 && window === this.#locator.window) {
      window!.bytes.copyWithin(target, source, source + length);
      if (this.written.on === true) this.written.mark(to, length);
      return;
    }
    const wideTo = BigInt(to);
    const wideFrom = BigInt(from);
    const backward = wideTo > wideFrom && wideTo < wideFrom + BigInt(length);
    const chunk = new Uint8Array(Math.min(length, COPY_CHUNK));
    for (let done = 0; done < length; ) {
      const count = Math.min(chunk.length, length - done);
      const offset = BigInt(backward ? length - done - count : done);
      const part = chunk.subarray(0, count);
      this.readExact(wideFrom + offset, part);
      this.writeExact(wideTo + offset, part);
      done += count;
    }
  }

  /**
   * Reads many small pieces in one call: piece i is `lengths[i]` bytes (or `lengths` for all) at `gpas[i]`, back to
   * back in `into`.
   * @throws KvmError EFAULT with the first piece's address that has no memory
   * @example memory.gather([0x1000, 0x2000], 8, new Uint8Array(16))
   */
  gather(gpas: ArrayLike<U64>, lengths: ArrayLike<number> | number, into: Uint8Array): void {
    this.#eachPiece(gpas, lengths, checkBytes(into, 'into'), false);
  }

  /** Writes many small pieces in one call, likewise. @throws KvmError EFAULT; the pieces before it are written */
  scatter(gpas: ArrayLike<U64>, lengths: ArrayLike<number> | number, from: Uint8Array): void {
    this.#eachPiece(gpas, lengths, checkBytes(from, 'from'), true);
  }

  /**
   * Loads a naturally aligned integer of 1, 2, 4 or 8 bytes as one access, sequentially consistent.
   * @throws RangeError when misaligned; KvmError EACCES where the memory isn't mapped directly, EFAULT without memory
   */
  atomicLoad(gpa: U64, size: 8): bigint;
  atomicLoad(gpa: U64, size: 1 | 2 | 4): number;
  atomicLoad(gpa: U64, size: AtomicSize): U64 {
    const { words, index } = this.#atomics(gpa, size, false);
    return this.#order(words instanceof BigUint64Array ? Atomics.load(words, index) : Atomics.load(words, index), size);
  }

  /** Stores a naturally aligned integer of 1, 2, 4 or 8 bytes as one access; errors as for {@link atomicLoad}. */
  atomicStore(gpa: U64, size: AtomicSize, value: U64): void {
    checkSized(value, 'value', size);
    const { words, index } = this.#atomics(gpa, size, true);
    if (words instanceof BigUint64Array) Atomics.store(words, index, BigInt(this.#order(value, size)));
    else Atomics.store(words, index, Number(this.#order(value, size)));
    if (this.written.on === true) this.written.mark(gpa, size);
  }

  /**
   * Stores `replacement` if the integer there is `expected`, as one atomic step.
   * @returns what was there: equal to `expected` if and only if the exchange happened
   */
  compareExchange(gpa: U64, size: 8, expected: U64, replacement: U64): bigint;
  compareExchange(gpa: U64, size: 1 | 2 | 4, expected: U64, replacement: U64): number;
  compareExchange(gpa: U64, size: AtomicSize, expected: U64, replacement: U64): U64 {
    checkSized(expected, 'expected', size);
    checkSized(replacement, 'replacement', size);
    const { words, index } = this.#atomics(gpa, size, true);
    const old = this.#order(expected, size);
    const next = this.#order(replacement, size);
    const found =
      words instanceof BigUint64Array
        ? Atomics.compareExchange(words, index, BigInt(old), BigInt(next))
        : Atomics.compareExchange(words, index, Number(old), Number(next));
    // A store that did not happen dirties nothing.
    if (this.written.on && BigInt(found) === BigInt(old)) this.written.mark(gpa, size);
    return this.#order(found, size);
  }

  /**
   * The memory of a range itself, not a copy, in as many pieces as there are windows and regions. The pieces are
   * detached when their mapping goes.
   * @throws KvmError EFAULT where there is no memory, EACCES where it isn't mapped directly
   */
  *slices(gpa: U64, length: number): Generator<Uint8Array> {
    const at = splitGpa(gpa);
    for (let left = checkSize(length, 'length'); left > 0; ) {
      const found = this.#locator.find(at);
      if (found === undefined) throw this.#locator.fault('read', at, left);
      const index = Math.floor(found.offset / VIEW_WINDOW);
      const { mapping } = found.region;
      const bytes = mapping.view === undefined ? mapping.window(index)?.bytes : mapping.view(index);
      if (bytes === undefined) throw this.#locator.notDirect(at, left);
      const start = found.offset - index * VIEW_WINDOW;
      const count = Math.min(left, found.available, bytes.length - start);
      yield bytes.subarray(start, start + count);
      advance(at, count);
      left -= count;
    }
  }

  /**
   * The memory of a range that lies in one region (and one window of 1 GiB) as one array, not a copy.
   * @throws KvmError as {@link slices}; RangeError when it takes more than one piece
   */
  slice(gpa: U64, length: number): Uint8Array {
    const [first, ...others] = this.slices(gpa, length);
    if (others.length > 0)
      throw outOfRange('length', `at most ${first!.length} at ${hex(gpa)}, where a piece ends`, length);
    return first ?? new Uint8Array(0);
  }

  /** Writes bytes that are not in one window. */
  #writeAcross(gpa: U64, from: Uint8Array): number {
    const at = splitGpa(gpa);
    // Where a page's handler throws some of it is written.
    let done = from.length;
    try {
      done = this.#locator.transfer(at, from, true);
    } finally {
      if (this.written.on === true) this.written.mark(gpa, done);
    }
    return done;
  }

  #writeAt(gpa: U64, size: number): number {
    const at = this.#locator.seek(gpa, size);
    // Last: who hears of a change, as that looks for, may write too, and be done.
    if (this.written.announces === true) this.written.announce();
    return at;
  }

  /** Looks for an integer elsewhere than {@link Locator.at} does: the view that has it, {@link #at} an offset. One that is not in one window is copied. */
  #seek(gpa: U64, size: number): DataView {
    const at = this.#locator.seek(gpa, size);
    if (at >= 0) {
      this.#at = at;
      return this.#locator.view;
    }
    // Its own, since a page's handler may read and write meanwhile.
    const bytes = new Uint8Array(size);
    const copied = this.#locator.transfer(splitGpa(gpa), bytes, false);
    this.#locator.requireAll('read', gpa, size, copied);
    this.#at = 0;
    return new DataView(bytes.buffer);
  }

  /** Finishes the write of an integer: copies it from `scratch` when it wasn't in one window. */
  #stored(gpa: U64, size: number, at: number): void {
    if (at < 0) this.#locator.requireAll('write', gpa, size, this.#writeAcross(gpa, scratchBytes.slice(0, size)));
    else if (this.written.on === true) this.written.mark(gpa, size);
  }

  #eachPiece(gpas: ArrayLike<U64>, lengths: ArrayLike<number> | number, bytes: Uint8Array, write: boolean): void {
    checkArrayLike(gpas, 'gpas');
    if (typeof lengths !== 'number') checkArrayLike(lengths, 'lengths');
    const batch = new PieceBatch(bytes, write);
    try {
      const first = this.#moveEqual(batch, gpas, lengths, bytes.length, write);
      this.#addPieces(batch, first, gpas, lengths, bytes, write);
      batch.flush();
    } finally {
      batch.drop();
    }
  }

  /** Moves pieces of one length where no code of the caller's can run and nobody is told of each: how many, from the first on. */
  #moveEqual(batch: PieceBatch, gpas: ArrayLike<U64>, length: unknown, room: number, write: boolean): number {
    if (!(gpas instanceof Float64Array) || typeof length !== 'number') return 0;
    if (!isIntegerIn(length, 0, room) || length * gpas.length > room) return 0;
    if (write && (this.written.on || this.written.announces)) return 0;
    return batch.moveEqual(this.#locator, gpas, length);
  }

  #addPieces(
    batch: PieceBatch,
    first: number,
    gpas: ArrayLike<U64>,
    lengths: ArrayLike<number> | number,
    bytes: Uint8Array,
    write: boolean,
  ): void {
    for (let piece = first; piece < gpas.length; piece++) {
      const gpa = gpas[piece]!;
      const length = typeof lengths === 'number' ? lengths : (lengths[piece] ?? 0);
      if (typeof length !== 'number') throw invalidArgType(`lengths[${piece}]`, 'a number', length);
      if (!isIntegerIn(length, 0, bytes.length - batch.end)) {
        const range = `an integer in [0, ${bytes.length - batch.end}], what is left of the array`;
        throw outOfRange(`lengths[${piece}]`, range, length);
      }
      const at = write ? this.#writeAt(gpa, length) : this.#locator.seek(gpa, length);
      if (at >= 0) {
        batch.add(this.#locator.window!, at, length);
        if (write && this.written.on) this.written.mark(gpa, length);
        continue;
      }
      checkU64(gpa, `gpas[${piece}]`);
      batch.flush();
      const part = partOf(bytes, batch.end, batch.end + length);
      if (write) this.writeExact(gpa, part);
      else this.readExact(gpa, part);
      batch.skip(length);
    }
  }

  #atomics(gpa: U64, size: AtomicSize, write: boolean): { words: AtomicWords; index: number } {
    checkAtomicSize(size);
    const at = write ? this.#writeAt(gpa, size) : this.#locator.seek(gpa, size);
    const place = splitGpa(gpa);
    if (place.rest % size !== 0) throw outOfRange('gpa', `a multiple of ${size}, the size of the access`, hex(gpa));
    if (at < 0)
      throw this.#locator.find(place) === undefined
        ? this.#locator.fault('read', place, size)
        : this.#locator.notDirect(place, size);
    const window = this.#locator.window!;
    switch (size) {
      case 1:
        return { words: window.bytes, index: at };
      case 2:
        return { words: window.u16, index: at / 2 };
      case 4:
        return { words: window.u32, index: at / 4 };
      case 8:
        return { words: window.u64, index: at / 8 };
    }
  }

  /** Between the guest's byte order and the processor's, which is the one Atomics use. */
  #order(value: U64, size: AtomicSize): U64 {
    if (this.littleEndian === HOST_IS_LITTLE_ENDIAN) return value;
    scratch.setBigUint64(0, BigInt(value), this.littleEndian);
    const at = this.littleEndian ? 0 : 8 - size;
    if (size === 8) return new BigUint64Array(scratchBytes.buffer, 0, 1)[0]!;
    if (size === 4) return new Uint32Array(scratchBytes.buffer, at, 1)[0]!;
    return size === 2 ? new Uint16Array(scratchBytes.buffer, at, 1)[0]! : scratchBytes[at]!;
  }
}

export type AtomicSize = 1 | 2 | 4 | 8;
type AtomicWords = Uint8Array | Uint16Array | Uint32Array | BigUint64Array;

function checkSized(value: U64, name: string, size: AtomicSize): void {
  if (checkAtomicSize(size) === 8) checkU64(value, name);
  else checkInteger(typeof value === 'bigint' ? Number(value) : value, name, 0, 2 ** (8 * size) - 1);
}

const ATOMIC_SIZES = [1, 2, 4, 8] as const;
const checkAtomicSize = (size: AtomicSize): AtomicSize => checkOneOf(size, 'size', ATOMIC_SIZES);

/** The options of guest memory, and of the spaces that are. */
export function checkMemoryOptions(options: GuestMemoryOptions): GuestMemoryOptions {
  const { littleEndian, pageSize } = checkObject(options, 'options');
  checkBoolean(littleEndian, 'options.littleEndian');
  return { littleEndian, pageSize: checkInteger(pageSize, 'options.pageSize', MIN_PAGE, 2 ** 31) };
}

function checkEncoding(encoding: BufferEncoding, name: string): BufferEncoding {
  if (!Buffer.isEncoding(checkText(encoding, name))) throw outOfRange(name, 'an encoding that Buffer knows', encoding);
  return encoding;
}

function checkArrayLike(value: ArrayLike<unknown>, name: string): void {
  if (Array.isArray(value)) return;
  if (!isTypedArray(value)) throw invalidArgType(name, 'an array', value);
  checkThere(value, name, 'an array');
}

function setU64(view: DataView, at: number, value: U64, littleEndian: boolean): void {
  if (typeof value === 'bigint') {
    view.setBigUint64(at, value, littleEndian);
    return;
  }
  // Of each number the lowest 32 bits are taken.
  view.setUint32(littleEndian ? at + 4 : at, value / TWO_32, littleEndian);
  view.setUint32(littleEndian ? at : at + 4, value, littleEndian);
}

/** @throws RangeError when it is no safe integer */
function u64Number(view: DataView, at: number, littleEndian: boolean): number {
  const high = view.getUint32(littleEndian ? at + 4 : at, littleEndian);
  const value = high * TWO_32 + view.getUint32(littleEndian ? at : at + 4, littleEndian);
  if (value > Number.MAX_SAFE_INTEGER) {
    throw outOfRange('value', 'below 2^53 (readU64 reads every value)', view.getBigUint64(at, littleEndian));
  }
  return value;
}

/**
 * Whether an access's byte order is little-endian: the guest's own, unless one is given. By comparisons, since what may be anything takes V8 ten
 * instructions to make a truth of; and here, since what is imported is looked up in every turn of a loop.
 */
function isLittle(littleEndian: boolean | undefined, own: boolean): boolean {
  if (littleEndian === undefined) return own === true;
  return littleEndian === true || (littleEndian !== false && refuseOrder(littleEndian));
}

function refuseOrder(littleEndian: never): never {
  throw invalidArgType('littleEndian', 'true or false', littleEndian);
}
