import { closeSync, fstatSync, openSync, readSync, writeSync } from 'node:fs';
import { VIEW_WINDOW } from '../calls/kvm-calls.ts';
import { ERRNO } from '../uapi/errno.ts';
import { MADV, MAP, PROT } from '../uapi/flags.ts';

/**
 * Where made-up host virtual addresses begin; they grow upwards and are never used twice, so that a stale address
 * faults instead of reaching somebody else's memory.
 */
const FIRST_HVA = 0x7000_0000_0000;

/** Largest mapping: so many that a few hundred fit below the end of user space. */
const MAX_LENGTH = 2 ** 44;

/**
 * What a mapping shows: bytes that exist in windows of VIEW_WINDOW (made when first touched, so that a sparse
 * terabyte costs nothing), or a file that is read and written when it is accessed.
 */
export interface Backing {
  readonly kind: 'memory' | 'file';
  /** Bytes there are now; a file's may change behind our back. */
  size(): number;
  /** The window that holds `offset`. Only for `memory`. */
  window(offset: number): ArrayBuffer;
  /** Copies into or out of a file; the bytes moved. Only for `file`. */
  transfer(offset: number, bytes: Uint8Array, write: boolean): number;
  /** Gives every window a new identity, so that the ArrayBuffers handed out are detached and the bytes stay. */
  detach(): void;
  release(): void;
}

export class MemoryBacking implements Backing {
  readonly kind = 'memory';
  readonly #size: number;
  readonly #windows: (ArrayBuffer | undefined)[] = [];

  constructor(size: number) {
    this.#size = size;
  }

  size(): number {
    return this.#size;
  }

