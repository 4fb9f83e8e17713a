import { getSystemErrorMap } from 'node:util';

/** Numbers behind it are Node's own, and no system's. */
const LAST_ERRNO = 133;

/**
 * What Node calls an error number, and says of it, where it is Linux's: on other hosts the same number is another error.
 * @param errno above 0
 */
export function systemErrno(errno: number): readonly [name: `E${string}`, text: string] | undefined {
  if (process.platform !== 'linux' || errno > LAST_ERRNO) return undefined;
  return getSystemErrorMap().get(-errno) as [`E${string}`, string] | undefined;
}
