import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { type REPLCommand, type REPLEval, type REPLServer, start, writer } from 'node:repl';
import { runInThisContext } from 'node:vm';
import { wrap } from '../../base/text.ts';
import { explainError } from '../explain-error.ts';
import { columnsOf, type Io, styleFor, wantsColour } from '../io.ts';
import type { Session } from '../session.ts';
import { banner } from './banner.ts';
import { DOT_COMMANDS, HELP_ROWS, helpOn, noSuchCommand, runDotCommand } from './commands.ts';
import { completer } from './completion.ts';
import type { Prompt, SessionParts } from './dot-command.ts';
import { show } from './print.ts';

/** The prompt of a terminal, until its input ends. */
export async function prompt(
  io: Io,
  session: Session,
  { setTrace, showFailure, exits }: SessionParts,
): Promise<number> {
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
    writer: (value: unknown) => {
      try {
        return show(value, { colors, columns: columnsOf(io.stdout) });
      } catch (error) {
        return explainError(error);
      }
    },
  });
  const typed: string[] = [];
  const style = styleFor(io.stdout, io.env);
  const context: Prompt = {
    session,
    typed,
    setTrace,
    style,
    // The window may be made wider.
    get columns() {
      return columnsOf(io.stdout);
    },
    get tableWidth() {
      return columnsOf(io.stdout);
    },
    evaluate: (expression) => runInThisContext(`(${expression})`),
    showTrace: (line) => io.stdout.write(`${style.dim(line)}\n`),
    showFailure,
    exits,
    screen: io.stdout,
    interrupted: () => interrupts.next(),
  };
  const interrupts = new Interrupts(server);
  addDotCommands(server, io, context, interrupts);
  addHelp(server, context);
  takeOtherNames(server, context);
  Object.assign(server, {
    eval: evaluating(server.eval, typed),
    completer: completer(server.completer as Parameters<typeof completer>[0], DOT_COMMANDS, context),
  });
  // Ctrl-C ends an `await`; the guest is to leave, too.
  server.on('SIGINT', () => {
    for (const vcpu of session.vm.vcpus) if (vcpu.running) vcpu.kick();
  });
  // Before anything else can end it.
  const ended = once(server, 'exit');
  useHistory(server, io.env);
  await ended;
  return 0;
}

/** Ctrl-C while a dot command runs that wants to know of it: nobody else hears of it then. */
class Interrupts {
  readonly #server: REPLServer;
  #others: (() => void)[] | undefined;

  constructor(server: REPLServer) {
    this.#server = server;
  }

  next(): AbortSignal {
    const pressed = new AbortController();
    this.#others ??= this.#server.listeners('SIGINT') as (() => void)[];
    this.#server.removeAllListeners('SIGINT');
    this.#server.once('SIGINT', () => pressed.abort());
    return pressed.signal;
  }

  /** The command is over. */
  end(): void {
    if (this.#others === undefined) return;
    this.#server.removeAllListeners('SIGINT');
    for (const listener of this.#others) this.#server.on('SIGINT', listener);
    this.#others = undefined;
  }
}

function addDotCommands(server: REPLServer, io: Io, context: Prompt, interrupts: Interrupts): void {
  for (const [name, { help, usage = '' }] of Object.entries(DOT_COMMANDS)) {
    server.defineCommand(name, {
      help: `${help}${usage === '' ? '' : `  (${usage})`}`,
      async action(argument) {
        this.clearBufferedCommand();
        const { ok, text } = await runDotCommand(name, argument, context);
        interrupts.end();
        io.stdout.write(`${ok ? text : context.style.red(text)}\n`);
        this.displayPrompt();
      },
    });
  }
}

/** `.help`, which Node does not fold. */
function addHelp(server: REPLServer, context: Prompt): void {
  const own = Object.keys(DOT_COMMANDS);
  const nodes = Object.entries(server.commands)
    .filter(([name]) => !own.includes(name) && name !== 'help')
    .map(([name, command]) => [`.${name}`, command?.help ?? ''] as const);
  server.defineCommand('help', {
    help: 'This list',
    action(argument) {
      const rows = [...HELP_ROWS, ...nodes, ['.help', 'This list'] as const].sort(([a], [b]) => (a < b ? -1 : 1));
      const keys = wrap(
        'Ctrl-C ends what runs, and gets vCPUs out of their guests; Ctrl-D ends the prompt.',
        context.columns,
      );
      const { ok, text } = helpOn(argument, rows, context.columns);
      const after = argument.trim() === '' ? `\n${keys.join('\n')}\n` : '';
      server.output.write(`${ok ? text : context.style.red(text)}\n${after}`);
      this.displayPrompt();
    },
  });
}

/**
 * Names that Node does not know: `.x/4xw 0x1000`, as debuggers have it, where the format is a part of the command's name to Node; and words
 * that are no command. A line that goes on with `.name` is none of these.
 */
function takeOtherNames(server: REPLServer, context: Prompt): void {
  const first = server.getPrompt();
  const withFormat = (name: string): REPLCommand | undefined => {
    const [, command, format] = /^(xp?)(\/.*)$/.exec(name) ?? [];
    const own = command === undefined ? undefined : server.commands[command];
    if (own === undefined) return undefined;
    return {
      help: own.help,
      action(rest) {
        own.action.call(this, `${format} ${rest}`);
      },
    };
  };
  const unknown = (name: string): REPLCommand | undefined => {
    if (!/^[a-z]+$/.test(name) || server.getPrompt() !== first) return undefined;
    return {
      action() {
        server.output.write(`${context.style.red(noSuchCommand(name, Object.keys(server.commands)))}\n`);
        this.displayPrompt();
      },
    };
  };
  const get = (_: object, name: string | symbol) => withFormat(String(name)) ?? unknown(String(name));
  Object.setPrototypeOf(server.commands, new Proxy({}, { get }));
}

/** Node's evaluation, which also remembers what went well. */
function evaluating(own: REPLEval, typed: string[]): REPLEval {
  return function (this: REPLServer, code, context, file, done) {
    own.call(this, code, context, file, (error, value) => {
      if (error === null && code.trim() !== '') typed.push(code.trimEnd());
      done(error, value);
    });
  };
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
