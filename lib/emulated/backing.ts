import { closeSync, fstatSync, openSync, readFileSync, readSync, statfsSync, writeSync } from 'node:fs';
import { isError } from '../base/arguments.ts';
import { copyBytes, copyMemory } from '../base/copy-bytes.ts';
import { VIEW_WINDOW } from '../calls/kvm-calls.ts';
import { PageSet } from '../memory/page-set.ts';
import { ERRNO } from '../uapi/errno.ts';
import { MAP, PROT } from '../uapi/flags.ts';

/** What mmap is asked for, apart from the place. */
export interface MapRequest {
  readonly length: number;
  readonly prot: number;
  readonly flags: number;
}

/** What a descriptor gives mmap to show: a backing from an offset on. */
export interface MapSource {
  readonly backing: Backing;
  readonly offset: number;
  /** It can never become writable: a shared file that is only open for reading. */
  readonly readOnly?: boolean;
  /** Touching it may fault, so there is no view of it. */
  readonly guarded?: boolean;
}

/**
 * What a mapping shows: bytes that exist in windows of VIEW_WINDOW (made when first touched, so that a sparse
 * terabyte costs nothing), or a file that is read and written when it is accessed.
 */
export interface Backing {
  readonly kind: 'memory' | 'file';
  /** Bytes that come and go together: those of a page, which may be a huge one. Only for `memory`. */
  readonly unit?: number;
  /** Bytes there are now; a file's may change behind our back. */
  size(): number;
  /** The window that holds `offset`. Only for `memory`. */
  window(offset: number): ArrayBuffer;
  /** Whether the window that holds `offset` was made. */
  hasBytes(offset: number): boolean;
  /** The pages of a range are there from now on. Only for `memory`. */
  bring?(offset: number, length: number): void;
  /** Whether a page is, as far as anybody heard of it: nobody does of accesses through windows. Only for `memory`. */
  isThere?(offset: number): boolean;
  /** Copies into or out of a page; the bytes moved, which are all up to the end of a file, or −errno when its disk refuses. */
  transfer(offset: number, bytes: Uint8Array, write: boolean): number;
  /** Forgets the bytes of a range of whole pages: they are zero again, or those of the file. */
  discard(offset: number, length: number): void;
  /** Gives every window a new identity, so that the ArrayBuffers handed out are detached and the bytes stay. */
  detach(): void;
  release(): void;
}

/** Where the bytes of a page are. */
export interface PlaceInBacking {
  readonly backing: Backing;
  readonly offset: number;
}

const SMALLEST_PAGE = 4096;
/** The default size of huge pages: 2 MiB on every architecture that is emulated. */
export const HUGE_PAGE = 0x20_0000;

export class MemoryBacking implements Backing {
  readonly kind = 'memory';
  readonly unit: number;
  readonly #size: number;
  readonly #windows: (ArrayBuffer | undefined)[] = [];
  /** The numbers of its pages that were accessed by calls and guests, in units. */
  readonly #there = new PageSet();

