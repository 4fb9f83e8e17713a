import { parseArgs } from 'node:util';
import { compareWithEmulated, comparisonTable } from '../scenarios/compare.ts';
import { RECORDINGS, writeRecordings } from '../scenarios/recording.ts';
import type { TakenSet } from '../scenarios/take.ts';
import { LabError, sentenceOf } from './lab-error.ts';
import { openShell, runInLab } from './run-in-lab.ts';
import { selectVariants, VARIANTS, type Variant } from './variants.ts';

const USAGE = `usage: npm run lab -- ARCH [--kernel 6.12|6.1] [--record] [--shell] [--refresh]
       npm run lab -- --list

ARCH is s390x, ppc64, x86_64, aarch64, or all.
  --kernel   the kernel's series; the default is the newest
  --record   write the recordings of the real kernel
  --shell    our REPL on the machine's console
  --refresh  look for newer Debian packages first`;

const PAYLOAD = 'test/lab/guest/run-scenarios.js';

const interruption = new AbortController();
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.once(name, () => interruption.abort(new LabError(`Stopped by ${name}.`)));
}

function parse() {
  return parseArgs({
    allowPositionals: true,
    options: {
      kernel: { type: 'string' },
      record: { type: 'boolean', default: false },
      shell: { type: 'boolean', default: false },
      refresh: { type: 'boolean', default: false },
      list: { type: 'boolean', default: false },
    },
  });
}

async function main(): Promise<number> {
  let parsed: ReturnType<typeof parse>;
  try {
    parsed = parse();
  } catch (error) {
    console.error(`${sentenceOf(error)}\n\n${USAGE}`);
    return 2;
  }
  const { values, positionals } = parsed;
  if (values.list) {
    for (const { id, kernel } of VARIANTS) console.log(`${id.padEnd(14)} ${kernel.note}`);
    return 0;
  }
  const [arch] = positionals;
  const variants = arch === undefined ? undefined : selectVariants(arch, values.kernel);
  if (variants === undefined || positionals.length > 1 || (values.shell && variants.length > 1)) {
    console.error(USAGE);
    return 2;
  }
  let failures = 0;
  for (const variant of variants) {
    const done = values.shell ? shell(variant, values.refresh) : run(variant, values);
    if (!(await succeeds(variant, done))) failures += 1;
    if (interruption.signal.aborted) break;
  }
  return failures === 0 ? 0 : 1;
}

async function shell(variant: Variant, refresh: boolean): Promise<void> {
  await openShell(variant, { refresh, signal: interruption.signal, onProgress: progressOf(variant) });
}

async function run(variant: Variant, options: { readonly record: boolean; readonly refresh: boolean }): Promise<void> {
  const result = await runInLab(variant, {
    script: PAYLOAD,
    refresh: options.refresh,
    signal: interruption.signal,
    onProgress: progressOf(variant),
  });
  const set = result as unknown as TakenSet;
  if (options.record) writeRecordings(RECORDINGS, variant.id, set, recordingCommand(variant));
  const compared = await compareWithEmulated(set);
  console.log(comparisonTable(compared));
  const different = compared.filter(({ difference }) => difference !== undefined);
  if (different.length !== 0) {
    throw new LabError(`${different.length} of ${compared.length} scenarios differ on ${variant.id}.`);
  }
}

function recordingCommand({ machine, kernel }: Variant): string {
  return `npm run lab -- ${machine.arch} --kernel ${kernel.series} --record`;
}

/** Prints each step with the seconds since the first. */
function progressOf(variant: Variant): (line: string) => void {
  const start = performance.now();
  return (line) => {
    const seconds = ((performance.now() - start) / 1000).toFixed(1).padStart(6);
    console.error(`${variant.id} ${seconds} s  ${line}`);
  };
}

async function succeeds(variant: Variant, work: Promise<void>): Promise<boolean> {
  try {
    await work;
    return true;
  } catch (error) {
    for (const line of error instanceof LabError ? error.consoleLines : []) console.error(`  | ${line}`);
    console.error(`${variant.id}: ${sentenceOf(error)}`);
    return false;
  }
}

process.exitCode = await main();
