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

const NOTICED = ['Killed', 'Timeout'];
const { files } = JSON.parse(readFileSync(`.stryker/${name}.json`, 'utf8'));
let [noticed, same, all] = [0, 0, 0];
for (const [path, file] of Object.entries(files)) {
  for (const { status, location, replacement } of file.mutants) {
    if (status === 'Ignored' || status === 'CompileError') continue;
    all++;
    const code = textOf(file, location);
    if (NOTICED.includes(status)) noticed++;
    else if (SAME_PROGRAM.some((one) => path === one.file && code === one.code && replacement === one.as)) same++;
    else console.log(`${status}: ${path}:${location.start.line}: ${code} as ${replacement}`);
  }
}
const percent = ((100 * noticed) / all).toFixed(1);
console.log(
  `${name}: ${noticed} of ${all} noticed (${percent} %), ${same} the same program, ${all - noticed - same} neither`,
);
process.exitCode = noticed + same === all ? 0 : 1;
