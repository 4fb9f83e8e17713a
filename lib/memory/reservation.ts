import { inspect } from 'node:util';
import { checkOptions, checkSize } from '../base/arguments.ts';
import { hex, hexRange } from '../base/errors.ts';
import { humanSize, table } from '../base/text.ts';
import type { KvmCalls } from '../calls/kvm-calls.ts';
import { ERRNO } from '../uapi/errno.ts';
import { MADV, MAP, PROT } from '../uapi/flags.ts';
import { ADDRESS_OPTIONS, type AddressOptions, Mapping } from './mapping.ts';
import {
  anonymousSource,
  DEVICE_OPTIONS,
  type DeviceOptions,
  deviceSource,
  FILE_OPTIONS,
  type FileOptions,
  hugetlbSource,
  type MappingSource,
  MEMFD_OPTIONS,
  MEMORY_OPTIONS,
  type MemfdOptions,
  type MemoryKind,
  type MemoryOptions,
  mmapFailure,
  roundToPages,
  withFile,
  withMemfd,
} from './mapping-source.ts';

/** Memory in a part of a reservation. */
export interface MappedPiece {
  readonly kind: MemoryKind;
  /** Where it begins in the reservation. */
  readonly offset: number;
  readonly size: number;
  /** Bits of PROT. */
  readonly prot: number;
}

const NOTHING = { prot: PROT.NONE, flags: MAP.PRIVATE | MAP.ANONYMOUS | MAP.NORESERVE, fd: -1, offset: 0 } as const;

/**
 * Addresses of the process without memory, into which memory of every kind is put in pieces, at any time: before a region
 * shows them to guests, or later. A piece replaces what is in its place; what is taken out may be put in again. Memslots
 * stay as they are meanwhile, and guests may run: they find what is there when they access it.
 *
 * A guest's access to a page without memory ends its run with EFAULT; from TypeScript, reading and writing give EFAULT
 * with the address, or the number of bytes before it. There are no views of a reservation (its memory may go at any
 * time): {@link GuestMemory.slice} and atomics are EACCES, all else is copied by the kernel.
 */
export class Reservation extends Mapping {
  /** Sorted by offset. */
  readonly #pieces: MappedPiece[] = [];

  /** @throws KvmError EINVAL, ENOMEM */
  static make(calls: KvmCalls, size: number, options: AddressOptions): Reservation {
    checkOptions(options, ADDRESS_OPTIONS);
    const source = { ...anonymousSource(calls, size, {}), ...NOTHING };
    return new Reservation(calls, 'reservation', Mapping.mmap(calls, source, options), source.size);
  }

  /** What is there now, in ascending order. */
  get pieces(): readonly MappedPiece[] {
    return this.#pieces;
  }

  /**
   * Puts anonymous memory at an offset, in place of what is there.
   * @throws KvmError EINVAL when the piece isn't whole pages inside the reservation, ENOMEM, EBADF; all stays as it was then
   */
  mapAnonymous(offset: number, size: number, options: MemoryOptions = {}): void {
    this.#put(offset, anonymousSource(this.calls, size, checkOptions(options, MEMORY_OPTIONS)));
  }

