/**
 * npm run mutate -- [AREA] [what stryker takes]: mutates an area, and fails for a mutant that no test noticed, unless
 * same-program.mjs says why it is the same program.
 */

import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { AREAS } from './areas.mjs';
import { SAME_PROGRAM } from './same-program.mjs';

const [name = '', ...options] = process.argv.slice(2);
if (!AREAS.some((area) => area.name === name)) {
  console.error(`usage: npm run mutate -- AREA, one of ${AREAS.map((area) => area.name).join(', ')}`);
  process.exit(2);
}
const run = spawnSync('npx', ['stryker', 'run', ...options], {
  stdio: 'inherit',
  env: { ...process.env, MUTATE_AREA: name },
});
if (run.status !== 0) process.exit(run.status ?? 1);

/** The lines of a mutant's place, as one text without indentation. */
function textOf({ source }, { start, end }) {
  const lines = source.split('\n').slice(start.line - 1, end.line);
  lines[lines.length - 1] = lines.at(-1).slice(0, end.column - 1);
  lines[0] = lines[0].slice(start.column - 1);
  return lines.map((line) => line.trim()).join(' ');
}

/** Where the program is the same: `line` tells which of those that read alike. */
const isSame = (path, file, { location, replacement }) =>
  SAME_PROGRAM.some(
    (one) =>
      one.file === path &&
      one.code === textOf(file, location) &&
      one.as === replacement &&
      file.source.split('\n')[location.start.line - 1].includes(one.line ?? ''),
  );

const NOTICED = ['Killed', 'Timeout'];
const { files } = JSON.parse(readFileSync(`.stryker/${name}.json`, 'utf8'));
let [noticed, same, all] = [0, 0, 0];
for (const [path, file] of Object.entries(files)) {
  for (const mutant of file.mutants) {
    const { status, location, replacement } = mutant;
    if (status === 'Ignored' || status === 'CompileError') continue;
    all++;
    if (NOTICED.includes(status)) noticed++;
    else if (isSame(path, file, mutant)) same++;
    else console.log(`${status}: ${path}:${location.start.line}: ${textOf(file, location)} as ${replacement}`);
  }
}
const percent = ((100 * noticed) / all).toFixed(1);
console.log(
  `${name}: ${noticed} of ${all} noticed (${percent} %), ${same} the same program, ${all - noticed - same} neither`,
);
process.exitCode = noticed + same === all ? 0 : 1;
