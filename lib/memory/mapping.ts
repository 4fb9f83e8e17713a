import { inspect } from 'node:util';
import {
  checkAtLeast,
  checkBytes,
  checkInteger,
  checkOptions,
  checkSize,
  checkU32,
  checkU64,
  type NamesOf,
} from '../base/arguments.ts';
import { copyMemory } from '../base/copy-bytes.ts';
import { hex, hexRange, KvmError, outOfRange } from '../base/errors.ts';
import { partOf } from '../base/part-of.ts';
import { counted, humanSize } from '../base/text.ts';
import type { U64 } from '../base/u64.ts';
import { type Reach, reachOf, unmapDropped, viewsOutlive } from '../calls/dropped.ts';
import { callError, isClosed } from '../calls/failure.ts';
import { type KvmCalls, VIEW_WINDOW } from '../calls/kvm-calls.ts';
import { type CallName, syscallOf } from '../calls/signatures.ts';
import { checkCalls } from '../calls/wrapped.ts';
import { ARCH_FACTS, type Arch } from '../uapi/arch.ts';
import { ERRNO } from '../uapi/errno.ts';
import { MADV } from '../uapi/flags.ts';
import type { HostMemory } from './lookup.ts';
import {
  anonymousSource,
  DEVICE_OPTIONS,
  type DeviceOptions,
  deviceSource,
  FILE_OPTIONS,
  type FileOptions,
  guestMemfdSource,
  hugetlbSource,
  type MappingSource,
  MEMFD_OPTIONS,
  MEMORY_OPTIONS,
  type MemfdOptions,
  type MemoryKind,
  type MemoryOptions,
  memfdSource,
  mmapFailure,
  newMemfdSource,
  withFile,
} from './mapping-source.ts';
import { MemoryWindow } from './memory-window.ts';

/** What a mapping is made of; a reservation is addresses, into which memory is put later. */
export type MappingKind = MemoryKind | 'reservation';

/** Where a mapping is put in the address space of the process. */
export interface AddressOptions {
  /** The address is a multiple of this, a power of two. Default: 2 MiB for mappings that large, 1 MiB on s390x, else a page. */
  readonly align?: number;
  /** …plus this: give the guest physical address to make huge pages fit on both sides. */
  readonly alignOffset?: U64;
}

/** Options of every mapping. */
export interface MappingOptions extends AddressOptions, MemoryOptions {}
export interface MemfdMappingOptions extends AddressOptions, MemfdOptions {}
export interface FileMappingOptions extends AddressOptions, FileOptions {}
export interface DeviceMappingOptions extends AddressOptions, DeviceOptions {}

export const ADDRESS_OPTIONS: NamesOf<AddressOptions> = { align: true, alignOffset: true };
const MAPPING_OPTIONS: NamesOf<MappingOptions> = { ...ADDRESS_OPTIONS, ...MEMORY_OPTIONS };
const MEMFD_MAPPING_OPTIONS: NamesOf<MemfdMappingOptions> = { ...ADDRESS_OPTIONS, ...MEMFD_OPTIONS };
const FILE_MAPPING_OPTIONS: NamesOf<FileMappingOptions> = { ...ADDRESS_OPTIONS, ...FILE_OPTIONS };
const DEVICE_MAPPING_OPTIONS: NamesOf<DeviceMappingOptions> = { ...ADDRESS_OPTIONS, ...DEVICE_OPTIONS };

/** Told when the views of a mapping have been detached, so that it can drop its own. */
export interface ViewHolder {
  dropViews(): void;
  /** A part of the mapping reads otherwise than before, other than by views. */
  memoryChanged?(mapping: Mapping, offset: number, length: number): void;
}

/** Brings pages that this thread would have to wait for, before it accesses them. */
export interface PageServer {
  /**
   * The page at an offset can be accessed that way afterwards. @param times how often this access has asked for it by now
   * @throws what keeps it from that
   */
  bring(offset: number, write: boolean, times: number): void;
}

interface MappedRange {
  readonly reach: Reach;
  readonly hva: number;
  readonly size: number;
  readonly fd: number;
}

const HUGE_PAGE = 0x20_0000;

const dropped = new FinalizationRegistry<MappedRange>(({ reach, hva, size, fd }) => {
  const calls = reach();
  if (calls === undefined) return;
  mappedWith(calls).delete(hva);
  unmapDropped(calls, hva, size);
  if (fd >= 0) calls.close(fd);
});

/** The mappings that are there, by address, so that a memslot over one of them finds it. */
const mappingsOf = new WeakMap<KvmCalls, Map<number, WeakRef<Mapping>>>();

