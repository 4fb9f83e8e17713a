import { closeSync, fstatSync, openSync } from 'node:fs';
import { inspect } from 'node:util';
import { checkInteger, checkSize } from '../arguments.ts';
import { type KvmCalls, type U64, VIEW_WINDOW } from '../calls/kvm-calls.ts';
import { hex, hexRange, invalidArgType, KvmError } from '../errors.ts';
import { humanSize } from '../inspect.ts';
import type { Arch } from '../uapi/arch.ts';
import { ERRNO } from '../uapi/errno.ts';
import { MADV, MAP, PROT } from '../uapi/flags.ts';

export type MappingKind = 'anonymous' | 'memfd' | 'hugetlb' | 'file' | 'device';

/** Options of every mapping. */
export interface MappingOptions {
  /** The address is a multiple of this, a power of two. Default: 2 MiB for mappings that large, 1 MiB on s390x, else a page. */
  readonly align?: number;
  /** …plus this: give the guest physical address to make huge pages fit on both sides. */
  readonly alignOffset?: U64;
  /** PROT.READ and PROT.WRITE; both by default. */
  readonly prot?: number;
}

export interface MemfdOptions extends MappingOptions {
  /** The name shown in /proc. */
  readonly name?: string;
}

export interface FileMappingOptions extends MappingOptions {
  /** Offset in the file, a multiple of the page size. */
  readonly offset?: U64;
  /** Bytes; by default what the file has from the offset on, in whole pages. */
  readonly size?: number;
  /** False: what is written stays private to this process. Default true. */
  readonly shared?: boolean;
}

export interface DeviceMappingOptions extends MappingOptions {
  /** Bytes to map. */
  readonly size: number;
  readonly offset?: U64;
}

/** One window of a mapping: its memory, and the views that typed access uses. */
export class MemoryWindow {
  readonly calls: KvmCalls;
  /** Host virtual address of its byte 0. */
  readonly hva: number;
  readonly buffer: ArrayBufferLike;
  readonly length: number;
  readonly view: DataView;
  readonly bytes: Uint8Array;
  #u16: Uint16Array | undefined;
  #u32: Uint32Array | undefined;
  #u64: BigUint64Array | undefined;

  constructor(calls: KvmCalls, hva: number, buffer: ArrayBufferLike) {
    this.calls = calls;
    this.hva = hva;
    this.buffer = buffer;
    this.length = buffer.byteLength;
    this.view = new DataView(buffer);
    this.bytes = new Uint8Array(buffer);
  }

  /** For Atomics, which need arrays; made when first asked for. */
  get u16(): Uint16Array {
    this.#u16 ??= new Uint16Array(this.buffer);
    return this.#u16;
  }

  get u32(): Uint32Array {
    this.#u32 ??= new Uint32Array(this.buffer);
    return this.#u32;
  }

  get u64(): BigUint64Array {
    this.#u64 ??= new BigUint64Array(this.buffer);
    return this.#u64;
  }
}

/** Told when the views of a mapping have been detached, so that it can drop its own. */
export interface ViewHolder {
  dropViews(): void;
}

interface MappedRange {
  readonly calls: KvmCalls;
  readonly hva: number;
  readonly size: number;
}

const HUGE_PAGE = 0x20_0000;
/** What userspace_addr of a memslot must be a multiple of, where that is more than a page. */
const SLOT_ALIGNMENT: Partial<Record<Arch, number>> = { s390x: 0x10_0000 };
const MFD_CLOEXEC = 1;

const dropped = new FinalizationRegistry<MappedRange>(({ calls, hva, size }) => {
  calls.munmap(hva, size);
});

/** A view keeps its mapping alive, so that collecting the handle never detaches memory somebody still looks at. */
const mappingOfView = new WeakMap<ArrayBufferLike, Mapping>();

/**
 * Host memory that guests may be given: anonymous, a memfd, huge pages, a file or a device. Sparse: only pages that
 * were touched cost memory, so a terabyte is free.
 *
 * Closing gives the memory back as soon as no region uses it any more; views of it are then detached. A mapping that
 * was dropped without being closed is unmapped by the garbage collector.
 */
