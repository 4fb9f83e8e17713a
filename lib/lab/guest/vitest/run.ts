import { register } from 'node:module';
import { resolve } from 'node:path';
import { startTests, type Task } from '@vitest/runner';
import { RUNNER } from './runner.ts';

/*
 * What a guest starts for somebody's vitest files: runs them one after the other, prints what each test gave, and ends with status 1 if
 * one failed or there was none.
 */

// The types were taken away before the files came here; Node 20 does not know the names' ending.
const HOOKS = `export const load = (url, context, next) =>
  next(url, /\\.m?ts$/.test(url) ? { ...context, format: 'module' } : context);`;
register(`data:text/javascript,${encodeURIComponent(HOOKS)}`);

const counts = { passed: 0, failed: 0, skipped: 0 };

const indented = (text: string): string => text.replaceAll(/^/gm, '     ');

function tellErrors(task: Task): void {
  for (const { message, diff, stack = '' } of task.result?.errors ?? []) {
    const [place = ''] = stack.split('\n').filter((line) => /^\s+at /.test(line) && !line.includes('node_modules'));
    for (const part of [message, diff, place.trim()]) if (part) console.log(indented(part));
  }
}

function tell(task: Task, path: string): void {
  const name = path === '' ? task.name : `${path} > ${task.name}`;
  const { state, duration = 0 } = task.result ?? {};
  if (task.type === 'suite') {
    if ((task.result?.errors ?? []).length > 0) {
      counts.failed++;
      console.log(`  failed   ${name}`);
      tellErrors(task);
    }
    for (const each of task.tasks) tell(each, name);
    return;
  }
  const outcome = state === 'pass' ? 'passed' : state === 'fail' ? 'failed' : 'skipped';
  counts[outcome]++;
  console.log(`  ${outcome.padEnd(8)} ${name}${outcome === 'skipped' ? '' : `  ${Math.round(duration)} ms`}`);
  tellErrors(task);
}

for (const file of process.argv.slice(2)) {
  console.log(file);
  const [suite] = await startTests([resolve(file)], RUNNER);
  tell({ ...suite!, name: '' } as Task, '');
}
console.log(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`);
// As vitest does, whatever a test left open.
process.exit(counts.failed > 0 || counts.passed === 0 ? 1 : 0);