function mappedWith(calls: KvmCalls): Map<number, WeakRef<Mapping>> {
  let mappings = mappingsOf.get(calls);
  if (mappings === undefined) {
    mappings = new Map();
    mappingsOf.set(calls, mappings);
  }
  return mappings;
}

/** A view of the addon's keeps its mapping alive, so that collecting the handle never detaches memory somebody still looks at. */
const mappingOfView = new WeakMap<ArrayBufferLike, Mapping>();

/**
 * Host memory that guests may be given: anonymous, a memfd, huge pages, a file or a device. Sparse: only pages that
 * were touched cost memory, so a terabyte is free.
 *
 * Closing gives the memory back as soon as no region uses it any more; views of it are then detached. A mapping that
 * was dropped without being closed is unmapped by the garbage collector.
 */
export class Mapping implements HostMemory {
  readonly calls: KvmCalls;
  readonly kind: MappingKind;
  /** Host virtual address. */
  readonly hva: number;
  /** Bytes, whole pages. */
  readonly size: number;
  #fd: number;
  #closed = false;
  #mapped = true;
  #pins = 0;
  /** `undefined`: not looked at yet; `null`: guarded, by calls only. */
  readonly #windows: (MemoryWindow | null | undefined)[] = [];
  /** What was handed out, by index of the window. */
  readonly #views: (Uint8Array | undefined)[] = [];
  readonly #holders = new Set<WeakRef<ViewHolder>>();
  #server: PageServer | undefined;

  protected constructor(calls: KvmCalls, kind: MappingKind, hva: number, size: number, fd = -1) {
    this.calls = checkCalls(calls);
    this.kind = kind;
    this.hva = hva;
    this.size = size;
    this.#fd = fd;
    dropped.register(this, { reach: reachOf(calls), hva, size, fd }, this);
    mappedWith(calls).set(hva, new WeakRef(this));
  }

  /** Anonymous memory. `size` is in bytes and rounded up to whole pages. @throws KvmError ENOMEM, EINVAL */
  static anonymous(calls: KvmCalls, size: number, options: MappingOptions = {}): Mapping {
    return Mapping.#map(calls, anonymousSource(calls, size, checkOptions(options, MAPPING_OPTIONS)), options);
  }

  /** A memfd, sealed against shrinking, whose descriptor is {@link fd}. @throws KvmError ENOMEM, EINVAL, EMFILE */
  static memfd(calls: KvmCalls, size: number, options: MemfdMappingOptions = {}): Mapping {
    const source = newMemfdSource(calls, size, checkOptions(options, MEMFD_MAPPING_OPTIONS));
    return Mapping.#keep(calls, source.fd, () => source, options);
  }

