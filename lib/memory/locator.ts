import { hex, KvmError } from '../base/errors.ts';
import type { U64 } from '../base/u64.ts';
import { VIEW_WINDOW } from '../calls/kvm-calls.ts';
import { ERRNO } from '../uapi/errno.ts';
import { advance, joinGpa, type SplitGpa, splitGpa } from './gpa.ts';
import type { GpaTranslation, MemoryLookup, MemoryRange } from './lookup.ts';
import type { MemoryWindow } from './memory-window.ts';

/** Indices of {@link Locator}'s bounds. */
const BASE = 0;
const LOW = 1;
const HIGH = 2;

/** Finds addresses in a lookup, and remembers where the last one was. */
export class Locator<R extends MemoryRange> {
  readonly #lookup: MemoryLookup<R>;
  /** The window that the last access was in, */
  window: MemoryWindow | undefined;
  /**
   * and what of it the range has: the address of its byte 0, and the range of bytes. In an array, so that setting
   * it allocates nothing.
   */
  readonly #bounds = Float64Array.of(0, 0, -1);

  constructor(lookup: MemoryLookup<R>) {
    this.#lookup = lookup;
  }

  /** Forgets the window of the last access: the memory behind it may be gone, or elsewhere. */
  forget(): void {
    this.#bounds[HIGH] = -1;
    this.window = undefined;
  }

  /** Offset in {@link window} of `size` bytes at `gpa`, or −1 when they are not in one window. */
  at(gpa: U64, size: number): number {
    if (typeof gpa === 'number') {
      const bounds = this.#bounds;
      const at = gpa - bounds[BASE]!;
      if (at >= bounds[LOW]! && at <= bounds[HIGH]! - size && (at | 0) === at) return at;
      return this.#seek(gpa, size);
    }
    if (typeof gpa !== 'bigint' || gpa > Number.MAX_SAFE_INTEGER) return -1;
    return this.at(Number(gpa), size);
  }

  find({ page, rest }: SplitGpa): GpaTranslation<R> | undefined {
    const region = this.#lookup.ranges.find(page);
    if (region === undefined) return undefined;
    const inRegion = page - region.start + rest;
    if (inRegion >= region.size) return undefined;
    const offset = region.offset + inRegion;
    return { region, offset, hva: region.mapping.hva + offset, available: region.size - inRegion };
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
    return new KvmError(ERRNO.EACCES, { syscall: 'view', gpa, size, explanation });
  }

  #seek(gpa: number, size: number): number {
    const { ranges } = this.#lookup;
    const entry = ranges.indexOf(gpa);
    if (entry < 0 || gpa > Number.MAX_SAFE_INTEGER) return -1;
    const origin = ranges.originAt(entry);
    const index = Math.floor((gpa - origin) / VIEW_WINDOW);
    const window = ranges.entries[entry]!.mapping.window(index);
    if (window === undefined) return -1;
    const base = origin + index * VIEW_WINDOW;
    const high = Math.min(window.length, Math.min(ranges.endAt(entry), Number.MAX_SAFE_INTEGER) - base);
    const bounds = this.#bounds;
    bounds[BASE] = base;
    bounds[LOW] = Math.max(0, ranges.startAt(entry) - base);
    bounds[HIGH] = high;
    this.window = window;
    const at = gpa - base;
    return at <= high - size && (at | 0) === at ? at : -1;
  }
}
