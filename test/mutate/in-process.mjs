/**
 * A test runner for Stryker that runs vitest's files in its own process, by vitest's own runner and matchers (as a lab's guest does): the
 * sources are loaded once for all mutants, where vitest starts a worker for each.
 */

import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { INSTRUMENTER_CONSTANTS } from '@stryker-mutator/api/core';
import { declareClassPlugin, PluginKind } from '@stryker-mutator/api/plugin';
import {
  DryRunStatus,
  determineHitLimitReached,
  MutantRunStatus,
  TestStatus,
  toMutantRunResult,
} from '@stryker-mutator/api/test-runner';
import { collectTests, getFn, getHooks } from '@vitest/runner';
import { build } from 'esbuild';
import fc from 'fast-check';
import { area } from './areas.mjs';
import { isSampled } from './sample.mjs';

const VITEST = 'lib/lab/guest/vitest';

/** What outlives a process that was ended for a mutant without end: modules by file, and how long each file takes. */
const KEPT = 'in-process.json';

/**
 * Makes modules that share the sources of the tests' files and vitest's stand-in; what they say of their own place stays true.
 * @returns what became of each file, by its path
 */
async function bundle(files) {
  const plugin = {
    name: 'sources',
    setup({ onLoad, onResolve }) {
      onResolve({ filter: /^vitest$/ }, () => ({ path: resolve(VITEST, 'api.ts') }));
      onLoad({ filter: /\.ts$/ }, async ({ path }) => {
        const contents = (await readFile(path, 'utf8'))
          .replaceAll('import.meta.url', JSON.stringify(pathToFileURL(path).href))
          .replaceAll('import.meta.dirname', JSON.stringify(dirname(path)));
        return { contents, loader: 'ts' };
      });
    },
  };
  const { metafile } = await build({
    absWorkingDir: process.cwd(),
    metafile: true,
    entryPoints: [...files, `${VITEST}/runner.ts`].map((path) => `./${path}`),
    outbase: '.',
    outdir: 'built',
    outExtension: { '.js': '.mjs' },
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'node',
    target: 'node20',
    packages: 'external',
    plugins: [plugin],
    logLevel: 'error',
  });
  const outputs = Object.entries(metafile.outputs).filter(([, { entryPoint }]) => entryPoint !== undefined);
  return new Map(outputs.map(([path, { entryPoint }]) => [entryPoint, resolve(path)]));
}

/** The area's files, but for those that replace things in their modules, which only vitest itself can. */
const testFiles = () =>
  readdirSync('test', { recursive: true })
    .filter((path) => area.tests.test(path))
    .map((path) => `test/${path}`)
    .filter((path) => !/\bvi\b.* from 'vitest'/.test(readFileSync(path, 'utf8')));

/** Every test below a task, with the suites that it is in. */
function* testsIn(task, suites = []) {
  if (task.type === 'test') yield { task, suites };
  else for (const one of task.tasks) yield* testsIn(one, [...suites, task]);
}

/** What the mutated sources look at. */
globalThis[INSTRUMENTER_CONSTANTS.NAMESPACE] ??= {};
const stryker = globalThis[INSTRUMENTER_CONSTANTS.NAMESPACE];

// Properties go through the same examples for every mutant.
fc.configureGlobal({ seed: 1 });

class InProcessRunner {
  static inject = [];
  #tests = [];
  #modules = new Map();

  /** A mutant is there while tests run, never while modules are loaded: they are as anew for each. */
  capabilities() {
    return { reloadEnvironment: true };
  }

