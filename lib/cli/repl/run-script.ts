import { readFileSync } from 'node:fs';
import { text } from 'node:stream/consumers';
import { explainError } from '../explain-error.ts';
import { type Io, styleFor } from '../io.ts';
import { type Failure, LineEvaluator } from './line-evaluator.ts';
import { closeSession, openSession, type SessionOptions, withGlobals } from './session.ts';

/**
 * `kvm-bridge run`: the lines of a file, or of standard input for `-`, as the prompt would take them; values are not
 * printed. Ends with status 1 at the first statement that fails, and names its line.
 * @throws KvmError when the wanted backend cannot be had; Node's own errors for the file
 */
export async function runCommand(io: Io, file: string, options: SessionOptions): Promise<number> {
  const source = file === '-' ? await text(io.stdin) : readFileSync(file, 'utf8');
  const session = openSession(options);
  const name = file === '-' ? 'standard input' : file;
  try {
    return await withGlobals(session, () => runLines(io, name, source.split('\n')));
  } finally {
    closeSession(session);
  }
}

async function runLines(io: Io, name: string, lines: readonly string[]): Promise<number> {
  const style = styleFor(io.stderr, io.env);
  let status = 0;
  const evaluator = new LineEvaluator((error) => {
    status = 1;
    io.stderr.write(`${style.bold(`${name}:`)} ${explainError(error)}\n`);
  });
  let failure: Failure | undefined;
  for (const [index, line] of lines.entries()) {
    const outcome = await evaluator.take(index === 0 && line.startsWith('#!') ? '' : line);
    if (outcome.status === 'failed') {
      failure = outcome;
      break;
    }
  }
  const unfinished = await evaluator.end();
  failure ??= unfinished;
  if (failure === undefined) return status;
  io.stderr.write(`${style.bold(`${name}:${failure.line}:`)} ${explainError(failure.error)}\n`);
  io.stderr.write(`${style.dim(failure.source.trimEnd().replace(/^/gm, '  | '))}\n`);
  return 1;
}
