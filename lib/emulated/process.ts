import type { Hva, U64 } from '../calls/kvm-calls.ts';
import { ERRNO } from '../uapi/errno.ts';
import { MAP, PROT } from '../uapi/flags.ts';
import { FileBacking, type MapRequest, type MapSource } from './backing.ts';
import { FileTable } from './file-table.ts';
import { EmulatedHostMemory } from './host-memory.ts';
import type { Machine } from './machine.ts';
import { EmulatedEventfd, EmulatedMemfd } from './open-file.ts';
import { pollFile } from './poll.ts';
import { movePieces } from './user-memory.ts';

/** What memfd_create knows: CLOEXEC, ALLOW_SEALING, HUGETLB with a size of pages, NOEXEC_SEAL and EXEC. */
const MEMFD_FLAGS = 0xfc00_001f;
/** What fallocate can be for some file or other: COLLAPSE_RANGE and INSERT_RANGE; allocation, ZERO_RANGE and UNSHARE_RANGE, and with KEEP_SIZE; a hole only so. */
const FALLOCATE_MODES: ReadonlySet<number> = new Set([8, 0x20, 0, 0x10, 0x40, 1, 0x11, 0x41, 3]);

/** What any process of Linux can do, without KVM: descriptors, and memory of its own. */
export class EmulatedProcess {
  readonly pageSize: number;
  protected readonly files: FileTable;
  protected readonly memory: EmulatedHostMemory;
  readonly #littleEndian: boolean;

  /** @param maxFds descriptors that may be open at once (RLIMIT_NOFILE) */
  constructor({ pageSize, littleEndian }: Machine, maxFds: number) {
    this.pageSize = pageSize;
    this.files = new FileTable(maxFds);
    this.memory = new EmulatedHostMemory(pageSize);
    this.#littleEndian = littleEndian;
  }

  // Descriptors

  close(fd: number): number {
    return this.files.close(fd);
  }

  read(fd: number, into: Uint8Array): number {
    const file = this.files.get(fd);
    if (file === undefined) return -ERRNO.EBADF;
    return file.read === undefined ? -ERRNO.EINVAL : file.read(into);
  }

  write(fd: number, from: Uint8Array): number {
    const file = this.files.get(fd);
    if (file === undefined) return -ERRNO.EBADF;
    return file.write === undefined ? -ERRNO.EINVAL : file.write(from);
  }

  async poll(fd: number, events: number): Promise<number> {
    const file = this.files.get(fd);
    return file === undefined ? -ERRNO.EBADF : pollFile(file.polled, events);
  }

  eventfd(initial: number): number {
    return this.files.open(new EmulatedEventfd(initial, this.#littleEndian));
  }

  // Host memory

  mmap(length: U64, prot: number, flags: number, fd: number, offset: U64, align: U64, alignOffset: U64): number {
    const request = { length: Number(length), prot, flags };
    const source = EmulatedHostMemory.refusal(request) || this.#source(request, fd, Number(offset));
    if (typeof source === 'number') return source;
    return this.memory.map(request, Number(align), Number(alignOffset), source);
  }

  mmapFixed(hva: Hva, length: U64, prot: number, flags: number, fd: number, offset: U64): number {
    const request = { length: Number(length), prot, flags };
    const refused = EmulatedHostMemory.refusal(request);
    return refused || this.memory.mapFixed(Number(hva), request, () => this.#source(request, fd, Number(offset)));
  }

  /** What mmap is to show: an fd's memory, or anonymous memory for undefined; −errno. */
  #source(request: MapRequest, fd: number, offset: number): MapSource | number | undefined {
    const { flags, prot, length } = request;
    if (fd < -1 || offset % this.pageSize !== 0) return -ERRNO.EINVAL;
    if (fd === -1 || (flags & MAP.ANONYMOUS) !== 0) return undefined;
    const file = this.files.get(fd);
    if (file !== undefined) {
      if ((flags & MAP.HUGETLB) !== 0 && file.isHuge !== true) return -ERRNO.EINVAL;
      // What no file system has is not executed.
      if ((prot & PROT.EXEC) !== 0 && file.kind !== 'memfd' && file.kind !== 'kvm') return -ERRNO.EPERM;
      return file.mmap?.(offset, flags, length) ?? -ERRNO.ENODEV;
    }
    return FileBacking.source(fd, offset, this.pageSize, request);
  }

  munmap(hva: Hva, length: U64): number {
    return this.memory.unmap(Number(hva), Number(length));
  }

  mprotect(hva: Hva, length: U64, prot: number): number {
    return this.memory.protect(Number(hva), Number(length), prot);
  }

  madvise(hva: Hva, length: U64, advice: number): number {
    return this.memory.advise(Number(hva), Number(length), advice);
  }

  fallocate(fd: number, mode: number, offset: U64, length: U64): number {
    const file = this.files.get(fd);
    if (file === undefined) return -ERRNO.EBADF;
    if (file.kind === 'memfd') return -ERRNO.EOPNOTSUPP;
    const [start, size] = [BigInt.asIntN(64, BigInt(offset)), BigInt.asIntN(64, BigInt(length))];
    if (start < 0n || size <= 0n) return -ERRNO.EINVAL;
    if (!FALLOCATE_MODES.has(mode)) return -ERRNO.EOPNOTSUPP;
    if (file.fallocate === undefined) return -ERRNO.ENODEV;
    return start + size >= 1n << 63n ? -ERRNO.EFBIG : file.fallocate(mode, Number(start), Number(size));
  }

  memfdCreate(_name: string, size: U64, flags: number): number {
    if ((flags & ~MEMFD_FLAGS) !== 0) return -ERRNO.EINVAL;
    const fd = this.files.open(new EmulatedMemfd(Number(size), flags, this.pageSize));
    // Its size is given to what was opened.
    if (fd < 0 || EmulatedMemfd.canHave(BigInt(size), flags)) return fd;
    this.files.close(fd);
    return -ERRNO.EINVAL;
  }

  view(hva: Hva, length: number): ArrayBuffer | number {
    return this.memory.view(Number(hva), length);
  }

  window(hva: Hva, length: number): ArrayBuffer | number {
    return this.memory.window(Number(hva), length);
  }

  vmap(hva: Hva, length: number): Uint8Array | number {
    return this.memory.vmap(Number(hva), length);
  }

  vunmap(bytes: Uint8Array): number {
    return this.memory.vunmap(bytes);
  }

  readMemory(hva: Hva, into: Uint8Array): number {
    const read = this.memory.read(Number(hva), into);
    return read === 0 && into.length !== 0 ? this.memory.whyNot(Number(hva), false) : read;
  }

  writeMemory(hva: Hva, from: Uint8Array): number {
    const written = this.memory.write(Number(hva), from);
    return written === 0 && from.length !== 0 ? this.memory.whyNot(Number(hva), true) : written;
  }

  gather(hvas: Float64Array, lengths: Uint32Array, into: Uint8Array): number {
    return movePieces(hvas, lengths, into, (hva, bytes) =>
      this.memory.mappedBytes(hva) >= bytes.length ? this.memory.read(hva, bytes) : 0,
    );
  }

  scatter(hvas: Float64Array, lengths: Uint32Array, from: Uint8Array): number {
    return movePieces(hvas, lengths, from, (hva, bytes) =>
      this.memory.mappedBytes(hva) >= bytes.length ? this.memory.write(hva, bytes) : 0,
    );
  }
}
