import { parseArgs } from 'node:util';
import { KvmError } from '../base/errors.ts';
import { ARCHES } from '../uapi/arch.ts';
import { doctorCommand } from './doctor/index.ts';
import { explainError } from './explain-error.ts';
import { hptCommand } from './hpt/index.ts';
import { type Io, styleFor, UsageError } from './io.ts';
import { packageVersion } from './package-info.ts';
import { replCommand } from './repl/index.ts';
import { runCommand } from './repl/run-script.ts';
import { sessionOptions } from './repl/session.ts';
import { tourCommand } from './tour/index.ts';

const USAGE = `usage: kvm-bridge [repl] [--arch ARCH] [--backend BACKEND] [--trace]
       kvm-bridge run SCRIPT|- [--arch ARCH] [--backend BACKEND] [--trace]
       kvm-bridge tour
       kvm-bridge doctor [--json]
       kvm-bridge hpt stats|dump|verify|diff FILE …
       kvm-bridge --help | --version

  repl     a JavaScript prompt with kvm (the opened /dev/kvm) and vm (a VM) ready
  run      the same lines from a file or from standard input (-)
  tour     one guest on the real kernel and on emulated ones, side by side
  doctor   what the real KVM has and lacks here, and what mends it
  hpt      tools for hashed page tables of ppc64

  --arch ARCH        ${ARCHES.join(', ')}; another than this machine's is emulated
  --backend BACKEND  native (the real kernel), emulated, or auto (the real one where it can be used)
  --trace            every call to the kernel as one line on standard error
`;

/** Exit statuses. */
const STATUS = { OK: 0, FAILED: 1, USAGE: 2 } as const;

const SESSION_OPTIONS = {
  arch: { type: 'string' },
  backend: { type: 'string' },
  trace: { type: 'boolean' },
} as const;

type Command = (args: string[], io: Io) => number | Promise<number>;

const COMMANDS: ReadonlyMap<string, Command> = new Map<string, Command>([
  [
    'repl',
    (args, io) => {
      const { values } = parseArgs({ args, options: SESSION_OPTIONS });
      return replCommand(io, sessionOptions(values, tracer(io)));
    },
  ],
  [
    'run',
    (args, io) => {
      const { values, positionals } = parseArgs({ args, options: SESSION_OPTIONS, allowPositionals: true });
      const [script, ...others] = positionals;
      if (script === undefined || others.length > 0) {
        throw new UsageError(`run takes one script, or - for standard input, not ${positionals.length}`);
      }
      return runCommand(io, script, sessionOptions(values, tracer(io)));
    },
  ],
  [
    'tour',
    (args, io) => {
      parseArgs({ args, options: {} });
      return tourCommand(io);
    },
  ],
  [
    'doctor',
    (args, io) => {
      const { values } = parseArgs({ args, options: { json: { type: 'boolean' } } });
      return doctorCommand(io, { json: values.json === true });
    },
  ],
  ['hpt', (args, io) => hptCommand(args, io.stdout, io.stderr)],
]);

const tracer = (io: Io) => {
  const style = styleFor(io.stderr, io.env);
  return (line: string): void => {
    io.stderr.write(`${style.dim(line)}\n`);
  };
};

/**
 * The command line.
 * @param argv what follows `kvm-bridge`.
 * @returns the exit status: 0, 1 when what was asked for failed, 2 for a mistake on the command line.
 */
export async function cli(argv: readonly string[], io: Io): Promise<number> {
  const [first = 'repl', ...rest] = argv;
  if (first === '--help' || first === '-h' || first === 'help') {
    io.stdout.write(USAGE);
    return STATUS.OK;
  }
  if (first === '--version' || first === '-v') {
    io.stdout.write(`${packageVersion()}\n`);
    return STATUS.OK;
  }
  try {
    const command = first.startsWith('-') ? COMMANDS.get('repl') : COMMANDS.get(first);
    if (command === undefined) throw new UsageError(`there is no command "${first}"`);
    return await command(first.startsWith('-') ? [...argv] : rest, io);
  } catch (error) {
    if (isUsageError(error)) {
      io.stderr.write(`kvm-bridge: ${error.message}\n\n${USAGE}`);
      return STATUS.USAGE;
    }
    if (!isExpected(error)) throw error;
    io.stderr.write(`kvm-bridge: ${explainError(error)}\n`);
    if (error instanceof KvmError)
      io.stderr.write('`kvm-bridge doctor` says more; --backend emulated works anywhere.\n');
    return STATUS.FAILED;
  }
}

function isUsageError(error: unknown): error is Error {
  return error instanceof UsageError || (error instanceof TypeError && errorCode(error).startsWith('ERR_PARSE_ARGS'));
}

/** What a kernel or a file system may answer; anything else is a mistake of ours, and keeps its stack. */
const isExpected = (error: unknown): boolean =>
  error instanceof KvmError || (error instanceof Error && 'syscall' in error);

const errorCode = (error: Error): string => ('code' in error ? String(error.code) : '');
