import { addAbortSignal, type Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { LabError, sentenceOf } from '../../lab/lab-error.ts';
import { openShell, runInLab, runPromptInLab } from '../../lab/user/run-in-lab.ts';
import { selectVariants, VARIANTS, type Variant } from '../../lab/variants.ts';
import type { Command, Values } from '../command.ts';
import { isFileError, namedProblem } from '../file-problem.ts';
import { complain, type Io, UsageError, wantsColour } from '../io.ts';
import { suggestion } from '../nearest.ts';

/** The lab itself failed, and not what runs in it; as container engines have it. */
const LAB_FAILED = 125;

const MINUTE = 60_000;

/** `kvm-bridge lab`. */
export const lab: Command = {
  summary: 'your own script on the real KVM of another architecture, under QEMU on this machine',
  usage: 'ARCH [OPTION…] [--] SCRIPT|- [ARGUMENT…]',
  details: `ARCH is ${[...new Set(VARIANTS.map(({ machine }) => machine.arch))].join(', ')}. SCRIPT and the files of its package, or else of its folder, are run by
the Node of a Linux host that boots for it, with this kvm-bridge and its prebuilt addon; - is a script on standard input. What follows
-- is Node's command line there: \`-- --test\` runs every test. What is printed comes as it is printed; the status is the script's, or
${LAB_FAILED} where the lab itself fails.
The first time some 100 MiB of Debian's packages are fetched. docs/labs.md has more.`,
  options: {
    kernel: { type: 'string', value: 'SERIES', help: 'such as 6.1; --list has them, the default first' },
    files: { type: 'string', value: 'A,B', help: 'take only these files and folders along' },
    out: {
      type: 'string',
      value: 'FOLDER',
      help: 'bring back what the script writes there (also in $KVM_BRIDGE_LAB_OUT)',
    },
    timeout: { type: 'string', value: 'MINUTES', help: 'the longest that it may take; 30 by default' },
    shell: {
      type: 'boolean',
      help: 'no script, but the prompt of kvm-bridge on that machine, for lines of a pipe too; Ctrl-] stops it',
    },
    refresh: { type: 'boolean', help: "look for newer packages of Debian's" },
    quiet: { type: 'boolean', short: 'q', help: 'nothing on standard error but what the script prints' },
    list: { type: 'boolean', help: 'the labs that there are' },
    json: { type: 'boolean', help: 'with --list: as JSON' },
  },
  positionals: { least: 0, most: Number.POSITIVE_INFINITY },
  passesOn: 2,
  async run(values, [arch, ...rest], io) {
    if (values.list === true) {
      const labs = arch === undefined ? VARIANTS : labsOf(arch);
      io.stdout.write(values.json === true ? listAsJson(labs) : listAsText(labs));
      return 0;
    }
    if (values.json === true) throw new UsageError('--json goes with --list', 'lab');
    const variant = variantOf(arch, values.kernel === undefined ? undefined : String(values.kernel));
    if ((values.shell === true) === rest.length > 0) {
      throw new UsageError(values.shell === true ? '--shell takes no script' : 'a script, or --shell?', 'lab');
    }
    return interruptible(io, (signal) => inLab(variant, rest, values, io, signal));
  },
};

const listAsText = (labs: readonly Variant[]): string =>
  labs.map(({ id, kernel }) => `${id.padEnd(14)} ${kernel.note}\n`).join('');

function listAsJson(variants: readonly Variant[]): string {
  const labs = variants.map(({ id, machine, kernel }) => ({
    id,
    arch: machine.arch,
    kernel: kernel.series,
    note: kernel.note,
  }));
  return `${JSON.stringify(labs, null, 2)}\n`;
}

const NAMES = [...new Set(VARIANTS.map(({ machine }) => machine.arch as string))];

/** @throws UsageError */
function labsOf(arch: string): readonly Variant[] {
  const labs = VARIANTS.filter(({ machine }) => machine.arch === arch);
  if (labs.length > 0) return labs;
  throw new UsageError(`there is no lab ${arch}${suggestion(arch, NAMES) || `; there are ${NAMES.join(', ')}`}`, 'lab');
}

/** @throws UsageError */
function variantOf(arch: string | undefined, series: string | undefined): Variant {
  if (arch === undefined) throw new UsageError(`which architecture? There are ${NAMES.join(', ')}`, 'lab');
  const labs = labsOf(arch);
  const [variant] = selectVariants(arch, series) ?? [];
  if (variant !== undefined) return variant;
  const kernels = labs.map(({ kernel }) => kernel.series);
  throw new UsageError(`there is no lab ${arch} with kernel ${series}; there are ${kernels.join(', ')}`, 'lab');
}

function timeoutOf(values: Values): number {
  const minutes = Number(values.timeout ?? 30);
  if (minutes > 0 && minutes <= 24 * 60) return minutes * MINUTE;
  throw new UsageError(`--timeout is a number of minutes up to ${24 * 60}, not "${values.timeout}"`, 'lab');
}

async function inLab(
  variant: Variant,
  nodeArguments: readonly string[],
  values: Values,
  io: Io,
  signal: AbortSignal,
): Promise<number> {
  const onProgress = values.quiet === true ? undefined : progressTo(io, variant);
  const options = { signal, onProgress, refresh: values.refresh === true };
  const isTerminal = (io.stdin as { readonly isTTY?: boolean }).isTTY === true;
  if (values.shell === true && isTerminal) {
    await openShell(variant, options);
    return 0;
  }
  const run = {
    ...options,
    timeoutMs: timeoutOf(values),
    input:
      values.shell === true || nodeArguments[0] === '-'
        ? await buffer(addAbortSignal(signal, io.stdin as Readable))
        : undefined,
    environment: wantsColour(io.stdout, io.env) ? { FORCE_COLOR: '1', NO_COLOR: '' } : {},
    onOutput: (stream: 'stdout' | 'stderr', bytes: Buffer) => io[stream].write(bytes),
  };
  if (values.shell === true) return runPromptInLab(variant, run);
  return runInLab(variant, {
    ...run,
    nodeArguments,
    cwd: process.cwd(),
    files: values.files === undefined ? undefined : String(values.files).split(','),
    out: values.out === undefined ? undefined : String(values.out),
  });
}

/** Each step with the seconds since the first. */
function progressTo(io: Io, { id }: Variant): (line: string) => void {
  const start = performance.now();
  return (line) => {
    const seconds = ((performance.now() - start) / 1000).toFixed(1).padStart(6);
    io.stderr.write(`${id} ${seconds} s  ${line}\n`);
  };
}

/** Ends the work, with its machine, by Ctrl-C and the like; and tells of a lab that failed. */
async function interruptible(io: Io, work: (signal: AbortSignal) => Promise<number>): Promise<number> {
  const stop = new AbortController();
  const names = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
  const listeners = names.map((name) => [name, () => stop.abort(new LabError(`Stopped by ${name}.`))] as const);
  for (const [name, listener] of listeners) process.once(name, listener);
  try {
    return await work(stop.signal);
  } catch (error) {
    if (error instanceof UsageError) throw error;
    if (!(error instanceof LabError) && !isFileError(error)) throw error;
    for (const line of error instanceof LabError ? error.consoleLines : []) io.stderr.write(`  | ${line}\n`);
    const isFull = isFileError(error) && error.code === 'ENOSPC';
    complain(io, 'lab', (isFull ? undefined : namedProblem(error)) ?? sentenceOf(error));
    return LAB_FAILED;
  } finally {
    for (const [name, listener] of listeners) process.off(name, listener);
  }
}
