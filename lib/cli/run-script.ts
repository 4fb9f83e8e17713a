import { readFileSync } from 'node:fs';
import { Recoverable, start } from 'node:repl';
import { PassThrough } from 'node:stream';
import { text } from 'node:stream/consumers';
import { explainError } from './explain-error.ts';
import { type Io, styleFor } from './io.ts';
import { sessionGlobals } from './repl.ts';
import { openSession, type SessionOptions } from './session.ts';

/** What the REPL makes of a piece of source: its value, or an error; Recoverable when it goes on in the next line. */
type Evaluate = (source: string) => Promise<unknown>;

/**
 * `kvm-bridge run`: the lines of a file, or of standard input for `-`, as the prompt would take them; values are not
 * printed. Ends with status 1 at the first statement that fails, and names its line.
 * @throws KvmError when the wanted backend cannot be had; Node's own errors for the file
 */
export async function runCommand(io: Io, file: string, options: SessionOptions): Promise<number> {
  const source = file === '-' ? await text(io.stdin) : readFileSync(file, 'utf8');
  const session = openSession(options);
  const globals = sessionGlobals(session);
  Object.assign(globalThis, globals);
  try {
    const failed = await runLines(source.split('\n'), evaluator());
    if (failed === undefined) return 0;
    const style = styleFor(io.stderr, io.env);
    const name = file === '-' ? 'standard input' : file;
    io.stderr.write(`${style.bold(`${name}:${failed.line}:`)} ${explainError(failed.error)}\n`);
    io.stderr.write(style.dim(`${failed.source.replace(/^/gm, '  | ').trimEnd()}\n`));
    return 1;
  } finally {
    for (const name of Object.keys(globals)) Reflect.deleteProperty(globalThis, name);
    session.vm.close();
    session.kvm.close();
  }
}

interface Failure {
  /** The statement's first line, counted from 1. */
  readonly line: number;
  readonly source: string;
  readonly error: unknown;
}

/** Runs statement by statement, each as many lines as it takes to be whole; the first failure. */
async function runLines(lines: readonly string[], evaluate: Evaluate): Promise<Failure | undefined> {
  let source = '';
  let first = 1;
  let unfinished: Recoverable | undefined;
  for (const [index, line] of lines.entries()) {
    if (index === 0 && line.startsWith('#!')) continue;
    if (source === '') first = index + 1;
    source += `${line}\n`;
    if (source.trim() === '') {
      source = '';
      continue;
    }
    try {
      await evaluate(source);
    } catch (error) {
      if (!(error instanceof Recoverable)) return { line: first, source, error };
      unfinished = error;
      continue;
    }
    source = '';
  }
  return source === '' ? undefined : { line: first, source, error: unfinished?.err };
}

/** The prompt's own evaluator (statements, top-level await, declarations that stay), without a prompt. */
function evaluator(): Evaluate {
  const server = start({ prompt: '', input: new PassThrough(), output: new PassThrough(), useGlobal: true });
  return (source) =>
    new Promise((resolve, reject) => {
      server.eval(source, server.context, 'script', (error, value: unknown) => {
        if (error === null) resolve(value);
        else reject(error);
      });
    });
}
