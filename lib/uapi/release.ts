import { invalidArgType, outOfRange } from './argument-errors.ts';

/** A kernel release, as far as the memory uAPI changed with it: `6.1`, `6.12`. */
export interface Release {
  readonly text: string;
  /** Whether this release is `major.minor` or newer. */
  since(major: number, minor: number): boolean;
}

/** The release the facts and most recordings are from. */
export const REFERENCE_RELEASE = '6.12';

/** The oldest one that recordings are from: what kernels before it answer is not known. */
const OLDEST_RELEASE: Release = releaseOf(6, 1);

/** What `uname -r` says, as far as it can be read: the reference release where it cannot, 6.1 where it is an older one. */
export function releaseOfHost(text: string): Release {
  const [, major, minor] = /^(\d+)\.(\d+)/.exec(text) ?? [];
  if (major === undefined) return parseRelease(REFERENCE_RELEASE);
  const release = releaseOf(Number(major), Number(minor));
  return isKnown(release) ? release : OLDEST_RELEASE;
}

/** Reads `6.12`, `6.12.107` or `6.12.107+deb13-s390x`. Throws a RangeError for anything else, and for what is older than 6.1. */
export function parseRelease(text: string): Release {
  if (typeof text !== 'string') throw invalidArgType('release', 'a string', text);
  const match = /^(\d+)\.(\d+)(?:[.+-].*)?$/.exec(text);
  if (match === null) throw outOfRange('release', 'like "6.12" or "6.12.107"', text);
  const release = releaseOf(Number(match[1]), Number(match[2]));
  if (!isKnown(release))
    throw outOfRange('release', `${OLDEST_RELEASE.text} or newer (older ones are not emulated)`, text);
  return release;
}

function releaseOf(major: number, minor: number): Release {
  return {
    text: `${major}.${minor}`,
    since: (otherMajor, otherMinor) => major > otherMajor || (major === otherMajor && minor >= otherMinor),
  };
}

const isKnown = (release: Release): boolean => release.since(6, 1);
