import { VIEW_WINDOW } from '../calls/kvm-calls.ts';
import { UFFDIO_REGISTER_MODE } from '../uapi/userfaultfd.ts';
import type { Backing, PlaceInBacking } from './backing.ts';

/** Who is told of faults: an emulated userfaultfd. */
export interface FaultReceiver {
  faulted(hva: number, write: boolean, isProtected: boolean): void;
}

/** What a userfaultfd is registered for. */
interface Registered {
  readonly owner: FaultReceiver;
  readonly start: number;
  readonly end: number;
  readonly mode: number;
  /** The kernel itself resolves stores to protected pages. */
  readonly resolvesStores: boolean;
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
 * A page that was only read, or only written with zeros, before its memory was registered is missing then, where the real kernel has it: the bytes alone don't tell.
 * A store through a view is found by comparing, so that one which changes nothing is not.
 */
export class ServedMemory {
  readonly #pageSize: number;
  readonly #placeOf: (hva: number) => PlaceInBacking | undefined;
  #registered: Registered[] = [];
  #waiters: Waiter[] = [];
  /** The pages that are there, by the memory that they are of, while some of it is registered for missing ones. */
  readonly #present = new Map<Backing, Set<number>>();

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

  register(owner: FaultReceiver, start: number, end: number, mode: number, resolvesStores: boolean): void {
    const before = this.#registered.filter((one) => one.start < end && one.end > start);
    const modes = before.reduce((all, one) => all | one.mode, mode);
    this.unregister(owner, start, end);
    this.#registered.push({ owner, start, end, mode: modes, resolvesStores, protectedPages: new Map() });
    if ((modes & UFFDIO_REGISTER_MODE.MISSING) === 0) return;
    for (let hva = start; hva < end; hva += this.#pageSize) {
      const place = this.#placeOf(hva);
      if (place === undefined) continue;
      const pages = this.#present.get(place.backing) ?? new Set<number>();
      this.#present.set(place.backing, pages);
      if (this.#contents(place) !== undefined) pages.add(place.offset);
    }
  }

  /** Ends what an owner has in a range; who waits goes on. */
  unregister(owner: FaultReceiver, start = 0, end = Number.POSITIVE_INFINITY): void {
    this.#registered = this.#registered.flatMap((one) => {
      if (one.owner !== owner || one.end <= start || one.start >= end) return [one];
      const parts: Registered[] = [];
      if (one.start < start) parts.push({ ...one, end: start });
      if (one.end > end) parts.push({ ...one, start: end });
      return parts;
    });
    if (!this.#registered.some(({ mode }) => (mode & UFFDIO_REGISTER_MODE.MISSING) !== 0)) this.#present.clear();
    this.wake(start, end);
  }

  /** What is registered at an address. */
  modeAt(hva: number): number | undefined {
    return this.#at(hva)?.mode;
  }

