import { parseArgs } from 'node:util';
import { LabError, sentenceOf } from '../../lib/lab/lab-error.ts';
import { selectVariants, VARIANTS, type Variant } from '../../lib/lab/variants.ts';
import type { LabOptions } from '../../lib/lab/with-machine.ts';
import { compareWithEmulated, comparisonTable } from '../scenarios/compare.ts';
import { RECORDINGS, writeRecordings } from '../scenarios/recording.ts';
import { canCapture, capture } from './capture/capture.ts';
import type { ScenarioRun } from './guest/run-scenarios.ts';
import { captureEntries, copiesTable, movesTable } from './moves.ts';
import { openShell, runInLab } from './run-in-lab.ts';

const USAGE = `usage: npm run lab -- ARCH [--kernel SERIES] [--migrate] [--copies] [--only NAMES] [--record | --models | --shell] [--refresh]
                             [--kernel-root FOLDER --as NAME]
       npm run lab -- capture s390x|ppc64 [--kernel SERIES] [--out FOLDER] [--refresh]
       npm run lab -- --list

ARCH is s390x, ppc64, x86_64, aarch64, riscv64, or all.
  --kernel   the kernel's series, such as 6.1; --list has them, the default first
  --migrate  ppc64: then also move a running guest with its page table to other VMs, and a captured table in and out
  --copies   then also copy storage keys and CMMA values (s390x), or a page table during a resize (ppc64), between VMs
  --only     the scenarios whose names begin so, with commas between: memslots/,dirty-log/; with --models the files of tests
  --record   write the recordings of the real kernel; with --only those alone
  --models   run the tests of the architecture models on the machine's Node instead of the scenarios
  --shell    our REPL on the machine's console
  --out      where a capture goes; the default is a folder in out/captures
  --kernel-root  an unpacked kernel package whose kernel and modules are booted instead of Debian's
  --as       what its recordings are called after the lab's name
  --refresh  look for newer Debian packages, and lock what is found`;

const SHOWN_DIFFERENCES = 20;
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
      migrate: { type: 'boolean', default: false },
      copies: { type: 'boolean', default: false },
      only: { type: 'string', default: '' },
      record: { type: 'boolean', default: false },
      models: { type: 'boolean', default: false },
      shell: { type: 'boolean', default: false },
      out: { type: 'string' },
      refresh: { type: 'boolean', default: false },
      'kernel-root': { type: 'string' },
      as: { type: 'string' },
      list: { type: 'boolean', default: false },
    },
  });
}

async function main(): Promise<number> {
  let parsed: ReturnType<typeof parse>;
  try {
    parsed = parse();
  } catch (error) {
    return refuse(sentenceOf(error));
  }
  const { values, positionals } = parsed;
  if (values.list) {
    for (const { id, kernel } of VARIANTS) console.log(`${id.padEnd(14)} ${kernel.note}`);
    return 0;
  }
  const captures = positionals[0] === 'capture';
  const [arch, ...others] = captures ? positionals.slice(1) : positionals;
  if (arch === undefined) return refuse(captures ? 'A capture of which architecture?' : 'Which lab?');
  if (others.length > 0) return refuse(`One lab at a time, or all: ${[arch, ...others].join(', ')}.`);
  const variants = selectVariants(arch, values.kernel);
  if (variants === undefined) {
    return refuse(`There is no lab ${arch}${values.kernel === undefined ? '' : ` with kernel ${values.kernel}`}.`);
  }
  if (captures && !canCapture(arch)) return refuse(`There is no capture of ${arch}.`);
  if (values.shell && variants.length > 1) return refuse('A shell is in one lab at a time.');
  if ([captures, values.record, values.models, values.shell].filter(Boolean).length > 1) {
    return refuse('A capture, --record, --models and --shell exclude each other.');
  }
  if (values.migrate && (captures || values.models || values.shell || arch !== 'ppc64')) {
    return refuse('--migrate is for the scenarios of ppc64.');
  }
  if (values['kernel-root'] !== undefined && variants.length > 1) return refuse('--kernel-root is for one lab.');
  if ((values['kernel-root'] === undefined) !== (values.as === undefined)) {
    return refuse('--kernel-root and --as go together.');
  }
  if (values.out !== undefined && !captures) return refuse('--out is for captures.');
  const failed: Variant[] = [];
  for (const variant of variants) {
    const work = captures ? takeCapture : values.shell ? shell : values.models ? models : run;
    if (!(await succeeds(variant, work(variant, values)))) failed.push(variant);
    if (interruption.signal.aborted) break;
  }
  if (variants.length > 1 && failed.length > 0) console.error(`Failed: ${failed.map(({ id }) => id).join(', ')}.`);
  return failed.length === 0 ? 0 : 1;
}

