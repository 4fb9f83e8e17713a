import { inspect } from 'node:util';
import {
  checkBoolean,
  checkFunction,
  checkInteger,
  checkName,
  checkObject,
  checkOptions,
  checkSize,
  type NamesOf,
  normalU64,
} from '../base/arguments.ts';
import { hexRange } from '../base/errors.ts';
import { humanSize } from '../base/text.ts';
import type { U64 } from '../base/u64.ts';
import { callError, isClosed } from '../calls/failure.ts';
import { ERRNO } from '../uapi/errno.ts';
import type { MemoryRange } from './lookup.ts';
import type { Mapping } from './mapping.ts';

/** A guest_memfd, as a region needs to know it. */
export interface GuestPages {
  readonly fd: number;
  readonly size: number;
}

/** @throws KvmError EBADF when it is closed */
function checkGuestPages(given: GuestPages): void {
  const { fd, size } = checkObject(given, 'options.guestMemfd');
  if (fd === -1) throw callError('setUserMemoryRegion2', ERRNO.EBADF, { explanation: isClosed('the guest_memfd') });
  checkInteger(fd, 'options.guestMemfd.fd', 0, 0x7fff_ffff);
  checkSize(size, 'options.guestMemfd.size');
}

/** What a region is made of: a range of guest physical addresses, and the slice of a mapping behind it. */
export interface Placement extends MemoryRange {
  readonly mapping: Mapping;
  readonly readOnly: boolean;
  /** Where the guest's private pages are, from an offset on. */
  readonly guestMemfd?: GuestPages | undefined;
  readonly guestMemfdOffset?: number | undefined;
}

/** What a guest's store of `size` bytes at `offset` from a range's start does. Values of up to 4 bytes are numbers, longer ones bigints. */
export type StoreHandler = (offset: number, value: number | bigint, size: number) => void;

/** What a region has beside its place. */
interface RegionParts {
  readonly name?: string | undefined;
  readonly onStore?: StoreHandler | undefined;
}

/** Options of a memory region. */
export interface RegionOptions {
  /** Where the slice begins in the mapping; 0 by default. */
  readonly offset?: number;
  /** Bytes; by default the rest of the mapping. */
  readonly size?: number;
  /** Guests may only read (KVM_CAP_READONLY_MEM; not on s390x). A guest's store is then an MMIO exit. */
  readonly readOnly?: boolean;
  /**
   * Takes guests' stores while the region is read-only, as a flash chip takes commands: `offset` is from the region's start,
   * the value as for {@link MmioHandlers.write}. Stores across the region's end stay exits.
   */
  readonly onStore?: StoreHandler;
  /**
   * A guest_memfd of the VM's for the pages that are private ({@link Vm.setMemoryAttributes}), or for all that the guest accesses if it can be mapped (6.18). Such
   * a region can't be moved, read-only, or tracked for dirty pages.
   */
  readonly guestMemfd?: GuestPages;
  /** Where the region's pages begin in the guest_memfd; 0 by default. */
  readonly guestMemfdOffset?: number;
  readonly name?: string;
}

const REGION_OPTIONS: NamesOf<RegionOptions> = {
  offset: true,
  size: true,
  readOnly: true,
  onStore: true,
  guestMemfd: true,
  guestMemfdOffset: true,
  name: true,
};

/** The region that is asked for, each option read once. */
export function toPlacement(start: number, mapping: Mapping, options: RegionOptions): Placement & RegionParts {
  const given = checkOptions(options, REGION_OPTIONS);
  const offset = checkSize(given.offset ?? 0, 'options.offset');
  const size = checkSize(given.size ?? Math.max(0, mapping.size - offset), 'options.size');
  const readOnly = checkBoolean(given.readOnly ?? false, 'options.readOnly');
  const name = checkName(given.name, 'options.name');
  const { onStore, guestMemfd } = given;
  if (guestMemfd !== undefined) checkGuestPages(guestMemfd);
  const guestMemfdOffset = checkSize(given.guestMemfdOffset ?? 0, 'options.guestMemfdOffset');
  if (onStore !== undefined) checkFunction(onStore, 'options.onStore');
  return { start, end: start + size, mapping, offset, size, readOnly, guestMemfd, guestMemfdOffset, name, onStore };
}

/** The address space's side of a region, through which the region's own methods change it. */
export interface RegionOwner {
  remove(region: MemoryRegion): void;
  move(region: MemoryRegion, gpa: U64): void;
  setReadOnly(region: MemoryRegion, readOnly: boolean): void;
}

/** A range of guest physical addresses with memory behind it: RAM, or a device's memory passed through. */
export class MemoryRegion implements Placement {
  readonly kind: 'ram' | 'device';
  readonly offset: number;
  readonly size: number;
  readonly name: string | undefined;
  readonly guestMemfdOffset: number;
  // Not enumerable: a HandlerError takes its region along to other threads, where functions and handles cannot go.
  readonly #mapping: Mapping;
  readonly #guestMemfd: GuestPages | undefined;
  readonly #onStore: StoreHandler | undefined;
  readonly #owner: RegionOwner;
  /** First byte, as a double that is exact since it is a whole page. Changed by the address space only. */
  start: number;
  /** Whether guests may only read. The host may write nevertheless. Changed by the address space only. */
  readOnly: boolean;

  constructor(owner: RegionOwner, kind: 'ram' | 'device', placement: Placement & RegionParts) {
    this.#owner = owner;
    this.kind = kind;
    this.offset = placement.offset;
    this.size = placement.size;
    this.start = placement.start;
    this.readOnly = placement.readOnly;
    this.guestMemfdOffset = placement.guestMemfdOffset ?? 0;
    this.name = placement.name;
    this.#mapping = placement.mapping;
    this.#guestMemfd = placement.guestMemfd;
    this.#onStore = placement.onStore;
  }

  get mapping(): Mapping {
    return this.#mapping;
  }

  /** The guest_memfd that its private pages are in, from {@link guestMemfdOffset} on. */
  get guestMemfd(): GuestPages | undefined {
    return this.#guestMemfd;
  }

  /** Takes guests' stores while it is read-only. */
  get onStore(): StoreHandler | undefined {
    return this.#onStore;
  }

  get end(): number {
    return this.start + this.size;
  }

  /** Guest physical address: a number where that is exact, else a bigint. */
  get gpa(): U64 {
    return normalU64(this.start);
  }

  /** Host virtual address of its first byte. */
  get hva(): number {
    return this.#mapping.hva + this.offset;
  }

  /**
   * Takes the region out of its address space, and its memslots out of every VM bound to it. What is dirty of it then, and
   * was not collected, the next `collect()` tells as `dirtyPages.removed`.
   */
  remove(): void {
    this.#owner.remove(this);
  }

  /** Moves the region to another address: its memslots are moved, dirty bits kept. @throws KvmError EEXIST, EINVAL */
  move(gpa: U64): void {
    this.#owner.move(this, gpa);
  }

  /** Makes it read-only for guests or writable again: its memslots are deleted and made anew. @throws KvmError EINVAL */
  setReadOnly(readOnly: boolean): void {
    this.#owner.setReadOnly(this, readOnly);
  }

  [Symbol.dispose](): void {
    this.remove();
  }

  [inspect.custom](): string {
    return `${this} → ${this.mapping.kind} hva ${hexRange(this.hva, this.size)} (${humanSize(this.size)})`;
  }

  toString(): string {
    const name = this.name === undefined ? '' : ` '${this.name}'`;
    return `${this.kind}${name} ${hexRange(BigInt(this.start), this.size)}${this.readOnly ? ' read-only' : ''}`;
  }
}
