import { invalidArgType, outOfRange } from './argument-errors.ts';

/** A kernel release, as far as the memory uAPI changed with it: `6.1`, `6.12`. */
export interface Release {
  readonly text: string;
  /** Whether this release is `major.minor` or newer. */
  since(major: number, minor: number): boolean;
}

/** The release the facts and most recordings are from. */
export const REFERENCE_RELEASE = '6.12';

/** What `uname -r` says, as far as it can be read; of what cannot, the reference release is thought. */
export function releaseOfHost(text: string): Release {
  const numbers = /^\d+\.\d+/.exec(text)?.[0];
  return parseRelease(numbers ?? REFERENCE_RELEASE);
}

/** Reads `6.12`, `6.12.107` or `6.12.107+deb13-s390x`. Throws a RangeError for anything else. */
export function parseRelease(text: string): Release {
  if (typeof text !== 'string') throw invalidArgType('release', 'a string', text);
  const match = /^(\d+)\.(\d+)(?:[.+-].*)?$/.exec(text);
  if (match === null) throw outOfRange('release', 'like "6.12" or "6.12.107"', text);
  const major = Number(match[1]);
  const minor = Number(match[2]);
  return {
    text: `${major}.${minor}`,
    since: (otherMajor, otherMinor) => major > otherMajor || (major === otherMajor && minor >= otherMinor),
  };
}