  /** Whether a page is there, as far as that matters to anybody. */
  isPresent(hva: number): boolean {
    const place = this.#placeOf(hva - (hva % this.#pageSize));
    const pages = place && this.#present.get(place.backing);
    return pages === undefined || pages.has(place!.offset);
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
  fault(hva: number, write: boolean): boolean {
    const page = hva - (hva % this.#pageSize);
    const why = this.#waitsFor(page, write);
    if (why === undefined) return false;
    this.#at(page)!.owner.faulted(page, write, why === 'protected');
    return true;
  }

  /** Calls back once, when those who wait for a page are woken. */
  whenWoken(hva: number, wake: () => void): void {
    this.#waiters.push({ page: hva - (hva % this.#pageSize), wake });
  }

  wake(start: number, end: number): void {
    const woken = this.#waiters.filter(({ page }) => page >= start && page < end);
    this.#waiters = this.#waiters.filter((waiter) => !woken.includes(waiter));
    for (const { wake } of woken) wake();
  }

  /** Memory was accessed, by a call or a guest. */
  touched(hva: number, length: number, write: boolean): void {
    for (let page = hva - (hva % this.#pageSize); page < hva + length; page += this.#pageSize) {
      if (write) this.#at(page)?.protectedPages.delete(page);
      this.brought(page);
    }
  }

  /** A page is there from now on. */
  brought(page: number): void {
    const place = this.#present.size === 0 ? undefined : this.#placeOf(page);
    if (place !== undefined) this.#present.get(place.backing)?.add(place.offset);
  }

  /** Pages were given back. Those of private memory lose their protection with that. */
  discarded(start: number, end: number, isShared: boolean): void {
    if (this.isIdle) return;
    for (let page = start; page < end; page += this.#pageSize) {
      const place = this.#placeOf(page);
      if (place !== undefined) this.#present.get(place.backing)?.delete(place.offset);
      const protectedPages = this.#at(page)?.protectedPages;
      if (protectedPages?.has(page) !== true) continue;
      if (isShared) protectedPages.set(page, undefined);
      else protectedPages.delete(page);
    }
  }

  /** A range shows something else, or nothing. */
  unmapped(start: number, end: number): void {
    for (const owner of new Set(this.#registered.map((one) => one.owner))) this.unregister(owner, start, end);
  }

  /** Protects a range, or ends that. */
  protect(start: number, end: number, isProtected: boolean): void {
    for (let page = start; page < end; page += this.#pageSize) {
      const registered = this.#at(page);
      if (registered === undefined) continue;
      if (!isProtected) registered.protectedPages.delete(page);
      else if (registered.resolvesStores || this.isPresent(page)) this.#protect(registered, page);
    }
    if (!isProtected) this.wake(start, end);
  }

  /**
   * Calls back with the pages of a range that were written since they were protected; where wanted, protects them again. What is not
   * protected counts as written.
   */
  written(start: number, end: number, protect: boolean, found: (page: number) => void): void {
    for (let page = start; page < end; page += this.#pageSize) {
      const registered = this.#at(page);
      if (registered?.resolvesStores !== true) {
        if (this.#placeOf(page) !== undefined) found(page);
        continue;
      }
      if (registered.protectedPages.has(page) && !this.#isChanged(registered, page)) continue;
      found(page);
      if (protect) this.#protect(registered, page);
    }
  }

  #at(hva: number): Registered | undefined {
    return this.#registered.find(({ start, end }) => hva >= start && hva < end);
  }

  #waitsFor(page: number, write: boolean): 'missing' | 'protected' | undefined {
    const registered = this.#at(page);
    if (registered === undefined) return undefined;
    if ((registered.mode & UFFDIO_REGISTER_MODE.MISSING) !== 0 && !this.isPresent(page)) return 'missing';
    return write && !registered.resolvesStores && registered.protectedPages.has(page) ? 'protected' : undefined;
  }

  #protect({ protectedPages }: Registered, page: number): void {
    const place = this.#placeOf(page);
    protectedPages.set(page, place && this.#contents(place)?.slice());
  }

  #isChanged({ protectedPages }: Registered, page: number): boolean {
    const place = this.#placeOf(page);
    const now = place && this.#contents(place);
    const before = protectedPages.get(page);
    if (now === undefined || before === undefined) return now !== before;
    return !Buffer.from(now.buffer, now.byteOffset, now.length).equals(before);
  }

  /** The bytes of a page; undefined where they are zeros, or a file's. */
  #contents({ backing, offset }: PlaceInBacking): Uint8Array | undefined {
    if (backing.kind === 'file' || !backing.hasBytes(offset)) return undefined;
    const window = backing.window(offset);
    const words = new BigUint64Array(window, offset % VIEW_WINDOW, this.#pageSize / 8);
    return words.some((word) => word !== 0n) ? new Uint8Array(window, offset % VIEW_WINDOW, this.#pageSize) : undefined;
  }
}

function waits({ mode, resolvesStores }: Registered): boolean {
  return mode !== UFFDIO_REGISTER_MODE.WP || !resolvesStores;
}
