import { createHash } from 'node:crypto';

/**
 * Whether a mutant is in a sample of one of `sample`: by what it is and where, so that the same ones are each time.
 * @param file its path from the repository's root
 * @param place line and column, the first of which are 0
 */
export function isSampled(sample, file, place, replacement) {
  const what = `${file}:${place.line}:${place.column}:${replacement}`;
  return createHash('sha256').update(what).digest().readUInt32BE() % sample === 0;
}
