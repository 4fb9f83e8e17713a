import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));

interface Row {
  readonly file: string;
  readonly line?: string;
  readonly code: string;
  readonly as: string;
  readonly why: string;
}

const { SAME_PROGRAM }: { SAME_PROGRAM: readonly Row[] } = await import(
  new URL('../../mutate/same-program.mjs', import.meta.url).href
);

/** What is wrong with the place that a row names. */
function misplaced({ file, line = '', code }: Row): boolean {
  const lines = readFileSync(`${ROOT}${file}`, 'utf8').split('\n');
  const first = code.split(' ')[0]!;
  const all = lines.map((text) => text.trim()).join(' ');
  return !all.includes(code) || !lines.some((text) => text.includes(line) && text.includes(first));
}

it('what is said to be the same program is there, and said once', () => {
  expect(SAME_PROGRAM.filter(misplaced)).toEqual([]);
  const places = SAME_PROGRAM.map(({ file, line, code, as }) => JSON.stringify([file, line, code, as]));
  expect(places.filter((place, i) => places.indexOf(place) < i)).toEqual([]);
});
