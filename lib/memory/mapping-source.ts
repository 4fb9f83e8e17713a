import { closeSync, fstatSync, openSync } from 'node:fs';
import {
  checkBoolean,
  checkInteger,
  checkObject,
  checkText,
  checkU32,
  checkU64,
  type NamesOf,
} from '../base/arguments.ts';
import { hex, type KvmError, outOfRange } from '../base/errors.ts';
import { humanSize } from '../base/text.ts';
import type { U64 } from '../base/u64.ts';
import { callError } from '../calls/failure.ts';
import type { KvmCalls } from '../calls/kvm-calls.ts';
import { checkCalls } from '../calls/wrapped.ts';
import { ERRNO } from '../uapi/errno.ts';
import { MAP, MFD, PROT } from '../uapi/flags.ts';

/** What host memory is made of. */
export type MemoryKind = 'anonymous' | 'memfd' | 'hugetlb' | 'file' | 'device' | 'guest_memfd';

/** Options of all host memory. */
export interface MemoryOptions {
  /** PROT.READ and PROT.WRITE; both by default. */
  readonly prot?: number;
}

export interface MemfdOptions extends MemoryOptions {
  /** The name shown in /proc. */
  readonly name?: string;
}

export interface FileOptions extends MemoryOptions {
  /** Offset in the file, a multiple of the page size. */
  readonly offset?: U64;
  /** Bytes; by default what the file has from the offset on, in whole pages. */
  readonly size?: number;
  /** False: what is written stays private to this process. Default true. */
  readonly shared?: boolean;
}

export interface DeviceOptions extends MemoryOptions {
  /** Bytes to map. */
  readonly size: number;
  readonly offset?: U64;
}

export const MEMORY_OPTIONS: NamesOf<MemoryOptions> = { prot: true };
export const MEMFD_OPTIONS: NamesOf<MemfdOptions> = { ...MEMORY_OPTIONS, name: true };
export const FILE_OPTIONS: NamesOf<FileOptions> = { ...MEMORY_OPTIONS, offset: true, size: true, shared: true };
export const DEVICE_OPTIONS: NamesOf<DeviceOptions> = { ...MEMORY_OPTIONS, size: true, offset: true };

/** Host memory as mmap is asked for it. */
export interface MappingSource {
  readonly kind: MemoryKind;
  /** Bytes, whole pages. */
  readonly size: number;
  readonly prot: number;
  readonly flags: number;
  /** −1 for anonymous memory. */
  readonly fd: number;
  readonly offset: U64;
}

const MAX_FD = 0x7fff_ffff;

export function anonymousSource(calls: KvmCalls, size: number, options: MemoryOptions): MappingSource {
  return sourceOf(calls, 'anonymous', size, MAP.PRIVATE | MAP.ANONYMOUS | MAP.NORESERVE, -1, 0, options);
}

export function hugetlbSource(calls: KvmCalls, size: number, options: MemoryOptions): MappingSource {
  return sourceOf(calls, 'hugetlb', size, MAP.PRIVATE | MAP.ANONYMOUS | MAP.HUGETLB, -1, 0, options);
}

export function deviceSource(calls: KvmCalls, fd: number, options: DeviceOptions): MappingSource {
  checkInteger(fd, 'fd', 0, MAX_FD);
  const { size, offset = 0 } = checkObject(options, 'options');
  return sourceOf(calls, 'device', size, MAP.SHARED, fd, checkU64(offset, 'options.offset'), options);
}

/** A new memfd, whose descriptor is the caller's. */
export function newMemfdSource(calls: KvmCalls, size: number, options: MemfdOptions): MappingSource {
  const length = roundToPages(checkCalls(calls), size, 'size');
  const { name = 'guest', prot = PROT.READ | PROT.WRITE } = checkObject(options, 'options');
  checkU32(prot, 'options.prot');
  const fd = calls.memfdCreate(checkMemfdName(name), length, MFD.CLOEXEC);
  if (fd < 0) throw callError('memfdCreate', fd, { size: length });
  return memfdSource(calls, fd, length, { prot });
}

