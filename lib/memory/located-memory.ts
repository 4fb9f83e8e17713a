import { checkSize, checkU64 } from '../base/arguments.ts';
import { hex, KvmError } from '../base/errors.ts';
import type { U64 } from '../base/u64.ts';
import { VIEW_WINDOW } from '../calls/kvm-calls.ts';
import { ERRNO } from '../uapi/errno.ts';
import { advance, joinGpa, type SplitGpa, splitGpa } from './gpa.ts';
import type { MemoryWindow, ViewHolder } from './mapping.ts';
import type { PageSet } from './page-set.ts';
import { RangeTable } from './range-table.ts';
import type { MemoryRegion } from './region.ts';

/** Where an address was found. */
export interface Translation {
  readonly region: MemoryRegion;
  /** Offset in the region's mapping. */
  readonly offset: number;
  /** Host virtual address. */
  readonly hva: number;
  /** Bytes from there to the end of the region. */
  readonly available: number;
}

/** Indices of {@link LocatedMemory}'s bounds. */
const BASE = 0;
const LOW = 1;
const HIGH = 2;

/** Guest physical memory as far as addresses are found in it, bytes moved, and writes noted. */
export abstract class LocatedMemory implements ViewHolder {
  /** The guest's byte order: the default of every access. */
  readonly littleEndian: boolean;
  /** Bytes of a page of the host, and so of a guest frame. */
  readonly pageSize: number;
  protected readonly table = new RangeTable<MemoryRegion>();
  #written: readonly PageSet[] = [];
  protected tracking = false;

  /** The window that the last access was in, */
  protected window: MemoryWindow | undefined;
  /**
   * and what of it the region has: the address of its byte 0, and the range of bytes. In an array, so that setting
   * it allocates nothing.
   */
  readonly #bounds = Float64Array.of(0, 0, -1);

  protected constructor(littleEndian: boolean, pageSize: number) {
    this.littleEndian = littleEndian;
    this.pageSize = pageSize;
  }

  /** Says what is at an address that has no memory. */
  protected abstract describe(at: SplitGpa): string;

  /** Where an address is: region, offset in its mapping, host virtual address. Undefined when it has no memory. */
  translate(gpa: U64): Translation | undefined {
    return this.locate(splitGpa(gpa));
  }

  /** The guest physical addresses at which a byte of host memory is seen: none, one, or several. */
  gpasOf(hva: number): U64[] {
    checkSize(hva, 'hva');
    const found: U64[] = [];
    for (const region of this.table.entries) {
      const offset = hva - region.hva;
      if (offset < 0 || offset >= region.size) continue;
      const at = { page: region.start, rest: 0 };
      advance(at, offset);
      found.push(joinGpa(at));
    }
    return found;
  }

  /** Tells dirty tracking about a write that was made through a slice. */
  markDirty(gpa: U64, length: number): void {
    this.mark(checkU64(gpa, 'gpa'), checkSize(length, 'length'));
  }

  /** Collects the frames that are written from now on in a set, until {@link forgetWrites}. */
  recordWrites(pages: PageSet): void {
    this.#written = [...this.#written, pages];
    this.tracking = true;
  }

  forgetWrites(pages: PageSet): void {
    this.#written = this.#written.filter((other) => other !== pages);
    this.tracking = this.#written.length > 0;
  }

  /** Forgets the window of the last access: the memory behind it may be gone. */
  dropViews(): void {
    this.#bounds[HIGH] = -1;
    this.window = undefined;
  }

  /** Offset in `#view` of `size` bytes at `gpa`, or −1 when they are not in one window. */
  protected at(gpa: U64, size: number): number {
    if (typeof gpa === 'number') {
      const bounds = this.#bounds;
      const at = gpa - bounds[BASE]!;
      if (at >= bounds[LOW]! && at <= bounds[HIGH]! - size && (at | 0) === at) return at;
      return this.#seek(gpa, size);
    }
    if (typeof gpa !== 'bigint' || gpa > Number.MAX_SAFE_INTEGER) return -1;
    return this.at(Number(gpa), size);
  }

  #seek(gpa: number, size: number): number {
    const { table } = this;
    const entry = table.indexOf(gpa);
    if (entry < 0 || gpa > Number.MAX_SAFE_INTEGER) return -1;
    const origin = table.originAt(entry);
    const index = Math.floor((gpa - origin) / VIEW_WINDOW);
    const window = table.entries[entry]!.mapping.window(index);
    if (window === undefined) return -1;
    const base = origin + index * VIEW_WINDOW;
    const high = Math.min(window.length, Math.min(table.endAt(entry), Number.MAX_SAFE_INTEGER) - base);
    const bounds = this.#bounds;
    bounds[BASE] = base;
    bounds[LOW] = Math.max(0, table.startAt(entry) - base);
    bounds[HIGH] = high;
    this.window = window;
    const at = gpa - base;
    return at <= high - size && (at | 0) === at ? at : -1;
  }

  protected transfer(from: SplitGpa, bytes: Uint8Array, write: boolean): number {
    const at = { ...from };
    let done = 0;
    while (done < bytes.length) {
      const found = this.locate(at);
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

  protected locate({ page, rest }: SplitGpa): Translation | undefined {
    const region = this.table.find(page);
    if (region === undefined) return undefined;
    const inRegion = page - region.start + rest;
    const offset = region.offset + inRegion;
    return { region, offset, hva: region.mapping.hva + offset, available: region.size - inRegion };
  }

  protected mark(gpa: U64, length: number): void {
    if (length === 0) return;
    let first: number;
    let last: number;
    if (typeof gpa === 'number') {
      first = Math.floor(gpa / this.pageSize);
      last = Math.floor((gpa + length - 1) / this.pageSize);
    } else {
      const { page, rest } = splitGpa(gpa);
      first = Math.floor(page / this.pageSize);
      last = first + Math.floor(((page % this.pageSize) + rest + length - 1) / this.pageSize);
    }
    for (const pages of this.#written) {
      if (first === last) pages.add(first);
      else pages.addRange(first, last + 1);
    }
  }

  protected requireAll(access: 'read' | 'write', gpa: U64, wanted: number, done: number): void {
    if (done === wanted) return;
    const at = splitGpa(gpa);
    advance(at, done);
    throw this.fault(access, at, wanted - done, done > 0 ? ` (${done} of ${wanted} bytes are done)` : '');
  }

  protected fault(access: 'read' | 'write', at: SplitGpa, size: number, note = ''): KvmError {
    const found = this.locate(at);
    const gpa = joinGpa(at);
    const why =
      found === undefined
        ? this.describe(at)
        : `${found.region} has a page there that cannot be ${access === 'read' ? 'read' : 'written'}: ${found.region.mapping.whyNot(found.offset)}`;
    return new KvmError(ERRNO.EFAULT, { syscall: access, gpa, size, explanation: `${hex(gpa)}: ${why}${note}` });
  }

  protected notDirect(at: SplitGpa, size: number): KvmError {
    const gpa = joinGpa(at);
    const explanation = `${hex(gpa)} is in ${this.locate(at)!.region}, which is not mapped directly: use read and write`;
    return new KvmError(ERRNO.EACCES, { syscall: 'view', gpa, size, explanation });
  }
}
