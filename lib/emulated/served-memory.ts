import { VIEW_WINDOW } from '../calls/kvm-calls.ts';
import { UFFDIO_REGISTER_MODE } from '../uapi/userfaultfd.ts';
import type { PlaceInBacking } from './backing.ts';

/** Who is told of faults: an emulated userfaultfd. */
export interface FaultReceiver {
  faulted(hva: number, write: boolean, isProtected: boolean): void;
}

/** What a userfaultfd has agreed on with the kernel. */
interface Agreed {
  /** The kernel itself resolves stores to protected pages. */
  readonly resolvesStores: boolean;
  /** Pages that aren't there are protected like others. */
  readonly protectsMissing: boolean;
}

/** What a userfaultfd is registered for. */
interface Registered {
  readonly owner: FaultReceiver;
  readonly start: number;
  readonly end: number;
  readonly mode: number;
  readonly agreed: Agreed;
  /** Protected pages, by number, with what they had where that is not zeros: stores through views are found out by that. */
  readonly protectedPages: Map<number, Uint8Array | undefined>;
}

interface Waiter {
  readonly page: number;
  wake(): void;
}

/**
 * The userfaultfds' side of the emulated process's memory: which pages are missing or protected, and who waits for them.
 *
 * What is done by calls and guests is known; what is done through views is found by the bytes. A page that a view only read, or only wrote zeros to, before
 * its memory was registered is missing therefore, where the real kernel has it, and a store through a view that changes nothing is not found.
 *
 * Huge pages are protected, written and brought as wholes, and those that are not there count as protected.
 */
export class ServedMemory {
  readonly #pageSize: number;
  readonly #placeOf: (hva: number) => PlaceInBacking | undefined;
  #registered: Registered[] = [];
  #waiters: Waiter[] = [];

  constructor(pageSize: number, placeOf: (hva: number) => PlaceInBacking | undefined) {
    this.#pageSize = pageSize;
    this.#placeOf = placeOf;
  }

  /** Whether nobody has registered anything. */
  get isIdle(): boolean {
    return this.#registered.length === 0;
  }

  /** Whether somebody who accesses memory may have to wait. */
  get isServing(): boolean {
    return this.#registered.some(waits);
  }

  /** Whether that is so of a range. */
  serves(start: number, end: number): boolean {
    return this.#registered.some((one) => waits(one) && one.start < end && one.end > start);
  }

  ownersIn(start: number, end: number): FaultReceiver[] {
    return this.#registered.filter((one) => one.start < end && one.end > start).map(({ owner }) => owner);
  }

  servesFor(start: number, end: number): FaultReceiver | undefined {
    return this.#registered.find((one) => waits(one) && one.start < end && one.end > start)?.owner;
  }

  /**
   * Registers a range of which nobody else has a part. What the owner has registered there for all of the mode stays so; else it is for
   * this mode alone from now on. Pages stay protected, but without that mode nobody waits for them.
   */
  register(owner: FaultReceiver, start: number, end: number, mode: number, agreed: Agreed): void {
    const before = this.#registered
      .filter((one) => one.start < end && one.end > start)
      .sort((a, b) => a.start - b.start);
    this.#take(owner, start, end);
    let at = start;
    const add = (to: number, protectedPages: Registered['protectedPages'], modes: number): void => {
      if (at < to) this.#registered.push({ owner, start: at, end: to, mode: modes, agreed, protectedPages });
      at = Math.max(at, to);
    };
    for (const one of before) {
      add(one.start, new Map(), mode);
      if (!protects(one)) this.#protectAgain(one);
      add(Math.min(one.end, end), one.protectedPages, (one.mode & mode) === mode ? one.mode : mode);
    }
    add(end, new Map(), mode);
  }

  /** Ends what an owner has in a range; who waits goes on. */
  unregister(owner: FaultReceiver, start = 0, end = Number.POSITIVE_INFINITY): void {
    this.#take(owner, start, end);
    this.wake(start, end);
  }