function refuse(sentence: string): number {
  console.error(`${sentence}\n\n${USAGE}`);
  return 2;
}

interface Options {
  readonly migrate: boolean;
  readonly copies: boolean;
  readonly only: string;
  readonly record: boolean;
  readonly refresh: boolean;
  readonly out?: string | undefined;
  readonly 'kernel-root'?: string | undefined;
  /** What comes after the lab's name, where it isn't Debian's kernel. */
  readonly as?: string | undefined;
}

function labOptions(variant: Variant, { refresh, 'kernel-root': kernelRoot }: Options): LabOptions {
  return { refresh, kernelRoot, signal: interruption.signal, onProgress: progressOf(variant) };
}

async function shell(variant: Variant, options: Options): Promise<void> {
  await openShell(variant, labOptions(variant, options));
}

async function takeCapture(variant: Variant, options: Options): Promise<void> {
  const { folder, checked, differences } = await capture(variant, {
    ...labOptions(variant, options),
    into: options.out,
  });
  for (const difference of differences.slice(0, SHOWN_DIFFERENCES)) console.log(difference);
  console.log(`${folder}: ${checked}`);
  if (differences.length > 0) throw new LabError(`The model differs from QEMU in ${differences.length} answers.`);
  console.log('The model agrees with QEMU on all of them.');
}

async function models(variant: Variant, options: Options): Promise<void> {
  // Loads the compiler, which nothing else here needs.
  const { runModelTests, modelTable } = await import('./models.ts');
  const result = await runModelTests(variant, labOptions(variant, options), beginningsOf(options));
  console.log(modelTable(result));
  const failures = result.files.reduce((sum, file) => sum + file.failures.length, 0);
  if (failures !== 0) throw new LabError(`${failures} tests of the models failed on ${variant.id}.`);
}

/** What `--only` names; nothing for all. */
const beginningsOf = ({ only }: Options): string[] => only.split(',').filter((beginning) => beginning !== '');

async function run(variant: Variant, options: Options): Promise<void> {
  const { migrate } = options;
  const only = beginningsOf(options);
  const entries = migrate ? await captureEntries() : [];
  const result = await runInLab(variant, {
    ...labOptions(variant, options),
    script: PAYLOAD,
    args: { migrate, copies: options.copies, only },
    entries,
  });
  const { set, tour, copied = [], moved } = result as unknown as ScenarioRun;
  if (set.taken.length === 0) throw new LabError(`No scenario of ${variant.id} begins with ${only.join(' or ')}.`);
  const others = only.length > 0 ? 'kept' : 'removed';
  if (options.record) writeRecordings(RECORDINGS, recordedAs(variant, options), set, how(variant, options), others);
  const compared = await compareWithEmulated(set);
  console.log(comparisonTable(compared));
  const different = compared.filter(({ difference }) => difference !== undefined).length;
  const moves = [...copiesTable(copied), ...(moved === undefined ? [] : movesTable(moved))];
  for (const line of moves) console.log(line.text);
  const losses = moves.filter(({ failed }) => failed).length;
  if (tour !== undefined) console.log(`tour: ${tour.length === 0 ? 'identical' : `differs in ${tour.join(', ')}`}`);
  const strays = tour?.length ?? 0;
  if (different + losses + strays === 0) return;
  const scenarios = different === 0 ? [] : [`${different} of ${compared.length} scenarios differ`];
  const movings = losses === 0 ? [] : [`${losses} of ${moves.length} moves and copies lost something`];
  const tours = strays === 0 ? [] : ['the tour differs'];
  throw new LabError(`${[...scenarios, ...movings, ...tours].join(' and ')} on ${variant.id}.`);
}

function recordedAs({ id }: Variant, { as: name }: Options): string {
  return name === undefined ? id : `${id}-${name}`;
}

/** The command that makes the recordings again. */
function how({ machine, kernel }: Variant, { as: name }: Options): string {
  const own = name === undefined ? '' : ` --kernel-root FOLDER --as ${name}`;
  return `npm run lab -- ${machine.arch} --kernel ${kernel.series}${own} --record`;
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
