import { hex, hexRange, KvmError } from '../base/errors.ts';
import { type Range, RangeTable } from '../base/range-table.ts';
import type { KvmCalls } from '../calls/kvm-calls.ts';
import { GuestMemory } from '../memory/guest-memory.ts';
import type { MemoryRange } from '../memory/lookup.ts';
import { Mapping } from '../memory/mapping.ts';
import type { Descriptor } from '../sharing/descriptor.ts';
import { ERRNO } from '../uapi/errno.ts';
import { LoggedPages } from './log.ts';
import type { TableEntry } from './message.ts';
import { LOG_PAGE } from './protocol.ts';

/** The most regions: each is a mapping. */
export const MAX_REGIONS = 64;

/** A region of the front end's, mapped here. */
class SharedRegion implements MemoryRange {
  readonly start: number;
  readonly size: number;
  readonly offset: number;
  readonly mapping: Mapping;
  readonly userAddress: number;

  constructor({ gpa, size, userAddress, mmapOffset }: TableEntry, mapping: Mapping) {
    this.start = gpa;
    this.size = size;
    this.offset = mmapOffset;
    this.userAddress = userAddress;
    this.mapping = mapping;
  }

  get end(): number {
    return this.start + this.size;
  }

  isOf({ gpa, size, userAddress }: TableEntry): boolean {
    return this.start === gpa && this.size === size && this.userAddress === userAddress;
  }

  toString(): string {
    return `region ${hexRange(this.start, this.size)}`;
  }
}

/** The same region by the addresses at which the front end has it. */
interface UserRange extends Range {
  readonly region: SharedRegion;
}

/**
 * Guest memory as a front end tells of it: what a back end may touch, and nothing else. Files that can shrink are accessed by
 * copies, so that a peer that truncates one causes an error, and no signal.
 */
export class MemoryTable {
  readonly #calls: KvmCalls;
  readonly #regions = new RangeTable<SharedRegion>();
  readonly #users = new RangeTable<UserRange>();
  /** Typed access to it. */
  readonly memory: GuestMemory;
  /** Notes what is written there. */
  readonly written = new LoggedPages();

  constructor(calls: KvmCalls, littleEndian: boolean) {
    this.#calls = calls;
    this.memory = new GuestMemory(
      { ranges: this.#regions, describe: () => this.#describe() },
      { littleEndian, pageSize: LOG_PAGE, written: this.written },
    );
  }

  get regions(): readonly MemoryRange[] {
    return this.#regions.entries;
  }

  /**
   * Maps one more region; the descriptor is closed.
   * @throws KvmError EINVAL for what isn't whole pages, EEXIST for what overlaps, ENOSPC, and as mmap does
   */
  add(entry: TableEntry, descriptor: Descriptor): void {
    using _descriptor = descriptor;
    this.#check(entry);
    const size = entry.mmapOffset + entry.size;
    const region = new SharedRegion(entry, Mapping.file(this.#calls, descriptor.fd, { size }));
    this.#regions.insert(region);
    const { userAddress } = entry;
    this.#users.insert({ start: userAddress, end: userAddress + entry.size, region });
    this.memory.dropViews();
  }

  /** @throws KvmError ENOENT when there is no such region */
  remove(entry: TableEntry): void {
    const region = this.#regions.find(entry.gpa);
    if (region?.isOf(entry) !== true) {
      const explanation = `there is no region ${hexRange(entry.gpa, entry.size)} at user address ${hex(entry.userAddress)}; ${this.#describe()}`;
      throw new KvmError(ERRNO.ENOENT, { syscall: 'REM_MEM_REG', gpa: entry.gpa, size: entry.size, explanation });
    }
    this.#drop(region);
  }

  clear(): void {
    for (const region of [...this.#regions.entries]) this.#drop(region);
  }

  /** The guest physical address of so many bytes at an address of the front end's. @throws KvmError EFAULT */
  gpaOf(userAddress: number, size: number, what: string): number {
    const found = this.#users.find(userAddress);
    if (found === undefined || userAddress + size > found.end) {
      const explanation = `${what} ${hexRange(userAddress, size)} is not inside one region; ${this.#describe()}`;
      throw new KvmError(ERRNO.EFAULT, { syscall: 'SET_VRING_ADDR', size, explanation });
    }
    return found.region.start + (userAddress - found.start);
  }

  #check(entry: TableEntry): void {
    const why = this.#whyNot(entry);
    if (why === undefined) return;
    const { gpa, size } = entry;
    throw new KvmError(why.errno, { syscall: 'map region', gpa, size, explanation: why.explanation });
  }

  #whyNot({ gpa, size, userAddress, mmapOffset }: TableEntry) {
    if (this.#regions.length === MAX_REGIONS) {
      return { errno: ERRNO.ENOSPC, explanation: `there are ${MAX_REGIONS} regions already` };
    }
    for (const [what, value] of Object.entries({ gpa, size, mmapOffset })) {
      if (value % LOG_PAGE !== 0) {
        return { errno: ERRNO.EINVAL, explanation: `${what} ${hex(value)} is not a multiple of ${LOG_PAGE}` };
      }
    }
    if (size === 0) return { errno: ERRNO.EINVAL, explanation: 'the region is empty' };
    for (const [what, start] of Object.entries({ gpa, userAddress, mmapOffset })) {
      if (start + size > Number.MAX_SAFE_INTEGER) {
        return { errno: ERRNO.EINVAL, explanation: `${what} ${hexRange(start, size)} ends at 2^53 or beyond` };
      }
    }
    const other =
      this.#regions.overlapping(gpa, gpa + size) ?? this.#users.overlapping(userAddress, userAddress + size)?.region;
    if (other === undefined) return undefined;
    const range = hexRange(gpa, size);
    return { errno: ERRNO.EEXIST, explanation: `${range} at user address ${hex(userAddress)} overlaps ${other}` };
  }

  #drop(region: SharedRegion): void {
    this.#regions.remove(region);
    this.#users.remove(this.#users.find(region.userAddress)!);
    this.memory.dropViews();
    region.mapping.close();
  }

  #describe(): string {
    const { entries } = this.#regions;
    return entries.length === 0 ? 'the table has no regions' : `the table has ${entries.join(', ')}`;
  }
}
