import { createHash } from 'node:crypto';

/**
 * Whether a mutant is in an area's sample: by what it is and where, so that the same ones are each time.
 * @param area one mutant of `sample` is, which ones `offset` says
 * @param file its path from the repository's root
 * @param place line and column, the first of which are 0
 */
export function isSampled({ sample = 1, offset }, file, place, replacement) {
  const what = `${file}:${place.line}:${place.column}:${replacement}`;
  return createHash('sha256').update(what).digest().readUInt32BE() % sample === offset;
}
