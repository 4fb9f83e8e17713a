import { isPowerOfTwo } from '../base/arguments.ts';
import { copyBytes, copyMemory } from '../base/copy-bytes.ts';
import { partOf } from '../base/part-of.ts';
import { VIEW_WINDOW } from '../calls/kvm-calls.ts';
import { ERRNO } from '../uapi/errno.ts';
import { MADV, MAP, MAP_HUGE_BITS, PROT } from '../uapi/flags.ts';
import {
  type Backing,
  HUGE_PAGE,
  type MapRequest,
  type MapSource,
  MemoryBacking,
  type PlaceInBacking,
} from './backing.ts';
import { ServedMemory } from './served-memory.ts';

/**
 * Where made-up host virtual addresses begin, and where they end. They grow upwards, and none is used again while there
 * are new ones, so that a stale address faults instead of reaching somebody else's memory.
 */
const FIRST_HVA = 0x7000_0000_0000;
const END_HVA = 0x8000_0000_0000;

const ALL_PROT = PROT.READ | PROT.WRITE | PROT.EXEC;

/** No processor has pages that may be written and not read (tried on x86_64 6.18 and s390x 6.12). */
const permits = (prot: number, write: boolean): boolean => (prot & (write ? PROT.WRITE : PROT.READ | PROT.WRITE)) !== 0;

const ALL_MAP = Object.values<number>(MAP).reduce((all, flag) => all | flag);

/** Neighbouring pages that show the same thing with the same protection (the kernel's VMA). */
interface Area {
  readonly mapping: HostMapping;
  readonly start: number;
  readonly end: number;
  readonly prot: number;
  readonly shared: boolean;
  readonly readOnly: boolean;
  readonly backing: Backing;
  /** Where in the backing the area begins. */
  readonly offset: number;
  /** The backing goes with its last area (anonymous memory and files), or belongs to an fd. */
  readonly owned: boolean;
}

/** One mmap: addresses that are the caller's. What is in none of its areas was unmapped, or is reserved only. */
export interface HostMapping {
  readonly hva: number;
  readonly length: number;
  /** Addresses without memory, until some is put in. */
  readonly isReservation: boolean;
  /** Sorted by address. */
  areas: Area[];
  guarded: boolean;
  /** User space got a view of it, and may have touched any part. */
  viewed: boolean;
  /** …and may have handed it on, to a thread that cannot be stopped. */
  lent: boolean;
  /** The views stay when it goes. */
  leavesViews: boolean;
}

/** Hears of what user space does to its memory, other than through views of it. */
export interface MemoryObserver {
  touched(hva: number, length: number, write: boolean): void;
  /** Whatever was there is no more; something else may be. */
  unmapped?(start: number, end: number): void;
}

/** Told of pages that may be others from now on, or not there: what was mapped for a guest must be looked up again. */
export interface MmuNotifier {
  invalidated(start: number, end: number): void;
}

/**
 * The emulated process's memory: made-up addresses over real bytes. What may be touched is decided per page when it
 * is touched, as on a real host.
 */
export class EmulatedHostMemory {
  readonly pageSize: number;
  #next = FIRST_HVA;
  /** In ascending order of hva. */
  readonly #mappings: HostMapping[] = [];
  #last: Area | undefined;

  /** Where {@link resolve} found the bytes. */
  bytes: Uint8Array = new Uint8Array(0);
  at = 0;
  available = 0;

  readonly #views = new WeakMap<ArrayBuffer, Uint8Array>();
  /** Counts the changes after which an address may mean other bytes, or none: what was resolved before is void. */
  generation = 0;
  readonly #notifiers = new Set<MmuNotifier>();
  readonly #observers = new Set<MemoryObserver>();

  /** What userfaultfds have to do with it. */
  readonly served: ServedMemory;

  constructor(pageSize: number) {
    this.pageSize = pageSize;
    this.served = new ServedMemory(pageSize, (hva) => this.#placeOf(hva));
  }

  /** Tells somebody of invalidated pages, until it is forgotten. */
  notify(notifier: MmuNotifier): void {
    this.#notifiers.add(notifier);
  }

  forget(notifier: MmuNotifier): void {
    this.#notifiers.delete(notifier);
  }

  /** Tells somebody what user space does, until it is unobserved. */
  observe(observer: MemoryObserver): void {
    this.#observers.add(observer);
  }

  unobserve(observer: MemoryObserver): void {
    this.#observers.delete(observer);
  }

  #tell(what: (observer: MemoryObserver) => void): void {
    for (const observer of this.#observers) what(observer);
  }

  #placeOf(hva: number): PlaceInBacking | undefined {
    const area = this.#areaAt(hva);
    return area === undefined ? undefined : { backing: area.backing, offset: area.offset + (hva - area.start) };
  }