  /** Puts a new memfd at an offset. Errors as for {@link mapAnonymous}, and EMFILE. */
  mapMemfd(offset: number, size: number, options: MemfdOptions = {}): void {
    withMemfd(this.calls, size, checkOptions(options, MEMFD_OPTIONS), (source) => this.#put(offset, source));
  }

  /** Puts huge pages at an offset, which must be a multiple of their size. Errors as for {@link mapAnonymous}. */
  mapHugetlb(offset: number, size: number, options: MemoryOptions = {}): void {
    this.#put(offset, hugetlbSource(this.calls, size, checkOptions(options, MEMORY_OPTIONS)));
  }

  /** Puts a file, or a part of it, at an offset. Errors as for {@link mapAnonymous}, and EACCES, ENODEV. */
  mapFile(offset: number, file: string | number, options: FileOptions = {}): void {
    withFile(this.calls, file, checkOptions(options, FILE_OPTIONS), (source) => this.#put(offset, source));
  }

  /** Puts a device's memory at an offset: a PCI BAR, a VFIO region. Errors as for {@link mapFile}. */
  mapDevice(offset: number, fd: number, options: DeviceOptions): void {
    this.#put(offset, deviceSource(this.calls, fd, checkOptions(options, DEVICE_OPTIONS)));
  }

  /** Takes memory out: nothing is in the part any more, and something may be put in again. @throws KvmError EINVAL, EBADF */
  override unmapPart(offset: number, length: number): void {
    const { prot, flags, fd } = NOTHING;
    this.partCall('mmap', offset, length, (hva) => this.calls.mmapFixed(hva, length, prot, flags, fd, 0));
    this.#replace(offset, roundToPages(this.calls, length, 'length'), []);
    this.changed(offset, length);
  }

  /** mprotect(2) of a part, all of which must have memory. @throws KvmError ENOMEM where it has none, EACCES, EINVAL */
  override protect(offset: number, length: number, prot: number): void {
    super.protect(offset, length, prot);
    const size = roundToPages(this.calls, length, 'length');
    const pieces = this.#within(offset, size).map((piece) => ({ ...piece, prot }));
    this.#replace(offset, size, pieces);
  }

  /** Gives the pages of a part back, as {@link Mapping.discard} does for each kind of memory; where there is none, nothing happens. */
  override discard(offset = 0, length = this.size): void {
    this.assertOpen('madvise');
    for (const piece of this.#within(checkSize(offset, 'offset'), checkSize(length, 'length'))) {
      this.advise(piece.kind === 'memfd' ? MADV.REMOVE : MADV.DONTNEED, piece.offset, piece.size);
    }
  }

  override whyNot(offset: number): string {
    const piece = this.#pieces[this.#firstBehind(checkSize(offset, 'offset'))];
    return piece === undefined || piece.offset > offset
      ? `nothing is at ${hex(offset)} of its reservation`
      : `the ${piece.kind} memory there is protected, or ends before`;
  }

  override [inspect.custom](): string {
    const rows = this.#pieces.map(({ kind, offset, size, prot }) => [
      hexRange(offset, size),
      humanSize(size),
      kind,
      protectionName(prot),
    ]);
    const head = super[inspect.custom]();
    return rows.length === 0 ? head : `${head}\n${table(['offset', 'size', 'kind', 'access'], rows)}`;
  }

  #put(offset: number, source: MappingSource): void {
    this.assertOpen('mmap');
    checkSize(offset, 'offset');
    const { kind, size, prot } = source;
    // Behind its end there may be another reservation.
    const result =
      offset + size > this.size
        ? -ERRNO.EINVAL
        : this.calls.mmapFixed(this.hva + offset, size, prot, source.flags, source.fd, source.offset);
    if (result < 0) throw mmapFailure(result, this.calls, source, this.#whyNotAt(offset, source));
    this.#replace(offset, size, prot === PROT.NONE && kind === 'anonymous' ? [] : [{ kind, offset, size, prot }]);
    this.changed(offset, size);
  }

  #whyNotAt(offset: number, { kind, size }: MappingSource): string {
    const { pageSize } = this.calls;
    if (offset % pageSize !== 0) return `${hex(offset)} is not a multiple of the page size, ${hex(pageSize)}`;
    if (offset + size > this.size) {
      return `${hexRange(offset, size)} reaches beyond the reservation, which has ${hex(this.size)} bytes`;
    }
    return `${hexRange(offset, size)} of the reservation can't show ${kind} memory: whole pages of its size, which may be huge, are needed`;
  }

  /** The parts of pieces in a range. */
  #within(offset: number, length: number): MappedPiece[] {
    const end = offset + length;
    return this.#pieces
      .slice(this.#firstBehind(offset), this.#firstFrom(end))
      .map((piece) => cut(piece, Math.max(piece.offset, offset), Math.min(piece.offset + piece.size, end)));
  }

  /** Books what is in a range from now on. */
  #replace(offset: number, size: number, pieces: readonly MappedPiece[]): void {
    const end = offset + size;
    const first = this.#firstBehind(offset);
    const touched = this.#pieces.slice(first, this.#firstFrom(end));
    const before = touched.filter((piece) => piece.offset < offset).map((piece) => cut(piece, piece.offset, offset));
    const behind = touched
      .filter((piece) => piece.offset + piece.size > end)
      .map((piece) => cut(piece, end, piece.offset + piece.size));
    this.#pieces.splice(first, touched.length, ...before, ...pieces, ...behind);
  }

  /** The index of the first piece that ends behind an offset. */
  #firstBehind(offset: number): number {
    return this.#first((piece) => piece.offset + piece.size > offset);
  }

  /** The index of the first piece that begins there or behind. */
  #firstFrom(offset: number): number {
    return this.#first((piece) => piece.offset >= offset);
  }

  #first(is: (piece: MappedPiece) => boolean): number {
    let low = 0;
    for (let high = this.#pieces.length; low < high; ) {
      const middle = (low + high) >>> 1;
      if (is(this.#pieces[middle]!)) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}

function cut(piece: MappedPiece, start: number, end: number): MappedPiece {
  return { ...piece, offset: start, size: end - start };
}

function protectionName(prot: number): string {
  const names = [(prot & PROT.READ) === 0 ? '' : 'read', (prot & PROT.WRITE) === 0 ? '' : 'write'];
  return names.filter((name) => name !== '').join(', ') || 'none';
}
