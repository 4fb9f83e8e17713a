import { setImmediate } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { loadNative } from '../../../lib/backends/native.ts';
import { BENCHMARKS } from '../../bench/all.ts';
import { loadComparators } from '../../bench/comparators.ts';
import { type Case, type Effort, measure } from '../../bench/measure.ts';
import { whyNoKvm } from '../../scenarios/real-host.ts';
import { collectGarbage } from '../collect-garbage.ts';

/** Each contender does one operation. */
const ONCE: Effort = { warmUp: 0, batch: 0, rounds: 1, budget: 0, fewestRounds: 1 };
/** These start a Node that imports the compiled package, which there need not be when tests run. */
const NEED_COMPILED = ['import-time', 'slot-memory'];
/** This boots two QEMUs, which takes longer than a test should. */
const BOOT = ['vhost-user-back-ends'];
const LEFT_OUT = [...NEED_COMPILED, ...BOOT];

const comparators = await loadComparators();
const kvm = whyNoKvm(loadNative()) === undefined;

describe('the benchmarks', () => {
  it('say what is missing where there is no C compiler', async () => {
    const before = process.env.CC;
    process.env.CC = '/nowhere/cc';
    try {
      expect(await loadComparators()).toMatch(/\/nowhere\/cc/);
    } finally {
      if (before === undefined) delete process.env.CC;
      else process.env.CC = before;
    }
  });

  if (typeof comparators !== 'string') {
    const able = BENCHMARKS.filter(({ name, needsKvm }) => !LEFT_OUT.includes(name) && (kvm || !needsKvm));
    it.each(able)('$name runs, and agrees with C', async (benchmark) => {
      for (const each of benchmark.cases({ comparators, sizes: (all) => all.slice(0, 1) })) {
        // What a case uses must be somebody's: a worker met a closed vCPU once. What one holds of another goes later.
        for (let i = 0; i < 3; i++) {
          collectGarbage();
          await setImmediate();
        }
        const { ratios } = await measure(each, ONCE, comparators.threadTime);
        expect(ratios.length).toBeGreaterThan(0);
        for (const { median } of ratios) expect(median).toBeGreaterThan(0);
      }
    });
  }
});

describe('measuring', () => {
  const fixed = (name: string, costs: number[]) => ({ name, run: (n: number) => n * costs.shift()! });
  const measured = (contenders: Case['contenders'], rounds: number) =>
    measure(
      { title: '', meter: 'result', per: 'call', contenders, comparisons: [{ of: 'a', to: 'b', goal: 2 }] },
      { ...ONCE, rounds, fewestRounds: rounds },
      () => 0,
    );

  it('divides the costs of the same round, and reports the median and the quartiles', async () => {
    const outcome = await measured([fixed('a', [10, 60, 90, 1000, 50]), fixed('b', [10, 20, 30, 40, 10])], 5);
    expect(outcome.ratios).toEqual([{ of: 'a', to: 'b', goal: 2, median: 3, lowerQuartile: 3, upperQuartile: 5 }]);
    expect(outcome.costs).toEqual([
      { name: 'a', median: 60 },
      { name: 'b', median: 20 },
    ]);
  });

  it('gives each contender about a batch of time', async () => {
    let time = 0;
    const ran: number[] = [];
    const run = (n: number): void => {
      ran.push(n);
      time += 25 * n;
    };
    const effort = { warmUp: 5000, batch: 1000, rounds: 3, budget: 1e9, fewestRounds: 1 };
    const { costs } = await measure(
      { title: '', meter: 'cpu', per: 'call', contenders: [{ name: 'a', run }], comparisons: [] },
      effort,
      () => time,
    );
    expect(ran.slice(-3)).toEqual([40, 40, 40]);
    expect(costs).toEqual([{ name: 'a', median: 25 }]);
  });

  it('refuses to compare with a contender that is not there', async () => {
    await expect(measured([fixed('a', [1])], 1)).rejects.toThrow('no contender b');
  });
});
