import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { type REPLServer, start, writer } from 'node:repl';
import type { Kvm } from '../../handles/kvm.ts';
import { diagnose, report } from '../doctor/index.ts';
import { explainError } from '../explain-error.ts';
import { columnsOf, type Io, styleFor, wantsColour, wrap } from '../io.ts';
import { packageVersion } from '../package-info.ts';
import { LineEvaluator } from './line-evaluator.ts';
import { show } from './print.ts';
import { closeSession, openSession, type Session, type SessionOptions, withGlobals } from './session.ts';

const EXAMPLES = `  vm.memory.addRam(0, kvm.mapAnonymous(16 << 20)) // 16 MiB at address 0
  vm.memory.writeU32(0x1000, 0xcafe)
  vm.memory.readExact(0x1000, 16)
  vm.dirtyPages.start().collect().runs()
  vm.memslots
  vm.setUserMemoryRegion({ slot: 9, guestPhysAddr: 0x1234, memorySize: 4096, userspaceAddr: 0 })
  kvm.capabilities()
  Kvm.open({ arch: 's390x' }) // another kernel, emulated
  raw.requestNumber('KVM_GET_DIRTY_LOG', kvm.arch) // the flat calls are in raw
`;

/**
 * `kvm-bridge repl`: a prompt with `kvm` and `vm` ready. Ends with its input; a pipe's lines are taken without a prompt.
 * @throws KvmError when the wanted backend cannot be had
 */
export async function replCommand(io: Io, options: SessionOptions): Promise<number> {
  const session = openSession(options);
  try {
    const terminal = io.stdout.isTTY === true && (io.stdin as { readonly isTTY?: boolean }).isTTY === true;
    await withGlobals(session, () => (terminal ? prompt(io, session) : takeLines(io, session)));
  } finally {
    closeSession(session);
  }
  return 0;
}

async function prompt(io: Io, session: Session): Promise<void> {
  io.stdout.write(banner(io, session));
  const colors = wantsColour(io.stdout, io.env);
  // An error that is longer than this would begin in a line of its own.
  writer.options.breakLength = Number.POSITIVE_INFINITY;
  const server = start({
    prompt: `${session.kvm.arch}> `,
    input: io.stdin,
    output: io.stdout,
    useColors: colors,
    useGlobal: true,
    ignoreUndefined: true,
    breakEvalOnSigint: true,
    writer: (value: unknown) => show(value, { colors }),
  });
  for (const [name, { help, text }] of commands(io, session)) {
    server.defineCommand(name, {
      help,
      action() {
        this.clearBufferedCommand();
        io.stdout.write(text());
        this.displayPrompt();
      },
    });
  }
  // Before anything else can end it.
  const ended = once(server, 'exit');
  useHistory(server, io.env);
  await ended;
}

/** Lines from a pipe: what they give is printed as at the prompt, and an error ends only its statement. */
async function takeLines(io: Io, session: Session): Promise<void> {
  const print = (value: unknown): string => show(value, { colors: wantsColour(io.stdout, io.env) });
  const evaluator = new LineEvaluator((error) => io.stdout.write(`${explainError(error)}\n`));
  const known = commands(io, session);
  for await (const line of createInterface({ input: io.stdin, crlfDelay: Number.POSITIVE_INFINITY })) {
    const command = known.get(/^\.(\w+)\s*$/.exec(line)?.[1] ?? '');
    if (command !== undefined) {
      io.stdout.write(command.text());
      continue;
    }
    const outcome = await evaluator.take(line);
    if (outcome.status === 'done' && outcome.value !== undefined) io.stdout.write(`${print(outcome.value)}\n`);
    if (outcome.status === 'failed') io.stdout.write(`${explainError(outcome.error)}\n`);
  }
  const failure = await evaluator.end();
  if (failure !== undefined) io.stdout.write(`${explainError(failure.error)}\n`);
}

function banner(io: Io, { kvm, fallbackReason }: Session): string {
  const style = styleFor(io.stdout, io.env);
  const lines = [`${style.bold(`kvm-bridge ${packageVersion()}`)}: ${describeKernel(kvm)}`];
  if (fallbackReason !== undefined) {
    lines.push(...wrap(`Not the real one: ${fallbackReason}`, columnsOf(io.stdout)).map(style.yellow));
  }
  lines.push(style.dim('kvm and vm are ready; .examples shows lines to try, .help the commands'));
  return `${lines.join('\n')}\n`;
}

/** `x86_64, the real kernel (API 12)`. */
export function describeKernel(kvm: Kvm): string {
  return kvm.backend === 'native'
    ? `${kvm.arch}, the real kernel (API ${kvm.getApiVersion()})`
    : `${kvm.arch}, the emulated kernel ${kvm.emulated?.release ?? ''}`;
}

interface PromptCommand {
  readonly help: string;
  text(): string;
}

/** What begins with a dot, besides Node's own. */
function commands(io: Io, session: Session): ReadonlyMap<string, PromptCommand> {
  return new Map([
    ['examples', { help: 'Lines to try', text: () => EXAMPLES }],
    ['kernel', { help: 'Which kernel kvm and vm are of', text: () => `${describeKernel(session.kvm)}\n` }],
    [
      'doctor',
      {
        help: 'What the real KVM has and lacks on this machine',
        text: () => report(diagnose(), styleFor(io.stdout, io.env), columnsOf(io.stdout)),
      },
    ],
  ]);
}

/** Lines are remembered where the XDG base directories say; without such a place they are forgotten. */
function useHistory(server: REPLServer, env: NodeJS.ProcessEnv): void {
  const folder = join(env.XDG_STATE_HOME || join(homedir(), '.local', 'state'), 'kvm-bridge');
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
  } catch {
    return;
  }
  server.setupHistory(join(folder, 'repl_history'), () => {});
}