  #take(owner: FaultReceiver, start: number, end: number): void {
    this.#registered = this.#registered.flatMap((one) => {
      if (one.owner !== owner || one.end <= start || one.start >= end) return [one];
      const parts: Registered[] = [];
      if (one.start < start) parts.push({ ...one, end: start });
      if (one.end > end) parts.push({ ...one, start: end });
      return parts;
    });
  }

  /** What was stored while there was no protection of what is protected isn't told later. */
  #protectAgain(registered: Registered): void {
    const { start, end, protectedPages } = registered;
    for (const page of protectedPages.keys()) if (page >= start && page < end) this.#protect(registered, page);
  }

  #protect({ protectedPages }: Registered, page: number): void {
    protectedPages.set(page, this.#contentsAt(page, this.unitAt(page)));
  }

  /** Whether all of a range is registered by one for the same: what lies side by side is one then. */
  isOne(start: number, end: number): boolean {
    let one = this.#at(start);
    while (one !== undefined && one.end < end) {
      const next = this.#at(one.end);
      one = next?.owner === one.owner && next.mode === one.mode ? next : undefined;
    }
    return one !== undefined;
  }

  /** What is registered at an address. */
  modeAt(hva: number): number | undefined {
    return this.#at(hva)?.mode;
  }

  /** Whether the page that begins at an address is protected, be it there or not. */
  isProtected(page: number): boolean {
    return this.#at(page)?.protectedPages.has(page) === true;
  }

  /** Bytes of the pages at an address, which may be huge ones. */
  unitAt(hva: number): number {
    return this.#placeOf(hva)?.backing.unit ?? this.#pageSize;
  }

  /** Whether the page that begins at an address is there. */
  isPresent(page: number): boolean {
    const place = this.#placeOf(page);
    if (place === undefined || place.backing.isThere?.(place.offset) !== false) return true;
    const { backing, offset } = place;
    const unit = backing.unit ?? this.#pageSize;
    return this.#contents({ backing, offset: offset - (offset % unit) }, unit) !== undefined;
  }

  /** The bytes from an address on that can be accessed without waiting. */
  reachable(hva: number, length: number, write: boolean): number {
    if (!this.isServing) return length;
    for (let page = hva - (hva % this.#pageSize); page < hva + length; page += this.#pageSize) {
      if (this.#waitsFor(page, write) !== undefined) return Math.max(0, page - hva);
    }
    return length;
  }

  /** Somebody has to wait for a page: its userfaultfd hears of it. False when nobody has to. */
  fault(page: number, write: boolean): boolean {
    const why = this.#waitsFor(page, write);
    if (why === undefined) return false;
    this.#at(page)!.owner.faulted(page, write, why === 'protected');
    return true;
  }

  /** Calls back once, when those who wait for a page are woken. */
  whenWoken(page: number, wake: () => void): void {
    this.#waiters.push({ page, wake });
  }

  wake(start: number, end: number): void {
    const woken = this.#waiters.filter(({ page }) => page >= start && page < end);
    this.#waiters = this.#waiters.filter((waiter) => !woken.includes(waiter));
    for (const { wake } of woken) wake();
  }

  /** Memory was accessed, by a call or a guest. */
  touched(hva: number, length: number, write: boolean): void {
    if (!write) return;
    const unit = this.unitAt(hva);
    for (let page = hva - (hva % unit); page < hva + length; page += unit) {
      const registered = this.#at(page);
      if (registered !== undefined && protects(registered)) registered.protectedPages.delete(page);
    }
  }

  /** A page is there from now on. */
  brought(hva: number): void {
    const place = this.#placeOf(hva);
    place?.backing.bring?.(place.offset, 1);
  }

  /** Pages were given back. Those of private memory lose their protection with that, where pages are not huge. */
  discarded(start: number, end: number, keepsProtection: boolean): void {
    if (this.isIdle) return;
    const unit = this.unitAt(start);
    for (let page = start - (start % unit); page < end; page += unit) {
      const registered = this.#at(page);
      if (registered?.protectedPages.has(page) !== true) continue;
      if (keepsProtection) this.#protect(registered, page);
      else registered.protectedPages.delete(page);
    }
  }

  /** A range shows something else, or nothing. */
  unmapped(start: number, end: number): void {
    for (const owner of new Set(this.#registered.map((one) => one.owner))) this.unregister(owner, start, end);
  }

  /** Protects a range, or ends that. */
  protect(start: number, end: number, isProtected: boolean): void {
    const unit = this.unitAt(start);
    for (let page = start; page < end; page += unit) {
      const registered = this.#at(page);
      if (registered === undefined) continue;
      if (!isProtected) registered.protectedPages.delete(page);
      else if (
        registered.agreed.protectsMissing ||
        (registered.mode & UFFDIO_REGISTER_MODE.MISSING) === 0 ||
        this.isPresent(page)
      )
        this.#protect(registered, page);
    }
  }

  /**
   * Calls back with the pages of a range that were written since they were protected; where wanted, protects them again, and leaves those out for
   * which the kernel itself doesn't resolve stores. What is not
   * protected counts as written, but for huge pages that aren't there (the kernel leaves out what has no page table yet, too, which depends on the
   * mappings around it); of one that is only in part in the range, nothing can be protected, and it isn't told.
   * @returns false where it came to a page for which stores aren't resolved, and they have to be
   */
  written(start: number, end: number, protect: boolean, check: boolean, found: (page: number) => void): boolean {
    const unit = this.unitAt(start);
    const isHuge = unit !== this.#pageSize;
    for (let page = start - (start % unit); page < end; page += unit) {
      const registered = this.#at(page);
      const isTracked = registered !== undefined && tracks(registered);
      if (check && !isTracked) return false;
      const isWhole = page >= start && page + unit <= end;
      if (protect && !(isTracked && isWhole)) continue;
      if (!this.#isWritten(registered, page, unit) || (isHuge && !this.isPresent(page))) continue;
      for (let at = Math.max(page, start); at < Math.min(page + unit, end); at += this.#pageSize) found(at);
      if (protect) this.#protect(registered!, page);
    }
    return true;
  }

  #isWritten(registered: Registered | undefined, page: number, unit: number): boolean {
    if (registered?.protectedPages.has(page) !== true) return true;
    if (!tracks(registered)) return false;
    const before = registered.protectedPages.get(page);
    const now = this.#contentsAt(page, unit, false);
    if (now === undefined || before === undefined) return now !== before;
    return !Buffer.from(now.buffer, now.byteOffset, now.length).equals(before);
  }

  #at(hva: number): Registered | undefined {
    return this.#registered.find(({ start, end }) => hva >= start && hva < end);
  }

  #waitsFor(page: number, write: boolean): 'missing' | 'protected' | undefined {
    const registered = this.#at(page);
    if (registered === undefined) return undefined;
    if ((registered.mode & UFFDIO_REGISTER_MODE.MISSING) !== 0 && !this.isPresent(page)) return 'missing';
    const isProtected =
      protects(registered) && !registered.agreed.resolvesStores && registered.protectedPages.has(page);
    return write && isProtected ? 'protected' : undefined;
  }

  /** What a page has; undefined where that is zeros. */
  #contentsAt(page: number, unit: number, copy = true): Uint8Array | undefined {
    const place = this.#placeOf(page);
    const bytes = place && this.#contents(place, unit);
    return copy ? bytes?.slice() : bytes;
  }

  /** The bytes of a page; undefined where they are zeros, or a file's. */
  #contents({ backing, offset }: PlaceInBacking, unit: number): Uint8Array | undefined {
    if (!backing.hasBytes(offset)) return undefined;
    const window = backing.window(offset);
    const at = offset % VIEW_WINDOW;
    const words = new BigUint64Array(window, at, unit / 8);
    return words.some((word) => word !== 0n) ? new Uint8Array(window, at, unit) : undefined;
  }
}

function protects({ mode }: Registered): boolean {
  return (mode & UFFDIO_REGISTER_MODE.WP) !== 0;
}

/** Whether the kernel notes stores to pages that were protected. */
function tracks(registered: Registered): boolean {
  return protects(registered) && registered.agreed.resolvesStores;
}

function waits({ mode, agreed }: Registered): boolean {
  return mode !== UFFDIO_REGISTER_MODE.WP || !agreed.resolvesStores;
}
