import type { U64 } from '../../../calls/kvm-calls.ts';
import { ERRNO } from '../../../uapi/errno.ts';
import { ASCE_REAL_SPACE } from '../model/asce.ts';
import { type CpuState, cr0Low } from '../model/cpu-state.ts';
import { consecutiveFrames, pageEntryOffset } from '../model/dat.ts';
import {
  DatTranslation,
  fetchOverridePermits,
  keyPermits,
  PGM_ALE_SEQUENCE,
  PGM_ALEN_TRANSLATION,
  PGM_ASTE_SEQUENCE,
  PGM_ASTE_VALIDITY,
  PGM_EXTENDED_AUTHORITY,
  PGM_PROTECTION,
  storageOverridePermits,
} from '../model/index.ts';
import {
  findAsce,
  inPrivateSpace,
  setEffectiveAddress,
  teidOf,
  translateFirstFragment,
  translateNextFragment,
} from '../model/translate.ts';
import { highHalfOf, lowHalfOf, pfnOf } from '../model/u64.ts';
import { MEM_OP_MAX_SIZE } from '../rules.ts';
import { placeIn } from './frame-cache.ts';
import type { S390xVm } from './vm-state.ts';

/** Access key with which a frame of ACC 9 is tried again under storage-protection override. */
const OVERRIDE_KEY = 9;
const U32 = 0x1_0000_0000;
const PAGE = 4096;
const PAGE_OFFSET = 0xfff;
/** Pages that a transfer of MEM_OP's largest size can touch. */
const MAX_FRAGMENTS = MEM_OP_MAX_SIZE / 4096 + 1;

/** What an access register that leads to no address space ends in. */
const AR_EXCEPTIONS: readonly number[] = [
  PGM_ALEN_TRANSLATION,
  PGM_ALE_SEQUENCE,
  PGM_ASTE_VALIDITY,
  PGM_ASTE_SEQUENCE,
  PGM_EXTENDED_AUTHORITY,
];

/** A program interruption that KVM made pending. */
export interface PendingInterruption {
  readonly code: number;
  readonly teid: bigint | undefined;
  /** Of those that have one: with a TEID, and where an access register leads to no address space. */
  readonly exceptionAccessId: number | undefined;
}

/**
 * A vCPU's accesses to its guest's logical addresses. First every page is translated, so that no byte moves if any page
 * has a translation exception; then the pages are moved one by one with the access key. Made once and used for every
 * access, as accesses should cost little.
 */
export class LogicalAccess {
  readonly #vm: S390xVm;
  readonly #cpu: CpuState;
  readonly #translation = new DatTranslation();
  /** Absolute frame of each fragment. */
  readonly #pfns = new Float64Array(MAX_FRAGMENTS);
  #store = false;
  #access: 'fetch' | 'store' = 'fetch';
  #ar = 0;
  #key = 0;
  #hi = 0;
  #lo = 0;
  /** A key failed after pages had been stored. */
  #terminating = false;

  constructor(vm: S390xVm, cpu: CpuState) {
    this.#vm = vm;
    this.#cpu = cpu;
  }

  /** What the next `check` or `move` is about. */
  begin(gaddr: U64, ar: number, store: boolean, key: number): void {
    this.#hi = highHalfOf(gaddr);
    this.#lo = lowHalfOf(gaddr);
    this.#ar = ar;
    this.#store = store;
    this.#access = store ? 'store' : 'fetch';
    this.#key = key;
    this.#terminating = false;
  }

  /** CHECK_ONLY: the first exception of the range, keys included. The interlock is taken even with DAT off. */
  check(size: number): number {
    const code = this.#select();
    if (code !== 0) return code;
    this.#vm.lockTranslations();
    try {
      for (let done = 0, length = 0; done < size; done += length) {
        length = this.#fragment(size - done);
        const failure = this.#translate() || this.#checkKey(length);
        if (failure !== 0) return failure;
        this.#advance(length);
      }
      return 0;
    } finally {
      this.#vm.unlockTranslations();
    }
  }