  /**
   * The whole of a memfd that somebody else made, such as one that was received. The descriptor is the mapping's from now on,
   * also when this fails. It is mapped directly if it is sealed against shrinking, else accessed by copies. @throws KvmError ENOMEM, EINVAL
   */
  static ofMemfd(calls: KvmCalls, fd: number, size: number, options: MappingOptions = {}): Mapping {
    checkCalls(calls);
    checkInteger(fd, 'fd', 0, 0x7fff_ffff);
    return Mapping.#keep(
      calls,
      fd,
      () => memfdSource(calls, fd, size, checkOptions(options, MAPPING_OPTIONS)),
      options,
    );
  }

  /** Huge pages of the host's default size, from its reserved pool. @throws KvmError ENOMEM when the pool has too few */
  static hugetlb(calls: KvmCalls, size: number, options: MappingOptions = {}): Mapping {
    return Mapping.#map(calls, hugetlbSource(calls, size, checkOptions(options, MAPPING_OPTIONS)), options);
  }

  /**
   * A file, by path or by descriptor (which may be closed afterwards). It is accessed by copies that report EFAULT
   * where the file has been truncated. @throws KvmError EACCES, EINVAL, ENODEV; Node's own errors for the path
   */
  static file(calls: KvmCalls, file: string | number, options: FileMappingOptions = {}): Mapping {
    return withFile(calls, file, checkOptions(options, FILE_MAPPING_OPTIONS), (source) =>
      Mapping.#map(calls, source, options),
    );
  }

  /** Device memory behind a descriptor that can be mapped: a PCI BAR, a VFIO region. Accessed by copies. */
  static device(calls: KvmCalls, fd: number, options: DeviceMappingOptions): Mapping {
    return Mapping.#map(calls, deviceSource(calls, fd, checkOptions(options, DEVICE_MAPPING_OPTIONS)), options);
  }

  /** A guest_memfd, whose descriptor may be closed afterwards. Accessed by copies, which are EFAULT for pages that are not shared. */
  static guestMemfd(calls: KvmCalls, fd: number, size: number, options: MappingOptions = {}): Mapping {
    return Mapping.#map(calls, guestMemfdSource(calls, fd, size, checkOptions(options, MAPPING_OPTIONS)), options);
  }

  /** The mapping that the whole range is inside of. */
  static containing(calls: KvmCalls, hva: number, size: number): Mapping | undefined {
    // Any address of a process: beyond 2^53 there is nothing of ours.
    checkAtLeast(hva, 'hva', 0);
    checkAtLeast(size, 'size', 0);
    for (const [start, weak] of mappedWith(checkCalls(calls))) {
      const mapping = weak.deref();
      if (mapping !== undefined && hva >= start && hva + size <= start + mapping.size) return mapping;
    }
    return undefined;
  }

  /** The descriptor is closed when there is no mapping that has it. */
  static #keep(calls: KvmCalls, fd: number, sourceOf: () => MappingSource, options: AddressOptions): Mapping {
    try {
      const source = sourceOf();
      return new Mapping(calls, source.kind, Mapping.mmap(calls, source, options), source.size, fd);
    } catch (error) {
      calls.close(fd);
      throw error;
    }
  }

  static #map(calls: KvmCalls, source: MappingSource, options: AddressOptions): Mapping {
    return new Mapping(calls, source.kind, Mapping.mmap(calls, source, options), source.size);
  }

  /** mmap(2) at an address that suits. @throws KvmError as mmap does, explained */
  protected static mmap(calls: KvmCalls, source: MappingSource, options: AddressOptions): number {
    const { size, prot, flags, fd, offset } = source;
    const align = checkSize(options.align ?? defaultAlignment(calls.arch, size), 'options.align');
    const wanted = checkU64(options.alignOffset ?? 0, 'options.alignOffset');
    const alignOffset = align === 0 ? 0n : BigInt(wanted) % BigInt(align);
    const hva = calls.mmap(size, prot, flags, fd, offset, align, alignOffset);
    if (hva >= 0) return hva;
    const addresses = `align ${hex(align)} is not 0 or a power of two of at least a page, or alignOffset ${hex(alignOffset)} is not whole pages`;
    throw mmapFailure(hva, calls, source, addresses);
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Descriptor of a memfd, which is open for as long as the memory is there; −1 for other memory. */
  get fd(): number {
    return this.#fd;
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

  /** @internal Keeps the memory until {@link unpin}, even if it is closed meanwhile. @throws KvmError EBADF when it is gone */
  pin(holder?: ViewHolder): void {
    if (!this.#mapped) this.assertOpen('mmap');
    this.#pins++;
    if (holder !== undefined) this.#holders.add(weakly(holder));
  }

  /** @internal @param holder one that was pinned for, and needs not be told any more */
  unpin(holder?: ViewHolder): void {
    if (holder !== undefined) this.#holders.delete(weakly(holder));
    this.#pins--;
    this.#unmapWhenUnused();
  }

  /** @internal From now on pages may have to be brought, by somebody or (undefined) nobody: views of it are not what they were. */
  serve(server: PageServer | undefined): void {
    this.#server = server;
    this.#dropViews();
  }

  /**
   * mprotect(2) of a part. From then on the mapping is accessed by copies that report EFAULT, and existing views are
   * detached. @throws KvmError EINVAL, EBADF
   */
  protect(offset: number, length: number, prot: number): void {
    checkU32(prot, 'prot');
    const why = prot > 7 ? `prot ${hex(prot)} has more than READ 0x1, WRITE 0x2 and EXEC 0x4` : undefined;
    this.partCall('mprotect', offset, length, (hva) => this.calls.mprotect(hva, length, prot), why);
    this.#dropViews();
  }

  /** munmap(2) of a part, which stays reserved but faults. @throws KvmError EINVAL, EBADF */
  unmapPart(offset: number, length: number): void {
    this.partCall('munmap', offset, length, (hva) => this.calls.munmap(hva, length));
    this.#dropViews();
    this.changed(offset, length);
  }

  /** Gives the pages of a part back, up to the end unless a length is given: they read as zero again (anonymous memory), or as the file says. */
  discard(offset = 0, length = this.#behind(offset)): void {
    this.advise(this.kind === 'memfd' ? MADV.REMOVE : MADV.DONTNEED, offset, length);
  }

  /**
   * madvise(2) of a part with one of MADV. POPULATE_READ and POPULATE_WRITE (5.14 and later) have the kernel fault all pages in at once, so that a guest finds
   * them there; the emulated kernel only says what can't be.
   * @throws KvmError EINVAL for protected memory, ENOMEM where a part has none, EFAULT (POPULATE_…) beyond the end of a file, EBUSY …
   */
  advise(advice: number, offset = 0, length = this.#behind(offset)): void {
    checkU32(advice, 'advice');
    const why = `advice ${advice} is none that this kernel knows, or none for this memory, which is ${this.kind}`;
    this.partCall('madvise', offset, length, (hva) => this.calls.madvise(hva, length, advice), why);
    if (advice === MADV.DONTNEED || advice === MADV.REMOVE) this.changed(offset, length);
  }

  /**
   * The window with that index as an array that may be handed to anybody; undefined where access is guarded. From then
   * on the mapping cannot be protected until the collector has taken the array's buffer.
   */
  view(index: number): Uint8Array | undefined {
    const window = this.window(index);
    if (window === undefined) return undefined;
    let bytes = this.#views[index];
    if (bytes === undefined) {
      const { hva, length } = window;
      const buffer = this.calls.view(hva, length);
      if (typeof buffer === 'number') throw callError('view', buffer, { size: length });
      this.#keepFor(buffer);
      bytes = new Uint8Array(buffer);
      this.#views[index] = bytes;
    }
    return bytes;
  }

  // An array of its own over a part of one window; undefined where access is guarded. As with `view`, the mapping cannot be
  // protected until the collector has taken the array's buffer.
  /** @internal Gives an array that {@link takeArray} detaches. @throws KvmError ENOMEM, EINVAL */
  giveArray(offset: number, length: number): Uint8Array | undefined {
    if (!this.#mapped) this.assertOpen('vmap');
    const bytes = this.calls.vmap(this.hva + offset, length);
    if (typeof bytes !== 'number') return bytes;
    if (bytes === -ERRNO.EACCES) return undefined;
    throw callError('vmap', bytes, { size: length });
  }

  /** @internal Detaches an array that {@link giveArray} gave. */
  takeArray(bytes: Uint8Array): void {
    this.calls.vunmap(bytes);
    // On an emulated kernel the windows that we have were of the same buffer.
    if (this.#windows.some((window) => window?.buffer.byteLength === 0)) this.#dropViews();
  }

  // It is the typed layer's own: nothing that works in another thread may get it.
  /** @internal The window with that index, of VIEW_WINDOW bytes or what is left; undefined where access is guarded. */
  window(index: number): MemoryWindow | undefined {
    const window = typeof index === 'number' ? this.#windows[index] : undefined;
    return window === undefined ? this.#openWindow(index) : (window ?? undefined);
  }

  /**
   * Copies out of the mapping: the bytes that could be read from the start on.
   * @throws RangeError ERR_OUT_OF_RANGE when `offset` is not in the mapping
   */
  read(offset: number, into: Uint8Array): number {
    return this.#transfer(this.#checkOffset(offset), checkBytes(into, 'into'), false);
  }

  /** Copies into the mapping, likewise. @throws RangeError ERR_OUT_OF_RANGE */
  write(offset: number, from: Uint8Array): number {
    this.#checkOffset(offset);
    checkBytes(from, 'from');
    // Where a page's handler throws some of it is written.
    let done = from.length;
    try {
      done = this.#transfer(offset, from, true);
    } finally {
      this.changed(offset, Math.min(done, this.size - offset));
    }
    return done;
  }

  /** Why a page may be one that cannot be accessed. */
  whyNot(offset: number): string {
    checkSize(offset, 'offset');
    return 'it is protected, unmapped, or beyond the end of its file';
  }

  [inspect.custom](): string {
    const state = this.#mapped ? (this.#closed ? ', closed, still used' : '') : ', closed';
    return `Mapping ${this.kind} hva ${hexRange(this.hva, this.size)} (${humanSize(this.size)}), pinned ${counted(this.#pins, 'time')}${state}`;
  }

  #checkOffset(offset: number): number {
    if (checkSize(offset, 'offset') > this.size)
      throw outOfRange('offset', `at most the mapping's ${hex(this.size)} bytes`, offset);
    return offset;
  }

  #transfer(offset: number, bytes: Uint8Array, write: boolean): number {
    const length = Math.min(bytes.length, this.size - offset);
    for (let done = 0; done < length; ) {
      const at = offset + done;
      const index = Math.floor(at / VIEW_WINDOW);
      const inWindow = at - index * VIEW_WINDOW;
      const count = Math.min(length - done, VIEW_WINDOW - inWindow);
      const part = count === bytes.length ? bytes : partOf(bytes, done, done + count);
      const window = this.window(index);
      const moved = window === undefined ? this.#guarded(at, part, write) : moveDirect(window, inWindow, part, write);
      done += moved;
      if (moved < count) return done;
    }
    return length;
  }

  #guarded(offset: number, part: Uint8Array, write: boolean): number {
    if (!this.#mapped) return 0;
    for (let done = 0, asked = 0; ; ) {
      const rest = done === 0 ? part : partOf(part, done);
      const hva = this.hva + offset + done;
      const moved = write ? this.calls.writeMemory(hva, rest) : this.calls.readMemory(hva, rest);
      done += Math.max(0, moved);
      if (moved > 0) asked = 0;
      if (done === part.length || this.#server === undefined) return done;
      // It ends where memory does, or where a page has to be brought: what it says of the rest tells which.
      if (moved === -ERRNO.EAGAIN) this.#server.bring(offset + done, write, ++asked);
      else if (moved <= 0) return done;
    }
  }

  #openWindow(index: number): MemoryWindow | undefined {
    const start = checkSize(index, 'index') * VIEW_WINDOW;
    if (!this.#mapped || start >= this.size) return undefined;
    const buffer = this.calls.window(this.hva + start, Math.min(VIEW_WINDOW, this.size - start));
    if (typeof buffer === 'number') {
      if (buffer !== -ERRNO.EACCES) throw callError('window', buffer, { size: this.size });
      this.#windows[index] = null;
      return undefined;
    }
    this.#keepFor(buffer);
    const window = new MemoryWindow(this.calls, this.hva + start, buffer);
    this.#windows[index] = window;
    return window;
  }

  #keepFor(buffer: ArrayBufferLike): void {
    // A kernel that holds the buffer would keep the mapping for as long as it is there itself.
    if (!viewsOutlive(this.calls)) mappingOfView.set(buffer, this);
  }

  /** Bytes from an offset to the end. */
  #behind(offset: number): number {
    return Math.max(0, this.size - checkSize(offset, 'offset'));
  }

  /** @param why what an EINVAL means that is not of the part's place */
  protected partCall(
    name: CallName,
    offset: number,
    length: number,
    call: (hva: number) => number,
    why?: string,
  ): void {
    this.assertOpen(syscallOf(name));
    checkSize(offset, 'offset');
    checkSize(length, 'length');
    // Behind its end there may be another mapping.
    const inside = offset + length <= this.size;
    const result = inside ? call(this.hva + offset) : -ERRNO.EINVAL;
    if (result < 0) {
      throw callError(name, result, { size: length, explanation: this.#whyRefused(result, offset, length, why) });
    }
  }

  #whyRefused(result: number, offset: number, length: number, why: string | undefined): string | undefined {
    const { pageSize } = this.calls;
    const isPart = offset % pageSize === 0 && offset + length <= this.size;
    if (result === -ERRNO.EINVAL && isPart && why !== undefined) return why;
    if (result === -ERRNO.EINVAL) {
      return `offset ${hex(offset)} and length ${hex(length)} must be multiples of the page size ${hex(pageSize)} inside the mapping's ${hex(this.size)} bytes`;
    }
    if (result !== -ERRNO.EBUSY) return undefined;
    return 'a slice of the memory was handed out that the garbage collector has not taken yet, and a call of Node (fs.read, crypto, zlib) may still be using it: protect memory before slices are made of it';
  }

  /** @internal @throws KvmError EBADF when the mapping is closed */
  assertOpen(syscall: string): void {
    if (this.#closed)
      throw new KvmError(ERRNO.EBADF, { syscall, size: this.size, explanation: isClosed('the mapping') });
  }

  /** Tells address spaces that show the memory: those who collect dirty pages hear of it. */
  protected changed(offset: number, length: number): void {
    for (const holder of this.#holders) holder.deref()?.memoryChanged?.(this, offset, length);
  }

  #unmapWhenUnused(): void {
    if (!this.#closed || this.#pins > 0 || !this.#mapped) return;
    this.#mapped = false;
    dropped.unregister(this);
    mappedWith(this.calls).delete(this.hva);
    this.#dropViews();
    this.calls.munmap(this.hva, this.size);
    if (this.#fd >= 0) this.calls.close(this.#fd);
    this.#fd = -1;
  }

  #dropViews(): void {
    this.#windows.length = 0;
    this.#views.length = 0;
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
  else copyMemory(window.bytes, at, part, 0, part.length);
  return part.length;
}

function defaultAlignment(arch: Arch, size: number): number {
  return size >= HUGE_PAGE ? HUGE_PAGE : (ARCH_FACTS[arch].memslotAlignment ?? 0);
}
