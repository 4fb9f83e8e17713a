import { endianness } from 'node:os';
import { startTests, type Task } from '@vitest/runner';
import * as fc from 'fast-check';
import type { Json } from '../../../lib/lab/frames.ts';
import { RUNNER } from '../../../lib/lab/guest/vitest/runner.ts';

/** What one test file gave. */
export interface ModelFile {
  readonly file: string;
  readonly passed: number;
  readonly ms: number;
  /** Names of the tests that failed, with the first lines of why; and the file itself if it could not be loaded. */
  readonly failures: readonly string[];
}

export interface ModelResult {
  readonly arch: string;
  readonly endianness: 'BE' | 'LE';
  readonly node: string;
  readonly files: readonly ModelFile[];
}

/** Properties are tried as often as there is time for: their whole number of runs is the host's business. */
fc.configureGlobal({ interruptAfterTimeLimit: 15_000, markInterruptAsFailure: false });

/** Runs test files with vitest's runner, one after the other; the result is a `ModelResult`. */
export default async function runModels(args: Json, progress: (text: string) => void): Promise<Json> {
  const files: ModelFile[] = [];
  for (const file of args as readonly string[]) {
    const start = performance.now();
    const [suite] = await startTests([new URL(`../../../${file}`, import.meta.url).pathname], RUNNER);
    const ran: Counted = { passed: 0, failures: [] };
    count(suite!, '', ran);
    const done = { file, ...ran, ms: Math.round(performance.now() - start) };
    files.push(done);
    progress(`${file}: ${done.passed} passed, ${done.failures.length} failed, ${done.ms} ms`);
  }
  const result: ModelResult = { arch: process.arch, endianness: endianness(), node: process.version, files };
  return result as unknown as Json;
}

interface Counted {
  passed: number;
  readonly failures: string[];
}

/** Anything that is neither a test that passed nor a suite without errors is a failure: so is a test that did not run. */
function count(task: Task, path: string, into: Counted): void {
  const name = path === '' ? task.name : `${path} > ${task.name}`;
  const { state, errors = [] } = task.result ?? {};
  if (task.type === 'test' && state === 'pass') into.passed++;
  else if (task.type === 'test' || errors.length > 0) {
    into.failures.push(`${name}: ${errors.map(({ message }) => message).join('; ') || `state ${state ?? task.mode}`}`);
  }
  if (task.type === 'suite') for (const each of task.tasks) count(each, name, into);
}
