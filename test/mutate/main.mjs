/**
 * npm run mutate -- AREA[:OFFSET] [--slow] [what stryker takes]: mutates an area, and fails for a mutant that no test noticed, unless
 * same-program.mjs says why it is the same program. Of an area with a sample, OFFSET (below the sample, 0 if it is left out) says which one.
 * With --slow those that no quick test noticed the last time are tried with slow ones.
 */

import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { AREAS, areaOf } from './areas.mjs';
import { SAME_PROGRAM } from './same-program.mjs';
import { isSampled } from './sample.mjs';

const [wanted = '', ...given] = process.argv.slice(2);
const slow = given.includes('--slow');
const options = given.filter((option) => option !== '--slow');
const area = areaOf(wanted);
if (area === undefined) {
  console.error(`usage: npm run mutate -- AREA[:OFFSET] [--slow], one of ${AREAS.map((one) => one.name).join(', ')}`);
  process.exit(2);
}
const report = `.stryker/${wanted}.json`;
rmSync(report, { force: true });
forget(`.stryker/${wanted}.incremental.json`, slow ? ['RuntimeError', 'Survived', 'NoCoverage'] : ['RuntimeError']);
const addon = resolve('build/Release/kvm_bridge.node');
const run = spawnSync('npx', ['stryker', 'run', ...options], {
  stdio: 'inherit',
  env: {
    ...process.env,
    MUTATE_AREA: wanted,
    ...(existsSync(addon) && { KVM_BRIDGE_ADDON: addon }),
    ...(slow && { MUTATE_SLOW: '1' }),
  },
});
if (run.status !== 0 || !existsSync(report)) process.exit(run.status || 1);

/**
 * Has mutants of which the last run said one of `statuses` tried again. One that was not in the sample (a RuntimeError) may be in it now, where
 * lines were added above it.
 */
function forget(path, statuses) {
  if (!existsSync(path)) return;
  const results = JSON.parse(readFileSync(path, 'utf8'));
  for (const file of Object.values(results.files)) {
    file.mutants = file.mutants.filter(({ status }) => !statuses.includes(status));
  }
  writeFileSync(path, JSON.stringify(results));
}

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

/** In the report the first line and column are 1. */
const isTried = (path, { location: { start }, replacement }) =>
  isSampled(area, path, { line: start.line - 1, column: start.column - 1 }, replacement);

/** A loop without end that keeps what it makes ends the process that tries it. */
const endsAll = ({ status, statusReason = '' }) =>
  status === 'RuntimeError' && statusReason.startsWith('Test runner crashed');

const LEFT_OUT = ['Ignored', 'CompileError'];
const { files } = JSON.parse(readFileSync(report, 'utf8'));
let [noticed, endless, same, all] = [0, 0, 0, 0];
for (const [path, file] of Object.entries(files)) {
  for (const mutant of file.mutants.filter((one) => !LEFT_OUT.includes(one.status) && isTried(path, one))) {
    const { status, location, replacement } = mutant;
    all++;
    const isEndless = status === 'Timeout' || endsAll(mutant);
    if (isEndless) endless++;
    if (status === 'Killed' || isEndless) noticed++;
    else if (isSame(path, file, mutant)) same++;
    else console.log(`${status}: ${path}:${location.start.line}: ${textOf(file, location)} as ${replacement}`);
  }
}
const percent = ((100 * noticed) / all).toFixed(1);
console.log(
  `${wanted}: ${noticed} of ${all} noticed (${percent} %, ${endless} of them by a test without end), ` +
    `${same} the same program, ${all - noticed - same} neither`,
);
process.exitCode = noticed + same === all ? 0 : 1;