  /** @param size whole pages where it can be mapped */
  constructor(size: number, unit = SMALLEST_PAGE) {
    this.#size = size;
    this.unit = unit;
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

  hasBytes(offset: number): boolean {
    return this.#windows[Math.floor(offset / VIEW_WINDOW)] !== undefined;
  }

  bring(offset: number, length: number): void {
    const first = Math.floor(offset / this.unit);
    const end = Math.ceil((offset + length) / this.unit);
    if (end - first === 1) this.#there.add(first);
    else this.#there.addRange(first, end);
  }

  isThere(offset: number): boolean {
    return this.#there.has(Math.floor(offset / this.unit));
  }

  /** Whether a buffer is one of the windows. */
  has(buffer: ArrayBufferLike): boolean {
    return this.#windows.some((window) => window === buffer);
  }

  /** Only out of it, and all of it is there: what writes has windows. */
  transfer(offset: number, bytes: Uint8Array): number {
    if (this.hasBytes(offset)) bytes.set(new Uint8Array(this.window(offset), offset % VIEW_WINDOW, bytes.length));
    else bytes.fill(0);
    return bytes.length;
  }

  discard(offset: number, length: number): void {
    // What maps it may reach further.
    const stop = Math.min(offset + length, this.#size);
    this.#there.take(Math.ceil(offset / this.unit), Math.floor(stop / this.unit));
    for (let at = offset; at < stop; ) {
      const index = Math.floor(at / VIEW_WINDOW);
      const end = Math.min(stop, (index + 1) * VIEW_WINDOW);
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
  #window: ArrayBuffer;
  #view: DataView;

  /** @param size at most VIEW_WINDOW bytes. */
  constructor(size: number) {
    this.backing = new MemoryBacking(size);
    this.#window = this.backing.window(0);
    this.#view = new DataView(this.#window);
  }

  get view(): DataView {
    const window = this.backing.window(0);
    // Not by the view's buffer: to ask for that is a call.
    if (this.#window !== window) {
      this.#window = window;
      this.#view = new DataView(window);
    }
    return this.#view;
  }

  bytes(offset: number, length: number): Uint8Array {
    return new Uint8Array(this.backing.window(0), offset, length);
  }
}

/** Descriptors of files whose kernel went, and what was mapped with it. */
const dropped = new FinalizationRegistry<number>(closeSync);

/** A file of the process's own. */
export class FileBacking implements Backing {
  readonly kind = 'file';
  readonly #fd: number;

  private constructor(fd: number) {
    this.#fd = fd;
    dropped.register(this, fd, this);
  }

  /**
   * The file behind a descriptor, held open for as long as a mapping needs it; −errno as mmap gives it, or as opening it once more does, which
   * the kernel itself need not.
   */
  static source(fd: number, offset: number, pageSize: number, request: MapRequest): MapSource | number {
    try {
      return FileBacking.#source(fd, offset, pageSize, request);
    } catch (error) {
      if (isSystemError(error)) return error.errno;
      throw error;
    }
  }

  static #source(fd: number, offset: number, pageSize: number, { prot, flags }: MapRequest): MapSource | number {
    const mode = accessMode(fd);
    if (mode === undefined) return -ERRNO.EBADF;
    if ((flags & MAP.HUGETLB) !== 0 && statfsSync(pathOf(fd)).type !== HUGETLBFS_MAGIC) return -ERRNO.EINVAL;
    if (!fstatSync(fd).isFile()) return -ERRNO.ENODEV;
    const isPrivate = (flags & MAP.PRIVATE) !== 0;
    const readOnly = mode === 'read' && !isPrivate;
    if (mode === 'write' || (readOnly && (prot & PROT.WRITE) !== 0)) return -ERRNO.EACCES;
    const file = openSync(pathOf(fd), mode === 'read' ? 'r' : 'r+');
    const backing = new FileBacking(file);
    return { backing: isPrivate ? new PrivateBacking(backing, pageSize) : backing, offset, readOnly };
  }

  size(): number {
    return fstatSync(this.#fd).size;
  }

  hasBytes(): boolean {
    return false;
  }

  window(): ArrayBuffer {
    throw new TypeError('a file has no windows');
  }

  transfer(offset: number, bytes: Uint8Array, write: boolean): number {
    // A mapping reaches to the end of the file's last page and never lets the file grow.
    const length = Math.min(bytes.length, Math.max(0, this.size() - offset));
    try {
      for (let done = 0; done < length; ) {
        const rest = length - done;
        const moved = write
          ? writeSync(this.#fd, bytes, done, rest, offset + done)
          : readSync(this.#fd, bytes, done, rest, offset + done);
        // It was truncated just now.
        if (moved === 0) return done;
        done += moved;
      }
      return length;
    } catch (error) {
      if (isSystemError(error)) return error.errno;
      throw error;
    }
  }

  discard(offset: number, length: number): void {
    const end = Math.min(offset + length, this.size());
    if (offset < end) this.transfer(offset, new Uint8Array(end - offset), true);
  }

  detach(): void {}

  release(): void {
    dropped.unregister(this);
    closeSync(this.#fd);
  }
}

/** A private mapping of a file or memfd: what others write is seen, until a page is written here and becomes the mapping's own. */
export class PrivateBacking implements Backing {
  readonly kind = 'file';
  readonly #from: Backing;
  readonly #pageSize: number;
  readonly #own = new Map<number, Uint8Array>();

  /** @param from closed with this one, if it is a file */
  constructor(from: Backing, pageSize: number) {
    this.#from = from;
    this.#pageSize = pageSize;
  }

  get unit(): number {
    return this.#pageSize;
  }

  size(): number {
    return this.#from.size();
  }

  hasBytes(): boolean {
    return false;
  }

  window(): ArrayBuffer {
    throw new TypeError('a private mapping of a file has no windows');
  }

  /** @param bytes of one page */
  transfer(offset: number, bytes: Uint8Array, write: boolean): number {
    const page = Math.floor(offset / this.#pageSize);
    let own = this.#own.get(page);
    if (own === undefined && !write) return this.#from.transfer(offset, bytes, false);
    const length = Math.min(bytes.length, Math.max(0, this.size() - offset));
    if (length === 0) return 0;
    if (own === undefined) {
      own = new Uint8Array(this.#pageSize);
      const refused = Math.min(0, this.#from.transfer(page * this.#pageSize, own, false));
      if (refused < 0) return refused;
      this.#own.set(page, own);
    }
    const at = offset % this.#pageSize;
    if (write) copyBytes(bytes, 0, own, at, length);
    else copyMemory(own, at, bytes, 0, length);
    return length;
  }

  discard(offset: number, length: number): void {
    for (let at = offset; at < offset + length; at += this.#pageSize) this.#own.delete(Math.floor(at / this.#pageSize));
  }

  detach(): void {}

  release(): void {
    if (this.#from.kind === 'file') this.#from.release();
  }
}

/** linux/magic.h */
const HUGETLBFS_MAGIC = 0x9584_58f6;

/** What a descriptor has open. Not every Linux has /dev/fd. */
const pathOf = (fd: number): string => `/proc/self/fd/${fd}`;

/** How a descriptor was opened; undefined when it is none. */
function accessMode(fd: number): 'read' | 'write' | 'both' | undefined {
  try {
    const [, flags = ''] = /^flags:\s*(\d+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8')) ?? [];
    return (['read', 'write', 'both'] as const)[Number.parseInt(flags, 8) & 3];
  } catch (error) {
    if (isSystemError(error) && error.errno === -ERRNO.ENOENT) return undefined;
    throw error;
  }
}

/** Whether the system refused what Node's file system asked of it; its errno is negative. */
const isSystemError = (error: unknown): error is Error & { readonly errno: number } =>
  isError(error) && 'errno' in error && typeof error.errno === 'number';