export class Mapping {
  readonly calls: KvmCalls;
  readonly kind: MappingKind;
  /** Host virtual address. */
  readonly hva: number;
  /** Bytes, whole pages. */
  readonly size: number;
  #closed = false;
  #mapped = true;
  #pins = 0;
  /** `undefined`: not looked at yet; `null`: guarded, by calls only. */
  readonly #windows: (MemoryWindow | null | undefined)[] = [];
  readonly #holders = new Set<WeakRef<ViewHolder>>();

  private constructor(calls: KvmCalls, kind: MappingKind, hva: number, size: number) {
    this.calls = calls;
    this.kind = kind;
    this.hva = hva;
    this.size = size;
    dropped.register(this, { calls, hva, size }, this);
  }

  /** Anonymous memory. `size` is in bytes and rounded up to whole pages. @throws KvmError ENOMEM, EINVAL */
  static anonymous(calls: KvmCalls, size: number, options: MappingOptions = {}): Mapping {
    return Mapping.#map(calls, 'anonymous', size, MAP.PRIVATE | MAP.ANONYMOUS | MAP.NORESERVE, -1, 0, options);
  }

  /** A memfd, sealed against shrinking. @throws KvmError ENOMEM, EINVAL, EMFILE */
  static memfd(calls: KvmCalls, size: number, options: MemfdOptions = {}): Mapping {
    const length = roundToPages(calls, checkSize(size, 'size'));
    const fd = calls.memfdCreate(options.name ?? 'guest', length, MFD_CLOEXEC);
    if (fd < 0) throw new KvmError(fd, { syscall: 'memfd_create', size: length });
    try {
      return Mapping.#map(calls, 'memfd', length, MAP.SHARED | MAP.NORESERVE, fd, 0, options);
    } finally {
      calls.close(fd);
    }
  }

  /** Huge pages of the host's default size, from its reserved pool. @throws KvmError ENOMEM when the pool has too few */
  static hugetlb(calls: KvmCalls, size: number, options: MappingOptions = {}): Mapping {
    return Mapping.#map(calls, 'hugetlb', size, MAP.PRIVATE | MAP.ANONYMOUS | MAP.HUGETLB, -1, 0, options);
  }

  /**
   * A file, by path or by descriptor (which may be closed afterwards). It is accessed by copies that report EFAULT
   * where the file has been truncated. @throws KvmError EACCES, EINVAL, ENODEV; Node's own errors for the path
   */
  static file(calls: KvmCalls, file: string | number, options: FileMappingOptions = {}): Mapping {
    if (typeof file !== 'string' && typeof file !== 'number') throw invalidArgType('file', 'a path or a number', file);
    const prot = options.prot ?? PROT.READ | PROT.WRITE;
    const shared = options.shared ?? true;
    const fd = typeof file === 'string' ? openSync(file, shared && (prot & PROT.WRITE) !== 0 ? 'r+' : 'r') : file;
    try {
      const offset = options.offset ?? 0;
      const size = options.size ?? Math.max(0, fstatSync(fd).size - Number(offset));
      return Mapping.#map(calls, 'file', size, shared ? MAP.SHARED : MAP.PRIVATE, fd, offset, options);
    } finally {
      if (typeof file === 'string') closeSync(fd);
    }
  }

  /** Device memory behind a descriptor that can be mapped: a PCI BAR, a VFIO region. Accessed by copies. */
  static device(calls: KvmCalls, fd: number, options: DeviceMappingOptions): Mapping {
    checkInteger(fd, 'fd', 0, 0x7fff_ffff);
    return Mapping.#map(calls, 'device', options.size, MAP.SHARED, fd, options.offset ?? 0, options);
  }

