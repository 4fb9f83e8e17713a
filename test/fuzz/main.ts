import { parseArgs } from 'node:util';
import { emulationOf } from '../../lib/backends/emulation.ts';
import { loadNative } from '../../lib/backends/native.ts';
import { LabError, sentenceOf } from '../../lib/lab/lab-error.ts';
import { selectVariants } from '../../lib/lab/variants.ts';
import { ARCHES } from '../../lib/uapi/arch.ts';
import { runInLab } from '../lab/run-in-lab.ts';
import { whyNoKvm } from '../scenarios/real-host.ts';
import { describeDifference, type FuzzResult, fuzz } from './fuzz.ts';
import { addonHtabLoops, describeHtabFuzz, fuzzHtabStreams } from './htab-fuzz.ts';

// npm run fuzz: random sequences of calls, on a real kernel and on the emulated one; or random streams of HPT entries.

const USAGE = `usage: npm run fuzz -- [--arch ARCH] [--kernel 6.12|6.1] [--lab] [--seed N] [--ops N] [--topic TOPIC]
       npm run fuzz -- --htab-streams N [--seed N]

Without --arch, or with this machine's own, its /dev/kvm is asked; with another one (or --lab) the lab's. HTAB streams
go through the codec, with and without the addon, and into the emulated kernel.`;

const LAB_TIMEOUT_MS = 30 * 60_000;

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      arch: { type: 'string' },
      kernel: { type: 'string' },
      lab: { type: 'boolean', default: false },
      seed: { type: 'string', default: '1' },
      ops: { type: 'string', default: '10000' },
      topic: { type: 'string' },
      'htab-streams': { type: 'string' },
    },
  });
  const seed = Number(values.seed);
  const operations = Number(values.ops);
  const arch = ARCHES.find((name) => name === (values.arch ?? 'x86_64'));
  if (arch === undefined || !Number.isSafeInteger(seed) || !Number.isSafeInteger(operations) || operations < 1) {
    console.error(USAGE);
    return 2;
  }
  const progress = (text: string): void => console.error(text);
  const loaded = loadNative();
  if (values['htab-streams'] !== undefined) {
    const streams = Number(values['htab-streams']);
    if (!Number.isSafeInteger(streams) || streams < 1) {
      console.error(USAGE);
      return 2;
    }
    const addon = addonHtabLoops(loaded);
    const result = fuzzHtabStreams({ seed, streams, addon, progress: (done) => progress(`${done} streams`) });
    console.log(describeHtabFuzz(result));
    if (addon === undefined) console.log('without the addon');
    return 0;
  }
  let result: FuzzResult;
  if (!values.lab && values.kernel === undefined && 'calls' in loaded && loaded.calls.arch === arch) {
    const missing = whyNoKvm(loaded);
    if (missing !== undefined) {
      console.error(`${missing} Or ask the lab's kernel: --lab`);
      return 1;
    }
    result = await fuzz(loaded.calls, emulationOf(loaded.calls), { seed, operations, topic: values.topic, progress });
  } else {
    const [variant] = selectVariants(arch, values.kernel) ?? [];
    if (variant === undefined) {
      console.error(USAGE);
      return 2;
    }
    const script = 'test/lab/guest/fuzz.js';
    const answer = await runInLab(variant, {
      script,
      args: { seed, operations, ...(values.topic === undefined ? {} : { topic: values.topic }) },
      onProgress: progress,
      timeoutMs: LAB_TIMEOUT_MS,
    });
    result = answer as unknown as FuzzResult;
  }
  if (result.difference !== undefined) {
    console.log(describeDifference(result.difference));
    return 1;
  }
  console.log(`seed ${seed}: ${result.operations} operations, ${result.calls} calls on ${arch}: no difference`);
  return 0;
}

try {
  process.exitCode = await main();
} catch (error) {
  for (const line of error instanceof LabError ? error.consoleLines : []) console.error(`  | ${line}`);
  console.error(sentenceOf(error));
  process.exitCode = 1;
}