export function memfdSource(calls: KvmCalls, fd: number, size: number, options: MemoryOptions = {}): MappingSource {
  return sourceOf(calls, 'memfd', size, MAP.SHARED | MAP.NORESERVE, fd, 0, options);
}

export function guestMemfdSource(calls: KvmCalls, fd: number, size: number, options: MemoryOptions): MappingSource {
  checkInteger(fd, 'fd', 0, MAX_FD);
  return sourceOf(calls, 'guest_memfd', size, MAP.SHARED, fd, 0, options);
}

/** Makes a memfd for as long as it is used. */
export function withMemfd<T>(
  calls: KvmCalls,
  size: number,
  options: MemfdOptions,
  use: (source: MappingSource) => T,
): T {
  const source = newMemfdSource(calls, size, options);
  try {
    return use(source);
  } finally {
    calls.close(source.fd);
  }
}

/** Opens a file for as long as it is used, unless it is a descriptor already. */
export function withFile<T>(
  calls: KvmCalls,
  file: string | number,
  options: FileOptions,
  use: (source: MappingSource) => T,
): T {
  const { shared = true, offset = 0, size, prot = PROT.READ | PROT.WRITE } = checkObject(options, 'options');
  checkBoolean(shared, 'options.shared');
  checkU64(offset, 'options.offset');
  checkU32(prot, 'options.prot');
  const mode = shared && (prot & PROT.WRITE) !== 0 ? 'r+' : 'r';
  const fd = typeof file === 'number' ? checkInteger(file, 'file', 0, MAX_FD) : openSync(checkText(file, 'file'), mode);
  try {
    const length = size ?? Math.max(0, fstatSync(fd).size - Number(offset));
    return use(sourceOf(calls, 'file', length, shared ? MAP.SHARED : MAP.PRIVATE, fd, offset, { prot }));
  } finally {
    if (typeof file === 'string') closeSync(fd);
  }
}

function sourceOf(
  calls: KvmCalls,
  kind: MemoryKind,
  size: number,
  flags: number,
  fd: number,
  offset: U64,
  options: MemoryOptions,
): MappingSource {
  const length = roundToPages(checkCalls(calls), size, 'size');
  const { prot = PROT.READ | PROT.WRITE } = checkObject(options, 'options');
  return { kind, size: length, prot: checkU32(prot, 'options.prot'), flags, fd, offset };
}

/** The kernel's name ends at the first NUL. */
function checkMemfdName(name: string): string {
  if (checkText(name, 'options.name').includes('\0')) throw outOfRange('options.name', 'a string without NUL', name);
  return name;
}

/** What mmap answered, as an error. `addresses` says what may be wrong with those, if nothing is with the source. */
export function mmapFailure(errno: number, calls: KvmCalls, source: MappingSource, addresses: string): KvmError {
  return callError('mmap', errno, {
    size: source.size,
    explanation: mmapExplanation(errno, calls, source, addresses),
  });
}

function mmapExplanation(errno: number, { pageSize }: KvmCalls, source: MappingSource, addresses: string) {
  const { kind, size, offset } = source;
  if (errno === -ERRNO.ENOMEM && kind === 'hugetlb') {
    return `the pool of huge pages has no ${humanSize(size)} left (the file /proc/meminfo tells; sysctl vm.nr_hugepages=N enlarges it)`;
  }
  if (errno === -ERRNO.ENODEV && kind === 'guest_memfd') {
    return 'a guest_memfd can be mapped if it was made with GUEST_MEMFD_FLAG.MMAP (Linux 6.18 and later)';
  }
  if (errno !== -ERRNO.EINVAL) return undefined;
  if (size === 0) return 'the size is 0: there is nothing to map';
  if (BigInt(offset) % BigInt(pageSize) !== 0n) {
    return `offset ${hex(offset)} in the ${kind} is not a multiple of the page size, ${hex(pageSize)}`;
  }
  return addresses;
}

/** A size as whole pages. @throws RangeError, TypeError unless it is one */
export function roundToPages({ pageSize }: KvmCalls, size: number, name: string): number {
  const pages = Math.ceil(checkInteger(size, name, 0, Number.MAX_SAFE_INTEGER + 1 - pageSize) / pageSize);
  return pages * pageSize;
}