  /** Moves `size` bytes out of the guest into `data`, all of them or none, or from `data` into it. */
  move(data: Uint8Array, size: number): number {
    const code = this.#select();
    if (code !== 0) return code;
    // Only what reads translation tables has to keep the guest from invalidating them.
    const locked = (this.#translation.asceLo & ASCE_REAL_SPACE) === 0;
    if (locked) this.#vm.lockTranslations();
    try {
      return size <= PAGE - (this.#lo & PAGE_OFFSET) ? this.#moveInPage(data, size) : this.#moveAcross(data, size);
    } finally {
      if (locked) this.#vm.unlockTranslations();
    }
  }

  #moveAcross(data: Uint8Array, size: number): number {
    if (!this.#store && this.#key === 0 && this.#fetchPlainly(data, size)) return 0;
    return this.#translateAll(size) || (this.#store ? this.#storeAll(data, size) : this.#fetchAll(data, size));
  }

  #moveInPage(data: Uint8Array, size: number): number {
    return this.#translate() || this.#moveFragment(this.#translation.pfn, data, 0, size);
  }

  #moveFragment(pfn: number, data: Uint8Array, at: number, length: number): number {
    const { storage } = this.#vm;
    const offset = this.#lo & PAGE_OFFSET;
    // Without a key only the host can forbid it, and whether it does, the move shows.
    if (this.#key === 0 && storage.move(pfn, offset, data, at, length, this.#store) === 0) return 0;
    return this.#permits(pfn, length) || storage.move(pfn, offset, data, at, length, this.#store);
  }

  #fetchPlainly(data: Uint8Array, size: number): boolean {
    const hi = this.#hi;
    const lo = this.#lo;
    this.#translation.dat.segment = -1;
    const fetched = this.#fetchRun(data, 0, size);
    this.#hi = hi;
    this.#lo = lo;
    return fetched;
  }

