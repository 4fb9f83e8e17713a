import { loadNative } from '../../lib/backends/native.ts';
import { whyNoKvm } from '../scenarios/real-host.ts';
import { BENCHMARKS } from './all.ts';
import type { Bench } from './benchmark.ts';
import { loadComparators } from './comparators.ts';
import { type Effort, measure } from './measure.ts';
import { report } from './report.ts';
import { loadVmMemory } from './vm-memory.ts';

// npm run bench -- [NAME…]: measures the named benchmarks, or all of them, against C and koffi on this machine.

const EFFORT: Effort = { warmUp: 300e6, batch: 1e6, rounds: 151, budget: 2e9, fewestRounds: 15 };

const wanted = process.argv.slice(2);
const unknown = wanted.filter((name) => !BENCHMARKS.some((benchmark) => benchmark.name === name));
const comparators = await loadComparators();
if (unknown.length > 0) {
  const names = BENCHMARKS.map(({ name }) => name).join(' ');
  console.error(`There is no benchmark ${unknown.join(', ')}. usage: npm run bench -- [NAME…], of: ${names}`);
  process.exitCode = 2;
} else if (typeof comparators === 'string') {
  console.error(`There is nothing to compare with. ${comparators}`);
  process.exitCode = 1;
} else {
  const vmMemory = await loadVmMemory();
  if (typeof vmMemory === 'string') console.log(`${vmMemory}\n`);
  const bench: Bench = {
    comparators,
    vmMemory: typeof vmMemory === 'string' ? undefined : vmMemory,
    sizes: (all) => all,
  };
  const missing = whyNoKvm(loadNative());
  for (const benchmark of BENCHMARKS) {
    if (wanted.length > 0 && !wanted.includes(benchmark.name)) continue;
    console.log(`# ${benchmark.name}\n`);
    if (benchmark.needsKvm && missing !== undefined) {
      console.log(`Left out, for it needs the real kernel: ${missing}\n`);
      continue;
    }
    for (const each of benchmark.cases(bench))
      console.log(report(each, await measure(each, EFFORT, comparators.threadTime)));
  }
}