  window(offset: number): ArrayBuffer {
    const index = Math.floor(offset / VIEW_WINDOW);
    let window = this.#windows[index];
    if (window === undefined) {
      window = new ArrayBuffer(Math.min(VIEW_WINDOW, this.#size - index * VIEW_WINDOW));
      this.#windows[index] = window;
    }
    return window;
  }

  transfer(): number {
    return 0;
  }

  /** Forgets the bytes of a range: they read as zero. */
  discard(offset: number, length: number): void {
    for (let at = offset; at < offset + length; ) {
      const index = Math.floor(at / VIEW_WINDOW);
      const end = Math.min(offset + length, (index + 1) * VIEW_WINDOW);
      const window = this.#windows[index];
      if (window !== undefined) new Uint8Array(window, at - index * VIEW_WINDOW, end - at).fill(0);
      at = end;
    }
  }

  detach(): void {
    for (const [index, window] of this.#windows.entries()) {
      if (window !== undefined) this.#windows[index] = structuredClone(window, { transfer: [window] });
    }
  }

  release(): void {
    this.detach();
    this.#windows.length = 0;
  }
}

/**
 * Memory that the kernel and user space both look at (kvm_run, rings). The view is taken anew when user space's
 * mapping was undone meanwhile.
 */
export class SharedArea {
  readonly backing: MemoryBacking;
  #view: DataView;

  /** @param size at most VIEW_WINDOW bytes. */
  constructor(size: number) {
    this.backing = new MemoryBacking(size);
    this.#view = new DataView(this.backing.window(0));
  }

  get view(): DataView {
    const window = this.backing.window(0);
    if (this.#view.buffer !== window) this.#view = new DataView(window);
    return this.#view;
  }

  bytes(offset: number, length: number): Uint8Array {
    return new Uint8Array(this.backing.window(0), offset, length);
  }
}

class FileBacking implements Backing {
  readonly kind = 'file';
  readonly #fd: number;

  constructor(fd: number) {
    this.#fd = fd;
  }

  size(): number {
    return fstatSync(this.#fd).size;
  }

  window(): ArrayBuffer {
    throw new TypeError('a file has no windows');
  }

  transfer(offset: number, bytes: Uint8Array, write: boolean): number {
    // A mapping reaches to the end of the file's last page and never lets the file grow.
    const length = Math.min(bytes.length, Math.max(0, this.size() - offset));
    if (length === 0) return 0;
    return write ? writeSync(this.#fd, bytes, 0, length, offset) : readSync(this.#fd, bytes, 0, length, offset);
  }

  detach(): void {}

  release(): void {
    closeSync(this.#fd);
  }
}

/** One mmap. `holes` are the parts whose protection differs from `prot`; unmapped parts have protection −1. */
interface HostMapping {
  readonly hva: number;
  readonly length: number;
  readonly prot: number;
  readonly backing: Backing;
  readonly offset: number;
  /** The backing goes with the mapping (anonymous memory and files), or belongs to an fd. */
  readonly owned: boolean;
  holes: { start: number; end: number; prot: number }[];
  guarded: boolean;
  /** User space got a view of it, and may have touched any part. */
  viewed: boolean;
}

/** Hears of accesses to user space's memory, other than through views of it. */
export interface MemoryObserver {
  touched(hva: number, length: number, write: boolean): void;
}

const UNMAPPED = -1;

/**
 * The emulated process's memory: made-up addresses over real bytes. What may be touched is decided per page when it
 * is touched, as on a real host.
 */
export class HostMemory {
  readonly pageSize: number;
  #next = FIRST_HVA;
  /** In ascending order of hva. */
  readonly #mappings: HostMapping[] = [];
  #last: HostMapping | undefined;

  /** Where {@link resolve} found the bytes. */
  bytes: Uint8Array = new Uint8Array(0);
  at = 0;
  available = 0;

  readonly #views = new WeakMap<ArrayBuffer, Uint8Array>();
  observer: MemoryObserver | undefined;
  /** Counts the changes after which an address may mean other bytes, or none: what was resolved before is void. */
  generation = 0;

  constructor(pageSize: number) {
    this.pageSize = pageSize;
  }

  /** Whether user space got a view of the memory at an address: what it does there, nobody hears. */
  isViewed(hva: number): boolean {
    return this.#find(hva)?.viewed === true;
  }

  /** mmap of anonymous memory, or of a backing that an fd gave. */
  map(
    length: number,
    prot: number,
    flags: number,
    align: number,
    alignOffset: number,
    source: { backing: Backing; offset: number } | undefined,
  ): number {
    const sharing = flags & (MAP.SHARED | MAP.PRIVATE);
    if (length === 0 || sharing === 0 || sharing === (MAP.SHARED | MAP.PRIVATE)) return -ERRNO.EINVAL;
    if (align !== 0 && (align < this.pageSize || !Number.isInteger(Math.log2(align)))) return -ERRNO.EINVAL;
    if (alignOffset % this.pageSize !== 0) return -ERRNO.EINVAL;
    if (length > MAX_LENGTH) return -ERRNO.ENOMEM;
    const unit = Math.max(align, (flags & MAP.HUGETLB) !== 0 ? 0x20_0000 : this.pageSize);
    const rounded = Math.ceil(length / this.pageSize) * this.pageSize;
    const hva = Math.ceil(this.#next / unit) * unit + (align === 0 ? 0 : alignOffset % align);
    // One page stays free behind each mapping.
    this.#next = hva + rounded + this.pageSize;
    this.#mappings.push({
      hva,
      length: rounded,
      prot,
      backing: source?.backing ?? new MemoryBacking(rounded),
      offset: source?.offset ?? 0,
      owned: source === undefined || source.backing.kind === 'file',
      holes: [],
      guarded: source?.backing.kind === 'file' || (prot & (PROT.READ | PROT.WRITE)) !== (PROT.READ | PROT.WRITE),
      viewed: false,
    });
    return hva;
  }

  /** The file behind one of the process's own descriptors, held open for as long as a mapping needs it. */
  static fileBacking(fd: number): Backing | undefined {
    for (const flags of ['r+', 'r']) {
      try {
        return new FileBacking(openSync(`/dev/fd/${fd}`, flags));
      } catch {
        // The next mode, or not a file that can be opened.
      }
    }
    return undefined;
  }

  unmap(hva: number, length: number): number {
    const mapping = this.#inside(hva, length);
    if (mapping === undefined) return -ERRNO.EINVAL;
    this.generation++;
    this.#guard(mapping);
    if (hva === mapping.hva && roundUp(length, this.pageSize) === mapping.length) this.#remove(mapping);
    else this.#setProtection(mapping, hva, length, UNMAPPED);
    return 0;
  }

  protect(hva: number, length: number, prot: number): number {
    const mapping = this.#inside(hva, length);
    if (mapping === undefined || (prot & ~7) !== 0) return -ERRNO.EINVAL;
    if (hasUnmapped(mapping, hva, length)) return -ERRNO.ENOMEM;
    this.generation++;
    this.#guard(mapping);
    this.#setProtection(mapping, hva, length, prot);
    return 0;
  }

  advise(hva: number, length: number, advice: number): number {
    const mapping = this.#inside(hva, length);
    if (mapping === undefined || !Object.values<number>(MADV).includes(advice)) return -ERRNO.EINVAL;
    if (hasUnmapped(mapping, hva, length)) return -ERRNO.ENOMEM;
    const discards = advice === MADV.REMOVE || (advice === MADV.DONTNEED && mapping.owned);
    if (discards && mapping.backing instanceof MemoryBacking) {
      mapping.backing.discard(mapping.offset + hva - mapping.hva, length);
    }
    return 0;
  }

  view(hva: number, length: number): ArrayBuffer | number {
    const mapping = this.#find(hva);
    if (mapping === undefined) return -ERRNO.EINVAL;
    const offset = hva - mapping.hva;
    if (offset % VIEW_WINDOW !== 0 || length !== Math.min(VIEW_WINDOW, mapping.length - offset)) return -ERRNO.EINVAL;
    if (mapping.guarded) return -ERRNO.EACCES;
    const inBacking = mapping.offset + offset;
    if (inBacking % VIEW_WINDOW !== 0) return -ERRNO.EACCES;
    const window = mapping.backing.window(inBacking);
    if (window.byteLength !== length) return -ERRNO.EACCES;
    mapping.viewed = true;
    return window;
  }

  /**
   * Finds the bytes at an address: `bytes[at .. at + available)` up to the end of the page or more. False when the
   * page isn't there, may not be accessed that way, or has no bytes of ours (a file).
   */
  resolve(hva: number, write: boolean): boolean {
    const mapping = this.#find(hva);
    if (mapping === undefined || mapping.backing.kind === 'file') return false;
    const offset = hva - mapping.hva;
    let available = mapping.length - offset;
    const needed = write ? PROT.WRITE : PROT.READ;
    if (mapping.holes.length !== 0) {
      const { prot, end } = this.#protectionAt(mapping, hva);
      if (prot === UNMAPPED || (prot & needed) === 0) return false;
      available = Math.min(available, end - hva);
    } else if ((mapping.prot & needed) === 0) return false;
    const inBacking = mapping.offset + offset;
    if (inBacking >= mapping.backing.size()) return false;
    const window = mapping.backing.window(inBacking);
    const at = inBacking % VIEW_WINDOW;
    this.bytes = this.#bytesOf(window);
    this.at = at;
    this.available = Math.min(available, window.byteLength - at);
    return true;
  }

  /** Copies out of memory as the kernel's copy_from_user does: the bytes that were readable from the start on. */
  read(hva: number, into: Uint8Array): number {
    return this.#copy(hva, into, false);
  }

  /** Copies into memory likewise. */
  write(hva: number, from: Uint8Array): number {
    return this.#copy(hva, from, true);
  }

  /** Whether a page may be read, or written, now. */
  canAccess(hva: number, write: boolean): boolean {
    if (this.resolve(hva, write)) return true;
    const mapping = this.#find(hva);
    if (mapping === undefined || mapping.backing.kind !== 'file') return false;
    const { prot } = this.#protectionAt(mapping, hva);
    const inFile = mapping.offset + (hva - mapping.hva);
    return (prot & (write ? PROT.WRITE : PROT.READ)) !== 0 && prot !== UNMAPPED && inFile < mapping.backing.size();
  }

  /** Whether the whole range lies inside one mapping. */
  isMapped(hva: number, length: number): boolean {
    return this.#inside(hva, length) !== undefined;
  }

  /** Bytes from an address to the end of its mapping; 0 where there is none. */
  mappedBytes(hva: number): number {
    const mapping = this.#find(hva);
    return mapping === undefined ? 0 : mapping.hva + mapping.length - hva;
  }

  /** Everything goes, as at process exit. */
  releaseAll(): void {
    this.generation++;
    for (const mapping of this.#mappings.splice(0)) if (mapping.owned) mapping.backing.release();
    this.#last = undefined;
  }

  #copy(hva: number, bytes: Uint8Array, write: boolean): number {
    let done = 0;
    while (done < bytes.length) {
      const at = hva + done;
      if (this.resolve(at, write)) {
        const length = Math.min(this.available, bytes.length - done);
        this.observer?.touched(at, length, write);
        if (write) this.bytes.set(bytes.subarray(done, done + length), this.at);
        else bytes.set(this.bytes.subarray(this.at, this.at + length), done);
        done += length;
        continue;
      }
      if (!this.canAccess(at, write)) break;
      const mapping = this.#find(at)!;
      const pageEnd = (Math.floor(at / this.pageSize) + 1) * this.pageSize;
      const part = bytes.subarray(done, done + Math.min(pageEnd - at, bytes.length - done));
      const moved = mapping.backing.transfer(mapping.offset + (at - mapping.hva), part, write);
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
    const last = this.#last;
    if (last !== undefined && hva >= last.hva && hva < last.hva + last.length) return last;
    let low = 0;
    let high = this.#mappings.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#mappings[middle]!.hva <= hva) low = middle + 1;
      else high = middle;
    }
    const mapping = this.#mappings[low - 1];
    if (mapping === undefined || hva >= mapping.hva + mapping.length) return undefined;
    this.#last = mapping;
    return mapping;
  }

  #inside(hva: number, length: number): HostMapping | undefined {
    if (length <= 0 || hva % this.pageSize !== 0) return undefined;
    const mapping = this.#find(hva);
    return mapping !== undefined && hva + length <= mapping.hva + mapping.length ? mapping : undefined;
  }

  #guard(mapping: HostMapping): void {
    mapping.guarded = true;
    // Two mappings of one memfd show the same ArrayBuffer: it stays for the other.
    if (!this.#mappings.some((other) => other !== mapping && other.backing === mapping.backing))
      mapping.backing.detach();
  }

  #remove(mapping: HostMapping): void {
    this.#mappings.splice(this.#mappings.indexOf(mapping), 1);
    if (this.#last === mapping) this.#last = undefined;
    if (mapping.owned) mapping.backing.release();
  }

  #setProtection(mapping: HostMapping, hva: number, length: number, prot: number): void {
    const start = hva;
    const end = hva + roundUp(length, this.pageSize);
    const kept: HostMapping['holes'] = [];
    for (const hole of mapping.holes) {
      if (hole.start < start) kept.push({ ...hole, end: Math.min(hole.end, start) });
      if (hole.end > end) kept.push({ ...hole, start: Math.max(hole.start, end) });
    }
    kept.push({ start, end, prot });
    mapping.holes = kept.filter((hole) => hole.start < hole.end).sort((a, b) => a.start - b.start);
  }

  #protectionAt(mapping: HostMapping, hva: number): { prot: number; end: number } {
    for (const hole of mapping.holes) {
      if (hva < hole.start) return { prot: mapping.prot, end: hole.start };
      if (hva < hole.end) return { prot: hole.prot, end: hole.end };
    }
    return { prot: mapping.prot, end: mapping.hva + mapping.length };
  }
}

function hasUnmapped({ holes }: HostMapping, hva: number, length: number): boolean {
  return holes.some(({ start, end, prot }) => prot === UNMAPPED && start < hva + length && end > hva);
}

function roundUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit;
}