  /**
   * Fetches `data[done .. size)` where nothing stands in the way, frames that are neighbours at once.
   * @returns false, with nothing fetched, if something does: page by page will tell what.
   */
  #fetchRun(data: Uint8Array, done: number, size: number): boolean {
    if (this.#translateNext() !== 0) return false;
    const { storage } = this.#vm;
    const { pfn } = this.#translation;
    const run = storage.readableRun(pfn);
    if (run === undefined) return false;
    const offset = this.#lo & PAGE_OFFSET;
    const pages = Math.min(Math.ceil((offset + size - done) / PAGE), run.end - pfn);
    const length = Math.min((1 + this.#neighbours(pages - 1)) * PAGE - offset, size - done);
    this.#advance(length);
    // What comes behind goes first: nothing may be fetched unless everything can.
    if (done + length < size && !this.#fetchRun(data, done + length, size)) return false;
    storage.moveIn(run, pfn, offset, data, done, length, false);
    return true;
  }

  /** How many pages behind the one translated last have the frames behind its frame, up to the end of the segment. */
  #neighbours(wanted: number): number {
    const { asceLo, dat, pfn, realPfn } = this.#translation;
    const inSegment = Math.min(wanted, 0xff - ((this.#lo >>> 12) & 0xff));
    // A frame of 1 MiB or more, which no prefix divides.
    if (dat.absolute) return inSegment;
    if (pfn !== realPfn) return 0;
    const { prefixPfn } = this.#cpu;
    const beforePrefix = pfn < prefixPfn ? Math.min(inSegment, prefixPfn - pfn - 1) : inSegment;
    if ((asceLo & ASCE_REAL_SPACE) !== 0) return beforePrefix;
    const table = pfnOf(dat.segmentHi, dat.segmentLo);
    const run = this.#vm.storage.readableRun(table);
    if (run === undefined) return 0;
    const at = placeIn(run, table) + pageEntryOffset(dat.segmentLo, this.#lo) + 8;
    return consecutiveFrames(run.view, at, beforePrefix);
  }

  #translateAll(size: number): number {
    const hi = this.#hi;
    const lo = this.#lo;
    this.#translation.dat.segment = -1;
    for (let done = 0, page = 0, length = 0; done < size; done += length, page++) {
      length = PAGE - (this.#lo & PAGE_OFFSET);
      const failure = this.#translateNext();
      if (failure !== 0) return failure;
      this.#pfns[page] = this.#translation.pfn;
      this.#advance(length);
    }
    this.#hi = hi;
    this.#lo = lo;
    return 0;
  }

  /** Nothing reaches `data` unless every page may be fetched. */
  #fetchAll(data: Uint8Array, size: number): number {
    const { storage } = this.#vm;
    const offset = this.#lo & PAGE_OFFSET;
    for (let done = 0, page = 0, length = 0; done < size; done += length, page++) {
      length = this.#fragment(size - done);
      const failure = this.#permits(this.#pfns[page]!, length);
      if (failure !== 0) return failure;
      this.#advance(length);
    }
    for (let done = 0, page = 0, length = 0; done < size; done += length, page++) {
      const at = page === 0 ? offset : 0;
      length = Math.min(PAGE - at, size - done);
      const moved = storage.move(this.#pfns[page]!, at, data, done, length, false);
      if (moved !== 0) return moved;
    }
    return 0;
  }

  /** What precedes a page with a key that forbids the store stays stored. */
  #storeAll(data: Uint8Array, size: number): number {
    for (let done = 0, page = 0; done < size; ) {
      let pages = this.#key === 0 ? this.#storeRun(page, data, done, size) : 0;
      if (pages === 0) {
        const failure = this.#moveFragment(this.#pfns[page]!, data, done, this.#fragment(size - done));
        if (failure !== 0) {
          this.#terminating = page > 0;
          return failure;
        }
        pages = 1;
      }
      const stored = this.#fragment(size - done, pages);
      this.#advance(stored);
      done += stored;
      page += pages;
    }
    return 0;
  }

  /** Stores `data[done .. size)` as far as frames follow one another from a page's on: to how many, or 0 where something stands in the way. */
  #storeRun(page: number, data: Uint8Array, done: number, size: number): number {
    const first = this.#pfns[page]!;
    let pages = 1;
    // What an access before this one left behind its last page is cut off.
    while (this.#pfns[page + pages] === first + pages) pages++;
    const length = this.#fragment(size - done, pages);
    return this.#vm.storage.moveAcross(first, this.#lo & PAGE_OFFSET, data, done, length, true) ? pages : 0;
  }

  /** Whether the machine's move with the access key, or an override, gets at the frame of the fragment. */
  #permits(pfn: number, length: number): number {
    const { storage } = this.#vm;
    setEffectiveAddress(this.#cpu, this.#hi, this.#lo, this.#translation);
    // The override's plain copy meets a host page that is missing as EFAULT, in `move`.
    if (!this.#store && this.#fetchOverride(length)) return 0;
    let result = storage.permits(pfn, this.#store, this.#key);
    if (result === PGM_PROTECTION) {
      const key = storage.states.key(storage.slot(pfn)!, pfn);
      if (storageOverridePermits(cr0Low(this.#cpu), key)) result = storage.permits(pfn, this.#store, OVERRIDE_KEY);
    }
    if (result === PGM_PROTECTION) this.#translation.protection = 'key';
    return result;
  }

  #select(): number {
    const cpu = this.#cpu;
    setEffectiveAddress(cpu, this.#hi, this.#lo, this.#translation);
    return findAsce(cpu, this.#vm.storage, this.#access, this.#ar, this.#translation);
  }

  #translate(): number {
    return translateFirstFragment(this.#cpu, this.#vm.storage, this.#hi, this.#lo, this.#access, this.#translation);
  }

  #translateNext(): number {
    const cpu = this.#cpu;
    return translateNextFragment(cpu, this.#vm.storage, this.#hi, this.#lo, this.#access, this.#translation);
  }

  #checkKey(length: number): number {
    if (this.#key === 0) return 0;
    const { storage } = this.#vm;
    const { pfn } = this.#translation;
    const slot = storage.slot(pfn)!;
    if (!this.#vm.ownsPageTables && !storage.isMapped(slot, pfn)) return -ERRNO.EFAULT;
    const key = storage.states.key(slot, pfn);
    if (keyPermits(this.#key, key, this.#store)) return 0;
    if (!this.#store && this.#fetchOverride(length)) return 0;
    if (storageOverridePermits(cr0Low(this.#cpu), key)) return 0;
    this.#translation.protection = 'key';
    return PGM_PROTECTION;
  }

  #fetchOverride(length: number): boolean {
    const cpu = this.#cpu;
    const { addressHi, addressLo } = this.#translation;
    return fetchOverridePermits(cr0Low(cpu), inPrivateSpace(cpu, this.#translation), addressHi, addressLo, length);
  }

  /** Length of the fragment at the current address: up to the end of its page, or of some more pages. */
  #fragment(rest: number, pages = 1): number {
    return Math.min(pages * PAGE - (this.#lo & PAGE_OFFSET), rest);
  }

  #advance(length: number): void {
    const next = this.#lo + length;
    if (next >= U32) this.#hi = (this.#hi + 1) >>> 0;
    this.#lo = next >>> 0;
  }

  /** What KVM makes pending about the failed access. */
  interruption(code: number): PendingInterruption {
    const teid = teidOf(this.#cpu, this.#translation, code, this.#access, this.#terminating);
    return { code, teid, exceptionAccessId: teid !== undefined || AR_EXCEPTIONS.includes(code) ? this.#ar : undefined };
  }
}