  async init() {
    const kept = existsSync(KEPT)
      ? JSON.parse(readFileSync(KEPT, 'utf8'))
      : { modules: await bundle(testFiles()), times: {} };
    this.#modules = new Map(kept.modules);
    const modules = new Map(kept.modules);
    const path = `${VITEST}/runner.ts`;
    const { RUNNER } = await import(pathToFileURL(modules.get(path)).href);
    modules.delete(path);
    const runner = { ...RUNNER, trace: (_name, does, doesThen) => (doesThen ?? does)() };
    for (const [file, module] of [...modules].sort()) {
      const [collected] = await collectTests([module], runner);
      if (collected.result?.state === 'fail') throw new Error(`${file}: ${collected.result.errors[0].message}`);
      for (const [i, { task, suites }] of [...testsIn(collected)].entries()) {
        if (task.mode === 'skip' || task.mode === 'todo') continue;
        const name = [...suites.slice(1), task].map((one) => one.name).join(' > ');
        this.#tests.push({ id: `${file}#${i}#${name}`, name, file: resolve(file), task, suites });
      }
    }
    this.#sort(kept.times);
  }

  /** The files that take long go last: most mutants are noticed before. */
  #sort(times) {
    this.#tests.sort((a, b) => (times[a.file] ?? 0) - (times[b.file] ?? 0));
  }

  async dryRun() {
    stryker.activeMutant = undefined;
    const tests = await this.#run(this.#tests, false);
    const times = {};
    for (const { fileName, timeSpentMs } of tests) times[fileName] = (times[fileName] ?? 0) + timeSpentMs;
    this.#sort(times);
    writeFileSync(KEPT, JSON.stringify({ modules: [...this.#modules], times }));
    return { status: DryRunStatus.Complete, tests, mutantCoverage: stryker.mutantCoverage };
  }

  async mutantRun({ activeMutant, hitLimit, testFilter, disableBail }) {
    const { fileName, location, replacement } = activeMutant;
    const file = fileName.slice(fileName.lastIndexOf('/lib/') + 1);
    if (!isSampled(area.sample ?? 1, file, location.start, replacement))
      return { status: MutantRunStatus.Error, errorMessage: 'not in the sample' };
    stryker.hitLimit = hitLimit;
    stryker.hitCount = hitLimit === undefined ? undefined : 0;
    stryker.activeMutant = activeMutant.id;
    const wanted = testFilter && new Set(testFilter);
    const tests = await this.#run(
      this.#tests.filter(({ id }) => wanted?.has(id) !== false),
      !disableBail,
    );
    const reached = determineHitLimitReached(stryker.hitCount, hitLimit);
    return toMutantRunResult(reached ?? { status: DryRunStatus.Complete, tests });
  }

  async #run(tests, bail) {
    const results = [];
    let entered = [];
    const leave = async (suites) => {
      while (entered.length > 0 && !suites.includes(entered.at(-1).suite))
        for (const end of entered.pop().ends) await end();
    };
    for (const { id, name, file, task, suites } of tests) {
      const result = { id, name, fileName: file, timeSpentMs: 0, status: TestStatus.Success };
      results.push(result);
      const start = performance.now();
      stryker.currentTestId = id;
      try {
        await leave(suites);
        for (const suite of suites.slice(entered.length)) {
          const ends = [...getHooks(suite).afterAll].map((hook) => () => hook(suite));
          entered.push({ suite, ends });
          for (const hook of getHooks(suite).beforeAll) await hook(suite);
        }
        await runTest(task, suites);
      } catch (error) {
        if (error?.code === 'VITEST_PENDING') result.status = TestStatus.Skipped;
        else Object.assign(result, { status: TestStatus.Failed, failureMessage: String(error?.message ?? error) });
      }
      stryker.currentTestId = undefined;
      result.timeSpentMs = performance.now() - start;
      if (bail && result.status === TestStatus.Failed) break;
    }
    try {
      await leave([]);
    } catch {
      entered = [];
    }
    return results;
  }
}

async function runTest(task, suites) {
  const ends = [];
  try {
    for (const suite of suites) {
      for (const hook of getHooks(suite).beforeEach) {
        const end = await hook(task.context, suite);
        if (typeof end === 'function') ends.push(end);
      }
    }
    await getFn(task)();
  } finally {
    for (const suite of [...suites].reverse())
      for (const hook of getHooks(suite).afterEach) await hook(task.context, suite);
    for (const end of ends.reverse()) await end();
  }
}

export const strykerPlugins = [declareClassPlugin(PluginKind.TestRunner, 'in-process', InProcessRunner)];
