/**
 * A test runner for Stryker that runs vitest's files in its own process, by vitest's own runner, matchers and spies (as a lab's guest does): the
 * sources are loaded once for all mutants, where vitest starts a worker for each.
 */

import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { setTimeout } from 'node:timers/promises';
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
import { restoreAllMocks } from '@vitest/spy';
import { build } from 'esbuild';
import fc from 'fast-check';
import { areaOf } from './areas.mjs';
import { TestOrder } from './order.mjs';
import { isSampled } from './sample.mjs';

const area = areaOf(process.env.MUTATE_AREA);

const VITEST = 'lib/lab/guest/vitest';

/** What outlives a process that was ended for a mutant without end: modules by file, and what the dry run said of each test. */
const KEPT = 'in-process.json';

/** A test that reaches a mutant this many times as often as in the dry run, and at least so often, has no end. */
const ENDLESS = 100;
const ENDLESS_AT_LEAST = 10_000;

/** What a test may wait for beyond ten times what it took. */
const PATIENCE_MS = 20_000;

/**
 * Makes modules that share the sources of the tests' files and vitest's stand-in; what they say of their own place stays true.
 * @returns what became of each file, by its path
 */
async function bundle(files) {
  const plugin = {
    name: 'sources',
    setup({ onLoad, onResolve }) {
      onResolve({ filter: /^vitest$/ }, () => ({ path: resolve('test/mutate/vitest.mjs') }));
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

/** The area's files, but for those that need more of vitest than its stand-in has. */
const testFiles = () =>
  readdirSync('test', { recursive: true })
    .filter((path) => area.tests.test(path))
    .map((path) => `test/${path}`)
    .filter((path) => !/\bvi\.(?!spyOn|restoreAllMocks)/.test(readFileSync(path, 'utf8')));

/** Every test below a task, with the suites that it is in. */
function* testsIn(task, suites = []) {
  if (task.type === 'test') yield { task, suites };
  else for (const one of task.tasks) yield* testsIn(one, [...suites, task]);
}

/** What the mutated sources look at. */
globalThis[INSTRUMENTER_CONSTANTS.NAMESPACE] ??= {};
const stryker = globalThis[INSTRUMENTER_CONSTANTS.NAMESPACE];

/** What the test that runs wants done when it has finished, for the tests' `onTestFinished`. */
const finishing = [];
globalThis.finishing = finishing;

/** Milliseconds of this process, which a busy machine makes no longer. */
function processorTime() {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

/** What nobody caught while a test ran: it fails, as vitest has it. */
let uncaught;
process.on('uncaughtException', (error) => {
  uncaught ??= error;
});

/** Time for what a test that failed has left behind to go wrong, before the next mutant is there. */
const SETTLE_MS = 5;

// Properties go through the same examples for every mutant.
fc.configureGlobal({ seed: 1 });

class InProcessRunner {
  static inject = [];
  #tests = [];
  #order = new TestOrder([], {});
  #hits = {};
  #modules = new Map();

  /** A mutant is there while tests run, never while modules are loaded: they are as anew for each. */
  capabilities() {
    return { reloadEnvironment: true };
  }

  async init() {
    const kept = existsSync(KEPT)
      ? JSON.parse(readFileSync(KEPT, 'utf8'))
      : { modules: await bundle(testFiles()), times: {}, hits: {} };
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
        if (area.leftOut?.test(name)) continue;
        const id = createHash('sha256').update(`${file}#${i}#${name}`).digest('base64url').slice(0, 8);
        this.#tests.push({ id, name, file: resolve(file), task, suites });
      }
    }
    this.#learn(kept);
  }

  #learn({ times, hits }) {
    this.#order = new TestOrder(this.#tests, times);
    this.#hits = hits;
  }

  async dryRun() {
    stryker.activeMutant = undefined;
    const tests = [];
    for await (const result of this.#run(this.#tests)) tests.push(result);
    const times = Object.fromEntries(tests.map(({ id, timeSpentMs }) => [id, timeSpentMs]));
    const { mutantCoverage } = stryker;
    this.#learn({ times, hits: mutantCoverage.perTest });
    writeFileSync(KEPT, JSON.stringify({ modules: [...this.#modules], times, hits: mutantCoverage.perTest }));
    return { status: DryRunStatus.Complete, tests, mutantCoverage };
  }

  async mutantRun({ activeMutant, testFilter, disableBail, hitLimit }) {
    const { id, fileName, location, replacement } = activeMutant;
    const file = fileName.slice(fileName.lastIndexOf('/lib/') + 1);
    if (!isSampled(area, file, location.start, replacement))
      return { status: MutantRunStatus.Error, errorMessage: 'not in the sample' };
    stryker.activeMutant = id;
    const hitLimitOf = (test) => {
      const hits = this.#hits[test]?.[id];
      return hits === undefined ? hitLimit : Math.max(ENDLESS * hits, ENDLESS_AT_LEAST);
    };
    const tests = [];
    const inOrder = this.#order.of(file, testFilter, ['""', '``'].includes(replacement));
    for await (const result of this.#run(inOrder, hitLimitOf)) {
      tests.push(result);
      const reached = determineHitLimitReached(stryker.hitCount, stryker.hitLimit);
      if (reached !== undefined || result.isEndless)
        return toMutantRunResult(reached ?? { status: DryRunStatus.Timeout, reason: `${result.name} has no end` });
      if (result.status !== TestStatus.Failed) continue;
      this.#order.failed(file, result.id);
      if (!disableBail) break;
    }
    return toMutantRunResult({ status: DryRunStatus.Complete, tests });
  }

  /**
   * Runs tests one after the other.
   * @param hitLimitOf how often each may reach the mutant; undefined where there is none
   */
  async *#run(tests, hitLimitOf) {
    const entered = [];
    const leave = async (suites) => {
      while (entered.length > 0 && !suites.includes(entered.at(-1).suite))
        for (const end of entered.pop().ends) await end();
    };
    try {
      for (const { id, name, file, task, suites } of tests) {
        const result = { id, name, fileName: file, timeSpentMs: 0, status: TestStatus.Success, isEndless: false };
        const start = processorTime();
        stryker.currentTestId = id;
        try {
          await leave(suites);
          for (const suite of suites.slice(entered.length)) {
            const ends = [...getHooks(suite).afterAll].map((hook) => () => hook(suite));
            entered.push({ suite, ends });
            for (const hook of getHooks(suite).beforeAll) await hook(suite);
          }
          stryker.hitCount = hitLimitOf && 0;
          stryker.hitLimit = hitLimitOf?.(id);
          result.isEndless = !(await hasEnd(runTest(task, suites), PATIENCE_MS + 10 * this.#order.timeOf(id)));
        } catch (error) {
          if (error?.code === 'VITEST_PENDING') result.status = TestStatus.Skipped;
          else Object.assign(result, { status: TestStatus.Failed, failureMessage: String(error?.message ?? error) });
        }
        if (uncaught !== undefined && result.status === TestStatus.Success)
          Object.assign(result, { status: TestStatus.Failed, failureMessage: `uncaught: ${uncaught?.message}` });
        uncaught = undefined;
        stryker.currentTestId = undefined;
        result.timeSpentMs = processorTime() - start;
        yield result;
      }
    } finally {
      // What a mutant leaves behind may end badly.
      await leave([]).catch(() => {});
      restoreAllMocks();
      if (hitLimitOf !== undefined) await setTimeout(SETTLE_MS);
      uncaught = undefined;
    }
  }
}

/** Whether a test comes to an end in time, which is always so where `limit` isn't a number yet. */
async function hasEnd(test, limit) {
  if (Number.isNaN(limit)) return test.then(() => true);
  const ended = new AbortController();
  const late = setTimeout(limit, false, { signal: ended.signal }).catch(() => {});
  try {
    return await Promise.race([test.then(() => true), late]);
  } finally {
    ended.abort();
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
    for (const finished of [...(task.onFinished ?? []), ...finishing.splice(0)].reverse()) await finished(task.context);
    task.onFinished = undefined;
  }
}

export const strykerPlugins = [declareClassPlugin(PluginKind.TestRunner, 'in-process', InProcessRunner)];
