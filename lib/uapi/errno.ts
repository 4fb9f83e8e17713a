import { checkWord } from './argument-errors.ts';
import { systemErrno } from './system-errno.ts';

/**
 * Linux error numbers of the calls this project makes, the same on every architecture
 * (uAPI `asm-generic/errno-base.h`, `errno.h`). Kept as data so that the emulated kernel answers in
 * Linux numbers on every host.
 */
export const ERRNO = {
  EPERM: 1,
  ENOENT: 2,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  E2BIG: 7,
  ENOEXEC: 8,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  EXDEV: 18,
  ENODEV: 19,
  EINVAL: 22,
  ENFILE: 23,
  EMFILE: 24,
  ENOTTY: 25,
  ETXTBSY: 26,
  EFBIG: 27,
  ENOSPC: 28,
  ESPIPE: 29,
  EPIPE: 32,
  EDEADLK: 35,
  ENAMETOOLONG: 36,
  ENOSYS: 38,
  EPROTO: 71,
  EOVERFLOW: 75,
  EMSGSIZE: 90,
  EOPNOTSUPP: 95,
  EADDRINUSE: 98,
  ECONNABORTED: 103,
  ECONNRESET: 104,
  ENOTCONN: 107,
  ETIMEDOUT: 110,
  ECONNREFUSED: 111,
  ESTALE: 116,
  ECANCELED: 125,
} as const;

export type ErrnoName = keyof typeof ERRNO;

const names = new Map<number, ErrnoName>(Object.entries(ERRNO).map(([name, value]) => [value, name as ErrnoName]));

/**
 * The name of an error number, positive or negative: `errnoName(-22)` is `'EINVAL'`. On Linux those that aren't in {@link ERRNO} have the
 * name that Node knows; unknown numbers give `'E<number>'`.
 */
export function errnoName(errno: number): `E${string}` {
  const value = Math.abs(checkWord(errno, 'errno'));
  return names.get(value) ?? systemErrno(value)?.[0] ?? `E${value}`;
}