  static #map(
    calls: KvmCalls,
    kind: MappingKind,
    size: number,
    flags: number,
    fd: number,
    offset: U64,
    options: MappingOptions,
  ): Mapping {
    const length = roundToPages(calls, checkSize(size, 'size'));
    const align =
      options.align === undefined ? defaultAlignment(calls.arch, length) : checkSize(options.align, 'align');
    const alignOffset = align === 0 ? 0n : BigInt(options.alignOffset ?? 0) % BigInt(align);
    const prot = options.prot ?? PROT.READ | PROT.WRITE;
    const hva = calls.mmap(length, prot, flags, fd, offset, align, alignOffset);
    if (hva < 0) {
      const explanation =
        hva === -ERRNO.ENOMEM && kind === 'hugetlb'
          ? `the pool of huge pages has no ${humanSize(length)} left (the file /proc/meminfo tells; sysctl vm.nr_hugepages=N enlarges it)`
          : hva === -ERRNO.EINVAL
            ? `size ${hex(length)}, offset ${hex(offset)}, align ${hex(align)}: the size must not be 0, the offset a multiple of the page size ${hex(calls.pageSize)}, the alignment 0 or a power of two of at least that`
            : undefined;
      throw new KvmError(hva, { syscall: 'mmap', size: length, explanation });
    }
    return new Mapping(calls, kind, hva, length);
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** How often it is pinned: by each region that shows it, and by each memslot of those. */
  get pins(): number {
    return this.#pins;
  }

  /** Gives the memory back: now, or when the last region that uses it goes. Does nothing the second time. */
  close(): void {
    this.#closed = true;
    this.#unmapWhenUnused();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** Keeps the memory until {@link unpin}, even if it is closed meanwhile. @throws KvmError EBADF when it is gone */
  pin(holder?: ViewHolder): void {
    if (!this.#mapped) this.assertOpen('mmap');
    this.#pins++;
    if (holder !== undefined) this.#holders.add(weakly(holder));
  }

  unpin(): void {
    this.#pins--;
    this.#unmapWhenUnused();
  }

  /**
   * mprotect(2) of a part. From then on the mapping is accessed by copies that report EFAULT, and existing views are
   * detached. @throws KvmError EINVAL, EBADF
   */
  protect(offset: number, length: number, prot: number): void {
    this.#partCall('mprotect', offset, length, (hva) => this.calls.mprotect(hva, length, prot));
    this.#dropViews();
  }

  /** munmap(2) of a part, which stays reserved but faults. @throws KvmError EINVAL, EBADF */
  unmapPart(offset: number, length: number): void {
    this.#partCall('munmap', offset, length, (hva) => this.calls.munmap(hva, length));
    this.#dropViews();
  }

  /** Gives the pages of a part back: they read as zero again (anonymous memory), or as the file says. */
  discard(offset = 0, length = this.size): void {
    const advice = this.kind === 'memfd' ? MADV.REMOVE : MADV.DONTNEED;
    this.#partCall('madvise', offset, length, (hva) => this.calls.madvise(hva, length, advice));
  }

  /** madvise(2) of a part with one of MADV. */
  advise(advice: number, offset = 0, length = this.size): void {
    this.#partCall('madvise', offset, length, (hva) => this.calls.madvise(hva, length, advice));
  }

  /** The window with that index, of VIEW_WINDOW bytes or what is left; undefined where access is guarded. */
  window(index: number): MemoryWindow | undefined {
    const window = this.#windows[index];
    return window === undefined ? this.#openWindow(index) : (window ?? undefined);
  }

  /** Copies out of the mapping: the bytes that could be read from the start on. */
  read(offset: number, into: Uint8Array): number {
    return this.#transfer(offset, into, false);
  }

  /** Copies into the mapping, likewise. */
  write(offset: number, from: Uint8Array): number {
    return this.#transfer(offset, from, true);
  }

  [inspect.custom](): string {
    const state = this.#mapped ? (this.#closed ? ', closed, still used' : '') : ', closed';
    return `Mapping ${this.kind} hva ${hexRange(this.hva, this.size)} (${humanSize(this.size)}), pinned ${this.#pins} time${this.#pins === 1 ? '' : 's'}${state}`;
  }

  #transfer(offset: number, bytes: Uint8Array, write: boolean): number {
    const length = Math.min(bytes.length, this.size - offset);
    for (let done = 0; done < length; ) {
      const at = offset + done;
      const index = Math.floor(at / VIEW_WINDOW);
      const inWindow = at - index * VIEW_WINDOW;
      const count = Math.min(length - done, VIEW_WINDOW - inWindow);
      const part = count === bytes.length ? bytes : bytes.subarray(done, done + count);
      const window = this.window(index);
      const moved = window === undefined ? this.#guarded(at, part, write) : moveDirect(window, inWindow, part, write);
      done += moved;
      if (moved < count) return done;
    }
    return length;
  }

  #guarded(offset: number, part: Uint8Array, write: boolean): number {
    if (!this.#mapped) return 0;
    const hva = this.hva + offset;
    return Math.max(0, write ? this.calls.writeMemory(hva, part) : this.calls.readMemory(hva, part));
  }

  #openWindow(index: number): MemoryWindow | undefined {
    const start = index * VIEW_WINDOW;
    if (!this.#mapped || start >= this.size || index < 0) return undefined;
    const buffer = this.calls.view(this.hva + start, Math.min(VIEW_WINDOW, this.size - start));
    if (typeof buffer === 'number') {
      if (buffer !== -ERRNO.EACCES) throw new KvmError(buffer, { syscall: 'view', size: this.size });
      this.#windows[index] = null;
      return undefined;
    }
    mappingOfView.set(buffer, this);
    const window = new MemoryWindow(this.calls, this.hva + start, buffer);
    this.#windows[index] = window;
    return window;
  }

  #partCall(syscall: string, offset: number, length: number, call: (hva: number) => number): void {
    this.assertOpen(syscall);
    checkSize(offset, 'offset');
    checkSize(length, 'length');
    const result = call(this.hva + offset);
    if (result < 0) {
      const explanation =
        result === -ERRNO.EINVAL
          ? `offset ${hex(offset)} and length ${hex(length)} must be multiples of the page size ${hex(this.calls.pageSize)} inside the mapping's ${hex(this.size)} bytes`
          : undefined;
      throw new KvmError(result, { syscall, size: length, explanation });
    }
  }

  /** @throws KvmError EBADF when the mapping is closed */
  assertOpen(syscall: string): void {
    if (this.#closed)
      throw new KvmError(ERRNO.EBADF, { syscall, size: this.size, explanation: 'the mapping is closed' });
  }

  #unmapWhenUnused(): void {
    if (!this.#closed || this.#pins > 0 || !this.#mapped) return;
    this.#mapped = false;
    dropped.unregister(this);
    this.#dropViews();
    this.calls.munmap(this.hva, this.size);
  }

  #dropViews(): void {
    this.#windows.length = 0;
    for (const holder of this.#holders) holder.deref()?.dropViews();
  }
}

const weakHolders = new WeakMap<ViewHolder, WeakRef<ViewHolder>>();

/** One WeakRef per holder, so that a set of them holds each once. */
function weakly(holder: ViewHolder): WeakRef<ViewHolder> {
  let reference = weakHolders.get(holder);
  if (reference === undefined) {
    reference = new WeakRef(holder);
    weakHolders.set(holder, reference);
  }
  return reference;
}

function moveDirect(window: MemoryWindow, at: number, part: Uint8Array, write: boolean): number {
  if (write) window.bytes.set(part, at);
  else part.set(window.bytes.subarray(at, at + part.length));
  return part.length;
}

function roundToPages(calls: KvmCalls, size: number): number {
  return Math.ceil(size / calls.pageSize) * calls.pageSize;
}

function defaultAlignment(arch: Arch, size: number): number {
  return size >= HUGE_PAGE ? HUGE_PAGE : (SLOT_ALIGNMENT[arch] ?? 0);
}
