import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { Instrumenter } from '@stryker-mutator/instrumenter';

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

/** The places of an area's mutants, as Stryker takes them: of a sample nothing else is made slow by mutants that are not tried. */
export async function placesOf(area) {
  const names = readdirSync('lib', { recursive: true })
    .filter((path) => area.sources.test(path))
    .map((path) => `lib/${path}`);
  if (area.sample === undefined) return names;
  const quiet = { debug() {}, info() {}, isDebugEnabled: () => false };
  const files = names.map((name) => ({ name, mutate: true, content: readFileSync(name, 'utf8') }));
  const { mutants } = await new Instrumenter(quiet).instrument(files, {
    plugins: null,
    ignorers: [],
    excludedMutations: [],
  });
  return mutants
    .filter(({ fileName, location, replacement }) => isSampled(area, fileName, location.start, replacement))
    .map(({ fileName, location: { start, end } }) =>
      [`${fileName}:${start.line + 1}:${start.column}`, `${end.line + 1}:${end.column}`].join('-'),
    );
}