  /** The mapping that a range is inside of. */
  mappingAround(hva: number, length: number): HostMapping | undefined {
    const mapping = length > 0 ? this.#find(hva) : undefined;
    return mapping !== undefined && hva + length <= mapping.hva + mapping.length ? mapping : undefined;
  }

  /** Whether a part of a range shows a file. */
  hasFile(start: number, end: number): boolean {
    return this.#areasIn(start, end).some(({ backing }) => backing.kind === 'file');
  }

  /** Whether a part of a range shows huge pages that others may have, too: the addon can't read those without waiting. */
  hasSharedHuge(start: number, end: number): boolean {
    return this.#areasIn(start, end).some(({ shared, backing: { unit = 0 } }) => shared && unit > this.pageSize);
  }

  /** Whether a part of a range shows memory that nobody else can have. */
  hasPrivate(start: number, end: number): boolean {
    const areas = this.#areasIn(start, end);
    const shown = areas.reduce((sum, area) => sum + Math.min(area.end, end) - Math.max(area.start, start), 0);
    // What was unmapped stays reserved, for nobody else.
    if (shown < end - start) return true;
    return areas.some(({ shared, owned }) => !shared && owned);
  }

  #areasIn(start: number, end: number): readonly Area[] {
    return this.#find(start)?.areas.filter((area) => area.start < end && area.end > start) ?? [];
  }

  /** Takes the views of a mapping away; there may be others later. */
  hideViews(mapping: HostMapping): void {
    if (mapping.guarded) return;
    this.#guard(mapping);
    mapping.guarded = false;
  }

  /** The mapping at an address is about to go, and whoever has a view of it keeps that: nobody has the addresses any more. */
  leaveViews(hva: number): void {
    const mapping = this.#find(hva);
    if (mapping !== undefined) mapping.leavesViews = true;
  }

  /** Fills a page, whoever may have to wait for it. */
  fill(hva: number, bytes: Uint8Array): void {
    if (this.resolve(hva, true) || this.resolve(hva, false)) this.bytes.set(bytes, this.at);
  }

  /** Whether user space got a view of the memory at an address: what it does there, nobody hears. */
  isViewed(hva: number): boolean {
    return this.#areaAt(hva)?.mapping.viewed === true;
  }

  /** What mmap refuses whatever the place and the descriptor: −errno, or 0. */
  static refusal({ length, prot, flags }: MapRequest): number {
    const known = (flags & MAP.HUGETLB) === 0 ? ALL_MAP : ALL_MAP | MAP_HUGE_BITS;
    const sharing = flags & (MAP.SHARED | MAP.PRIVATE);
    const refused =
      (flags & ~known) !== 0 ||
      (prot & ~ALL_PROT) !== 0 ||
      length === 0 ||
      sharing === 0 ||
      sharing === (MAP.SHARED | MAP.PRIVATE);
    return refused ? -ERRNO.EINVAL : 0;
  }

  /** mmap of what an fd gave, or of anonymous memory. */
  map(request: MapRequest, align: number, alignOffset: number, source: MapSource | undefined): number {
    const { length, prot, flags } = request;
    if (align !== 0 && (align < this.pageSize || !isPowerOfTwo(align))) return -ERRNO.EINVAL;
    if (alignOffset % this.pageSize !== 0) return -ERRNO.EINVAL;
    const isHuge = (flags & MAP.HUGETLB) !== 0;
    const page = this.#pageOf(flags, source);
    const rounded = roundUp(length, page);
    const hva = this.#place(rounded, Math.max(align, page), align === 0 ? 0 : alignOffset % align);
    if (hva === undefined) return -ERRNO.ENOMEM;
    const mapping: HostMapping = {
      hva,
      length: rounded,
      isReservation: prot === PROT.NONE && source === undefined && !isHuge,
      areas: [],
      guarded:
        source?.backing.kind === 'file' ||
        source?.guarded === true ||
        (prot & (PROT.READ | PROT.WRITE)) !== (PROT.READ | PROT.WRITE),
      viewed: false,
      lent: false,
      leavesViews: false,
    };
    if (!mapping.isReservation) mapping.areas.push(newArea(mapping, hva, rounded, page, request, source));
    this.#mappings.splice(this.#mappings.findLastIndex((other) => other.hva < hva) + 1, 0, mapping);
    return hva;
  }

  /** Bytes of a page of what is mapped. */
  #pageOf(flags: number, source: MapSource | undefined): number {
    return source?.backing.unit ?? ((flags & MAP.HUGETLB) === 0 ? this.pageSize : HUGE_PAGE);
  }

  /** Addresses for a new mapping: ones that nobody had, or else the first that are free. One page stays free behind each. */
  #place(length: number, unit: number, offset: number): number | undefined {
    const from = (at: number): number => {
      const hva = at - (at % unit) + offset;
      return hva < at ? hva + unit : hva;
    };
    const fresh = from(this.#next);
    if (fresh + length <= END_HVA) {
      this.#next = fresh + length + this.pageSize;
      return fresh;
    }
    let hva = from(FIRST_HVA);
    for (const mapping of this.#mappings) {
      if (hva + length + this.pageSize <= mapping.hva) return hva;
      hva = from(mapping.hva + mapping.length + this.pageSize);
    }
    return hva + length <= END_HVA ? hva : undefined;
  }

  /** mmap with MAP_FIXED, inside a reservation only. `source` finds out what to show, or −errno. */
  mapFixed(hva: number, request: MapRequest, source: () => MapSource | number | undefined): number {
    const mapping = this.#inside(hva, request.length);
    const length = roundUp(request.length, this.pageSize);
    if (mapping?.isReservation !== true) return -ERRNO.EINVAL;
    const found = source();
    if (typeof found === 'number') return found;
    const page = this.#pageOf(request.flags, found);
    if (hva % page !== 0 || length % page !== 0) return -ERRNO.EINVAL;
    const isNothing = request.prot === PROT.NONE && found === undefined;
    this.#replace(
      mapping,
      hva,
      hva + length,
      ...(isNothing ? [] : [newArea(mapping, hva, length, page, request, found)]),
    );
    this.#tell((observer) => observer.unmapped?.(hva, hva + length));
    return 0;
  }

  unmap(hva: number, length: number): number {
    const mapping = this.#inside(hva, length);
    if (mapping === undefined) return -ERRNO.EINVAL;
    this.#guard(mapping);
    const size = roundUp(length, this.pageSize);
    this.served.unmapped(hva, hva + size);
    this.#replace(mapping, hva, hva + size);
    this.#tell((observer) => observer.unmapped?.(hva, hva + size));
    // What part by part became empty goes as a whole.
    const isGone = mapping.isReservation ? size === mapping.length : mapping.areas.length === 0;
    if (isGone) this.#mappings.splice(this.#mappings.indexOf(mapping), 1);
    return 0;
  }

  protect(hva: number, length: number, prot: number): number {
    const mapping = this.#inside(hva, length);
    if (mapping === undefined || (prot & ~ALL_PROT) !== 0) return -ERRNO.EINVAL;
    const end = hva + roundUp(length, this.pageSize);
    const parts = partsOf(mapping, hva, end);
    if (parts === undefined) return -ERRNO.ENOMEM;
    if ((prot & PROT.WRITE) !== 0 && parts.some(({ readOnly }) => readOnly)) return -ERRNO.EACCES;
    if (mapping.lent) return -ERRNO.EBUSY;
    this.#guard(mapping);
    this.#replace(mapping, hva, end, ...parts.map((part) => ({ ...part, prot })));
    return 0;
  }

  advise(hva: number, length: number, advice: number): number {
    const mapping = this.#inside(hva, length);
    if (mapping === undefined || !Object.values<number>(MADV).includes(advice)) return -ERRNO.EINVAL;
    const end = hva + roundUp(length, this.pageSize);
    const parts = partsOf(mapping, hva, end);
    if (parts === undefined) return -ERRNO.ENOMEM;
    if (advice === MADV.POPULATE_READ || advice === MADV.POPULATE_WRITE) {
      return this.served.serves(hva, end) ? -ERRNO.EDEADLK : this.#populate(parts, advice);
    }
    if (advice !== MADV.DONTNEED && advice !== MADV.REMOVE) return 0;
    for (const { start, end, backing, offset, shared, owned } of parts) {
      const { unit = this.pageSize } = backing;
      const isHuge = unit !== this.pageSize;
      // Only shared memory can get holes. What is private and shows no file has none to get them.
      if (advice === MADV.REMOVE && !shared)
        return isHuge || !owned || backing.kind === 'file' ? -ERRNO.EACCES : -ERRNO.EINVAL;
      // A huge page that is needed in part is needed.
      if (advice === MADV.DONTNEED && start % unit !== 0) return -ERRNO.EINVAL;
      const last = advice === MADV.DONTNEED ? end - (end % unit) : end;
      // Shared pages that are not needed stay where they are, with all that have them.
      if (advice !== MADV.REMOVE && shared) continue;
      backing.discard(offset, last - start);
      this.served.discarded(start, last, shared || isHuge);
    }
    this.#invalidate(hva, end);
    return 0;
  }

  /** Faults pages in, one after the other: 0, or what the first says that can't be accessed. */
  #populate(parts: readonly Area[], advice: number): number {
    const wanted = advice === MADV.POPULATE_WRITE ? PROT.WRITE : PROT.READ;
    for (const { start, end, backing, offset, prot } of parts) {
      if ((prot & wanted) === 0) return -ERRNO.EINVAL;
      if (offset + end - start > roundUp(backing.size(), this.pageSize)) return -ERRNO.EFAULT;
      backing.bring?.(offset, end - start);
    }
    return 0;
  }

  /** The same ArrayBuffer as {@link window}; it counts as in use until the mapping goes. */
  view(hva: number, length: number): ArrayBuffer | number {
    const window = this.window(hva, length);
    if (typeof window !== 'number') this.#find(hva)!.lent = true;
    return window;
  }

  window(hva: number, length: number): ArrayBuffer | number {
    const mapping = this.#find(hva);
    if (mapping === undefined) return -ERRNO.EINVAL;
    const offset = hva - mapping.hva;
    if (offset % VIEW_WINDOW !== 0 || length !== Math.min(VIEW_WINDOW, mapping.length - offset)) return -ERRNO.EINVAL;
    if (mapping.guarded || this.served.serves(mapping.hva, mapping.hva + mapping.length)) return -ERRNO.EACCES;
    const area = mapping.areas[0]!;
    const inBacking = area.offset + offset;
    if (inBacking % VIEW_WINDOW !== 0) return -ERRNO.EACCES;
    const window = area.backing.window(inBacking);
    if (window.byteLength !== length) return -ERRNO.EACCES;
    mapping.viewed = true;
    return window;
  }

  /** Bytes of a window that is handed out. */
  vmap(hva: number, length: number): Uint8Array | number {
    const mapping = this.#find(hva);
    if (mapping === undefined || length === 0 || hva + length > mapping.hva + mapping.length) return -ERRNO.EINVAL;
    const at = (hva - mapping.hva) % VIEW_WINDOW;
    const start = hva - at;
    const view = this.view(start, Math.min(VIEW_WINDOW, mapping.hva + mapping.length - start));
    if (typeof view === 'number') return view;
    return at + length > view.byteLength ? -ERRNO.EACCES : new Uint8Array(view, at, length);
  }

  vunmap(bytes: Uint8Array): number {
    if (bytes.buffer.byteLength === 0) return 0;
    const backings = this.#mappings.flatMap(({ lent, guarded, areas }) =>
      lent && !guarded ? [areas[0]!.backing] : [],
    );
    const shown = backings.find((backing) => backing instanceof MemoryBacking && backing.has(bytes.buffer));
    shown?.detach();
    return shown === undefined ? -ERRNO.EINVAL : 0;
  }

  /**
   * Finds the bytes at an address: `bytes[at .. at + available)` up to the end of the page or more. False when the
   * page isn't there, may not be accessed that way, or has no bytes of ours (a file).
   */
  resolve(hva: number, write: boolean, length = 1): boolean {
    const area = this.#areaAt(hva);
    if (area === undefined || !permits(area.prot, write)) return false;
    const { backing } = area;
    const inBacking = area.offset + (hva - area.start);
    if (backing.kind === 'file' || inBacking >= backing.size()) return false;
    const window = backing.window(inBacking);
    const at = inBacking % VIEW_WINDOW;
    this.bytes = this.#bytesOf(window);
    this.at = at;
    this.available = Math.min(area.end - hva, window.byteLength - at);
    backing.bring?.(inBacking, Math.min(length, this.available));
    return true;
  }

  /** Whether bytes at an address exist in this process; where they were never asked for, they would be zeros. */
  hasBytes(hva: number): boolean {
    const area = this.#areaAt(hva);
    return area?.backing.hasBytes(area.offset + (hva - area.start)) === true;
  }

  /** Copies out of memory as the kernel's copy_from_user does: the bytes that were readable from the start on. */
  read(hva: number, into: Uint8Array): number {
    return this.#copy(hva, into, false);
  }

  /** Copies into memory likewise. */
  write(hva: number, from: Uint8Array): number {
    return this.#copy(hva, from, true);
  }

  /** Why nothing could be read, or written: −errno. */
  whyNot(hva: number, write: boolean): number {
    return this.canAccess(hva, write) && this.served.reachable(hva, 1, write) === 0 ? -ERRNO.EAGAIN : -ERRNO.EFAULT;
  }

  /** Whether a page may be read, or written, now. */
  canAccess(hva: number, write: boolean): boolean {
    const area = this.#areaAt(hva);
    if (area === undefined || !permits(area.prot, write)) return false;
    const size = area.backing.size();
    if (area.offset + (hva - area.start) < size) return true;
    // A file is there to the end of its last page.
    const page = Math.floor((hva - area.start) / this.pageSize);
    return area.offset + page * this.pageSize < size;
  }

  /** Whether stores to an address go to memory that other mappings show too; private memory is copied by the first one. */
  isShared(hva: number): boolean {
    return this.#areaAt(hva)?.shared === true;
  }

  /** Whether the whole range lies inside one mapping. */
  isMapped(hva: number, length: number): boolean {
    return this.#inside(hva, length) !== undefined;
  }

  /**
   * Whether a range has pages that may not be written. Where nothing is mapped, a slot has inaccessible pages, so that nothing
   * else will ever be under it.
   */
  hasUnwritable(start: number, size: number): boolean {
    const mapping = this.#inside(start, size);
    // What is in none of its areas is reserved, and inaccessible.
    const parts = mapping === undefined ? undefined : partsOf(mapping, start, start + size);
    return parts?.every(({ prot }) => (prot & PROT.WRITE) !== 0) !== true;
  }

  /** Bytes from an address to the end of its mapping; 0 where there is none. */
  mappedBytes(hva: number): number {
    const mapping = this.#find(hva);
    return mapping === undefined ? 0 : mapping.hva + mapping.length - hva;
  }

  /**
   * Whether a range has something of a mapping and is not inside of it: no slot's, here as with the addon, in whose process
   * what is beside a mapping is somebody else's.
   */
  isCrossed(hva: number, length: number): boolean {
    if (this.#inside(hva, length) !== undefined) return false;
    return this.#mappings.some((mapping) => mapping.hva < hva + length && hva < mapping.hva + mapping.length);
  }

  #copy(hva: number, wanted: Uint8Array, write: boolean): number {
    if (this.served.isIdle) return this.#copyUnserved(hva, wanted, write);
    const reachable = this.served.reachable(hva, wanted.length, write);
    const done = this.#copyUnserved(hva, partOf(wanted, 0, reachable), write);
    if (done > 0) this.served.touched(hva, done, write);
    return done;
  }

  #copyUnserved(hva: number, bytes: Uint8Array, write: boolean): number {
    let done = 0;
    while (done < bytes.length) {
      const at = hva + done;
      if (this.resolve(at, write, bytes.length - done)) {
        const length = Math.min(this.available, bytes.length - done);
        if (this.#observers.size !== 0) this.#tell((observer) => observer.touched(at, length, write));
        if (write) copyBytes(bytes, done, this.bytes, this.at, length);
        else copyMemory(this.bytes, this.at, bytes, done, length);
        done += length;
        continue;
      }
      if (!this.canAccess(at, write)) break;
      const area = this.#areaAt(at)!;
      const pageEnd = (Math.floor(at / this.pageSize) + 1) * this.pageSize;
      const part = partOf(bytes, done, done + pageEnd - at);
      const moved = area.backing.transfer(area.offset + (at - area.start), part, write);
      // A page that a disk cannot give or take is none.
      if (moved < 0) break;
      // The rest of a file's last page reads as zero and takes what is written, without keeping it.
      if (!write) part.fill(0, moved);
      done += part.length;
    }
    return done;
  }

  #bytesOf(window: ArrayBuffer): Uint8Array {
    let bytes = this.#views.get(window);
    if (bytes === undefined) {
      bytes = new Uint8Array(window);
      this.#views.set(window, bytes);
    }
    return bytes;
  }

  #find(hva: number): HostMapping | undefined {
    const mapping = lastStartingAtOrBelow(this.#mappings, hva, (found) => found.hva);
    return mapping === undefined || hva >= mapping.hva + mapping.length ? undefined : mapping;
  }

  #areaAt(hva: number): Area | undefined {
    const last = this.#last;
    if (last !== undefined && hva >= last.start && hva < last.end) return last;
    const area = lastStartingAtOrBelow(this.#find(hva)?.areas ?? [], hva, (found) => found.start);
    if (area === undefined || hva >= area.end) return undefined;
    this.#last = area;
    return area;
  }

  #inside(hva: number, length: number): HostMapping | undefined {
    if (length <= 0 || hva % this.pageSize !== 0) return undefined;
    const mapping = this.#find(hva);
    return mapping !== undefined && hva + length <= mapping.hva + mapping.length ? mapping : undefined;
  }

  /** Takes the views of a mapping away; there will be none any more. */
  #guard(mapping: HostMapping): void {
    if (mapping.guarded) return;
    mapping.guarded = true;
    if (mapping.leavesViews) return;
    const { backing } = mapping.areas[0]!;
    // Two mappings of one memfd show the same ArrayBuffer: it stays for the other.
    const others = this.#mappings.filter((other) => other.viewed && !other.guarded);
    if (!others.some(({ areas }) => areas[0]!.backing === backing)) backing.detach();
  }

  /** Puts areas, or nothing, in the place of what is in a range of whole pages. */
  #replace(mapping: HostMapping, start: number, end: number, ...areas: Area[]): void {
    const before = mapping.areas;
    mapping.areas = [
      ...before.filter((area) => area.start < start).map((area) => part(area, area.start, Math.min(area.end, start))),
      ...areas,
      ...before.filter((area) => area.end > end).map((area) => part(area, Math.max(area.start, end), area.end)),
    ];
    this.#last = undefined;
    this.#invalidate(start, end);
    const kept = new Set(mapping.areas.map(({ backing }) => backing));
    const gone = new Set(before.filter(({ owned }) => owned).map(({ backing }) => backing));
    for (const backing of gone) {
      if (kept.has(backing)) continue;
      // Memory is whose who looks at it; a file is closed.
      if (!mapping.leavesViews || backing.kind === 'file') backing.release();
    }
  }

  #invalidate(start: number, end: number): void {
    this.generation++;
    for (const notifier of this.#notifiers) notifier.invalidated(start, end);
  }
}

