import { errnoName } from '../uapi/errno.ts';
import { systemErrno } from '../uapi/system-errno.ts';
import type { U64 } from './u64.ts';

export { invalidArgType, invalidReturnValue, ofOtherCopy, outOfRange, unknownOption } from '../uapi/argument-errors.ts';

/** `0x` and the digits, for messages: addresses and sizes are printed in hexadecimal everywhere. */
export function hex(value: U64): string {
  return `0x${value.toString(16)}`;
}

/** `[0x1000, 0x3000)`. */
export function hexRange(start: U64, size: U64): string {
  return `[${hex(start)}, ${hex(BigInt(start) + BigInt(size))})`;
}

const STRERROR: Readonly<Record<string, string>> = {
  EPERM: 'operation not permitted',
  ENOENT: 'no such file or directory',
  EINTR: 'interrupted system call',
  EIO: 'i/o error',
  ENXIO: 'no such device or address',
  E2BIG: 'argument list too long',
  ENOEXEC: 'exec format error',
  EBADF: 'bad file descriptor',
  EAGAIN: 'resource temporarily unavailable',
  ENOMEM: 'not enough memory',
  EACCES: 'permission denied',
  EFAULT: 'bad address in system call argument',
  EBUSY: 'resource busy or locked',
  EEXIST: 'file already exists',
  EXDEV: 'cross-device link not permitted',
  ENODEV: 'no such device',
  EINVAL: 'invalid argument',
  ENFILE: 'file table overflow',
  EMFILE: 'too many open files',
  ENOTTY: 'inappropriate ioctl for device',
  ETXTBSY: 'text file is busy',
  EFBIG: 'file too large',
  ENOSPC: 'no space left on device',
  ESPIPE: 'invalid seek',
  EPIPE: 'broken pipe',
  EDEADLK: 'resource deadlock avoided',
  ENAMETOOLONG: 'name too long',
  ENOSYS: 'function not implemented',
  EPROTO: 'protocol error',
  EOVERFLOW: 'value too large for defined data type',
  EMSGSIZE: 'message too long',
  EOPNOTSUPP: 'operation not supported',
  EADDRINUSE: 'address already in use',
  ECONNABORTED: 'software caused connection abort',
  ECONNRESET: 'connection reset by peer',
  ENOTCONN: 'socket is not connected',
  ETIMEDOUT: 'connection timed out',
  ECONNREFUSED: 'connection refused',
  ESTALE: 'stale file handle',
  ECANCELED: 'operation canceled',
};

/** What a {@link KvmError} knows besides the error number. */
export interface KvmErrorInfo {
  /** The system call as its users name it: `ioctl(KVM_SET_USER_MEMORY_REGION)`. */
  readonly syscall: string;
  /** Memslot id the call was about. */
  readonly slot?: number | undefined;
  /** Guest physical address. */
  readonly gpa?: U64 | undefined;
  /** Size in bytes. */
  readonly size?: U64 | undefined;
  /** Why the kernel refused, in a sentence with the numbers in it. */
  readonly explanation?: string | undefined;
}

/**
 * A system call failed. The shape is that of Node's own SystemError: `code` is the name (`'EINVAL'`), `errno` the
 * negative number (−22), `syscall` what was called; and, where they apply, `slot`, `gpa`, `size` and an `explanation`
 * made from the kernel's rule that was broken.
 */
export class KvmError extends Error {
  override readonly name = 'KvmError';
  readonly code: string;
  readonly errno: number;
  readonly syscall: string;
  declare readonly slot?: number;
  declare readonly gpa?: U64;
  declare readonly size?: U64;
  declare readonly explanation?: string;

  /** @param errno the error number, positive or negative. */
  constructor(errno: number, info: KvmErrorInfo) {
    const code = errnoName(errno);
    const text = STRERROR[code] ?? systemErrno(Math.abs(errno))?.[1] ?? 'unknown error';
    super(`${code}: ${text}, ${info.syscall}${info.explanation === undefined ? '' : `: ${info.explanation}`}`);
    this.code = code;
    this.errno = -Math.abs(errno);
    this.syscall = info.syscall;
    if (info.slot !== undefined) this.slot = info.slot;
    if (info.gpa !== undefined) this.gpa = info.gpa;
    if (info.size !== undefined) this.size = info.size;
    if (info.explanation !== undefined) this.explanation = info.explanation;
  }
}

/** What is known of a {@link ProgramInterruption} beside its code. */
export interface ProgramInterruptionInfo {
  /** The architecture's name of the code: `page-translation exception`. */
  readonly title: string;
  /** The guest address that the access named. */
  readonly gaddr: U64;
  /** The first address of the access that failed, where it could be found out. */
  readonly address?: bigint | undefined;
  /** Bytes that are known to have been moved before, where the transfer took several calls. */
  readonly transferred?: number | undefined;
  /** Why, in a sentence with the numbers in it. */
  readonly explanation?: string | undefined;
  /** The walk through the translation tables, a line per step. */
  readonly walk?: string | undefined;
}

/**
 * An s390x access met a program-interruption condition of the guest: not an error of the call, but what the guest's
 * CPU would have seen. `code` is the program-interruption code (4 protection, 5 addressing, 0x10 segment translation,
 * 0x11 page translation …; Principles of Operation, chapter 6).
 */
export class ProgramInterruption extends Error {
  override readonly name = 'ProgramInterruption';
  readonly code: number;
  readonly title: string;
  readonly gaddr: bigint;
  readonly address: bigint | undefined;
  readonly transferred: number;
  readonly explanation: string | undefined;
  readonly walk: string | undefined;

  constructor(code: number, info: ProgramInterruptionInfo) {
    const { title, gaddr, explanation } = info;
    super(
      `${title} (${hex(code)}) at ${hex(info.address ?? gaddr)}${explanation === undefined ? '' : `: ${explanation}`}`,
    );
    this.code = code;
    this.title = title;
    this.gaddr = BigInt(gaddr);
    this.address = info.address;
    this.transferred = info.transferred ?? 0;
    this.explanation = explanation;
    this.walk = info.walk;
  }
}
