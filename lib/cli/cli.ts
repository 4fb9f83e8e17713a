import { KvmError } from '../base/errors.ts';
import { type Command, helpOf, runCommandLine } from './command.ts';
import { explainError } from './explain-error.ts';
import { fileProblem, isFileError, namedProblem } from './file-problem.ts';
import { complain, type Io, UsageError } from './io.ts';
import { suggestion } from './nearest.ts';
import { packageVersion } from './package-info.ts';

/** By name. To load all of them takes longer than Node itself: only the one that is asked for is, with what it needs. */
export const COMMANDS: Readonly<Record<string, () => Promise<Command>>> = {
  repl: async () => (await import('./repl/index.ts')).repl,
  run: async () => (await import('./run/index.ts')).run,
  top: async () => (await import('./top/index.ts')).top,
  replay: async () => (await import('./replay/index.ts')).replay,
  lab: async () => (await import('./lab/index.ts')).lab,
  tour: async () => (await import('./tour/index.ts')).tour,
  doctor: async () => (await import('./doctor/index.ts')).doctor,
  hpt: async () => (await import('./hpt/index.ts')).hpt,
  report: async () => (await import('./report/index.ts')).report,
};

/** Exit statuses. */
const STATUS = { OK: 0, FAILED: 1, USAGE: 2 } as const;

async function usage(): Promise<string> {
  const width = Math.max(...Object.keys(COMMANDS).map((name) => name.length));
  const commands = await Promise.all(
    Object.entries(COMMANDS).map(async ([name, load]) => [name, await load()] as const),
  );
  const list = commands.map(([name, { summary }]) => `  ${name.padEnd(width)}  ${summary}`);
  return [
    'usage: kvm-bridge [COMMAND] [OPTION…] [ARGUMENT…]',
    '       kvm-bridge COMMAND --help',
    '       kvm-bridge --version',
    '',
    ...list,
    '',
    'Without a command it is repl.',
    '',
  ].join('\n');
}

/**
 * The command line.
 * @param argv what follows `kvm-bridge`.
 * @returns the exit status: 0, 1 when what was asked for failed, 2 for a mistake on the command line.
 */
export async function cli(argv: readonly string[], io: Io): Promise<number> {
  const [first = 'repl', ...rest] = argv;
  if (first === '--version' || first === '-v') {
    io.stdout.write(`${packageVersion()}\n`);
    return STATUS.OK;
  }
  const name = first.startsWith('-') ? 'repl' : first;
  try {
    if (['--help', '-h', 'help'].includes(first)) {
      const [of] = rest;
      io.stdout.write(of === undefined || of.startsWith('-') ? await usage() : helpOf(of, await commandOf(of)));
      return STATUS.OK;
    }
    return await runCommandLine(name, await commandOf(name), first.startsWith('-') ? argv : rest, io);
  } catch (error) {
    if (error instanceof UsageError) {
      complain(io, error.command ?? (Object.hasOwn(COMMANDS, name) ? name : undefined), error.message);
      return STATUS.USAGE;
    }
    if (error instanceof KvmError) {
      const { whyNotReal } = await import('./doctor/index.ts');
      const mend = whyNotReal()?.mend;
      const cure = mend === undefined ? '' : `→ ${mend}\n`;
      io.stderr.write(
        `kvm-bridge: ${explainError(error)}\n${cure}\`kvm-bridge doctor\` says more; --backend emulated works anywhere.\n`,
      );
      return STATUS.FAILED;
    }
    // What a kernel, a file system or Node may answer; anything else is a mistake of ours, and keeps its stack.
    if (!isFileError(error)) throw error;
    complain(io, name, namedProblem(error) ?? `${error.syscall ?? error.permission}: ${fileProblem(error)}`);
    return STATUS.FAILED;
  }
}

/** @throws UsageError */
async function commandOf(name: string): Promise<Command> {
  const load = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (load !== undefined) return await load();
  throw new UsageError(`there is no command ${name || '""'}${suggestion(name, Object.keys(COMMANDS))}`);
}