function newArea(
  mapping: HostMapping,
  start: number,
  length: number,
  page: number,
  { prot, flags }: MapRequest,
  source: MapSource | undefined,
): Area {
  return {
    mapping,
    start,
    end: start + length,
    prot,
    shared: (flags & MAP.SHARED) !== 0,
    readOnly: source?.readOnly ?? false,
    backing: source?.backing ?? new MemoryBacking(length, page),
    offset: source?.offset ?? 0,
    owned: source === undefined || source.backing.kind === 'file',
  };
}

/** The part of an area that begins and ends there. */
function part(area: Area, start: number, end: number): Area {
  return { ...area, start, end, offset: area.offset + (start - area.start) };
}

/** The parts of areas that make up a range; undefined where one of its pages was unmapped. */
function partsOf({ areas }: HostMapping, start: number, end: number): Area[] | undefined {
  const parts = areas
    .filter((area) => area.start < end && area.end > start)
    .map((area) => part(area, Math.max(area.start, start), Math.min(area.end, end)));
  const covered = parts.reduce((sum, area) => sum + (area.end - area.start), 0);
  return covered === end - start ? parts : undefined;
}

function lastStartingAtOrBelow<T>(sorted: readonly T[], address: number, startOf: (item: T) => number): T | undefined {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (startOf(sorted[middle]!) <= address) low = middle + 1;
    else high = middle;
  }
  return sorted[low - 1];
}

function roundUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit;
}
