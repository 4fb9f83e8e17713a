import { KvmError } from '../base/errors.ts';
import { type Command, helpOf, runCommandLine } from './command.ts';
import { doctor, whyNotReal } from './doctor/index.ts';
import { explainError } from './explain-error.ts';
import { fileProblem, isFileError } from './file-problem.ts';
import { hpt } from './hpt/index.ts';
import { complain, type Io, UsageError } from './io.ts';
import { lab } from './lab/index.ts';
import { suggestion } from './nearest.ts';
import { packageVersion } from './package-info.ts';
import { repl } from './repl/index.ts';
import { replay } from './replay/index.ts';
import { report } from './report/index.ts';
import { run } from './run/index.ts';
import { top } from './top/index.ts';
import { tour } from './tour/index.ts';

/** By name. */
export const COMMANDS: Readonly<Record<string, Command>> = { repl, run, top, replay, lab, tour, doctor, hpt, report };

/** Exit statuses. */
const STATUS = { OK: 0, FAILED: 1, USAGE: 2 } as const;

function usage(): string {
  const width = Math.max(...Object.keys(COMMANDS).map((name) => name.length));
  const list = Object.entries(COMMANDS).map(([name, { summary }]) => `  ${name.padEnd(width)}  ${summary}`);
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
      io.stdout.write(of === undefined || of.startsWith('-') ? usage() : helpOf(of, commandOf(of)));
      return STATUS.OK;
    }
    return await runCommandLine(name, commandOf(name), first.startsWith('-') ? argv : rest, io);
  } catch (error) {
    if (error instanceof UsageError) {
      complain(io, error.command ?? (Object.hasOwn(COMMANDS, name) ? name : undefined), error.message);
      return STATUS.USAGE;
    }
    if (error instanceof KvmError) {
      const mend = whyNotReal()?.mend;
      const cure = mend === undefined ? '' : `→ ${mend}\n`;
      io.stderr.write(
        `kvm-bridge: ${explainError(error)}\n${cure}\`kvm-bridge doctor\` says more; --backend emulated works anywhere.\n`,
      );
      return STATUS.FAILED;
    }
    // What a kernel or a file system may answer; anything else is a mistake of ours, and keeps its stack.
    if (!isFileError(error)) throw error;
    complain(io, name, `${error.path ?? error.syscall}: ${fileProblem(error)}`);
    return STATUS.FAILED;
  }
}

/** @throws UsageError */
function commandOf(name: string): Command {
  const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (command !== undefined) return command;
  throw new UsageError(`there is no command ${name || '""'}${suggestion(name, Object.keys(COMMANDS))}`);
}
