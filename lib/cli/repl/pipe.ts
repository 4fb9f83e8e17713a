import { createInterface } from 'node:readline';
import { runInThisContext } from 'node:vm';
import { explainError } from '../explain-error.ts';
import { columnsOf, type Io, styleFor, wantsColour } from '../io.ts';
import type { Session } from '../session.ts';
import { traceTo } from '../trace-lines.ts';
import { HELP_ROWS, type HelpRow, helpOn, runDotCommand } from './commands.ts';
import type { Prompt, SessionParts } from './dot-command.ts';
import { LineEvaluator } from './line-evaluator.ts';
import { show } from './print.ts';

/** What of Node's own commands means something in a pipe, too. */
const PIPE_HELP_ROWS: readonly HelpRow[] = [...HELP_ROWS, ['.exit', 'The end: what follows is not looked at']];

/**
 * Lines from a pipe: what they give is printed as at the prompt. An error goes to standard error and ends only its statement.
 * @returns the status: 1 if anything failed
 */
export async function takeLines(
  io: Io,
  session: Session,
  { setTrace, showFailure, exits }: SessionParts,
): Promise<number> {
  let status = 0;
  const fail = (text: string): void => {
    status = 1;
    io.stderr.write(`${text}\n`);
  };
  if (session.loaded !== undefined) io.stderr.write(`${session.loaded}\n`);
  const typed: string[] = [];
  const prompt: Prompt = {
    session,
    typed,
    setTrace,
    style: styleFor(io.stdout, io.env),
    columns: columnsOf(io.stdout),
    tableWidth: Number.POSITIVE_INFINITY,
    evaluate: (expression) => runInThisContext(`(${expression})`),
    showTrace: traceTo(io.stderr, io.env),
    showFailure,
    exits,
    interrupted: () => new AbortController().signal,
  };
  const evaluator = new LineEvaluator((error) => fail(explainError(error)));
  let unfinished = false;
  for await (const line of createInterface({ input: io.stdin, crlfDelay: Number.POSITIVE_INFINITY })) {
    const dot = unfinished ? null : /^\s*\.([a-z]+)(?:\s+(.*)|(\/.*))?$/.exec(line);
    if (dot !== null) {
      if (dot[1] === 'exit') break;
      const { ok, text } =
        dot[1] === 'help'
          ? helpOn(dot[2] ?? '', PIPE_HELP_ROWS)
          : await runDotCommand(dot[1]!, dot[2] ?? dot[3] ?? '', prompt);
      if (ok) io.stdout.write(`${text}\n`);
      else fail(text);
      continue;
    }
    const outcome = await evaluator.take(line);
    unfinished = outcome.status === 'more' && line.trim() !== '';
    if (outcome.status === 'failed') fail(explainError(outcome.error));
    if (outcome.status !== 'failed') typed.push(line);
    if (outcome.status !== 'done' || outcome.value === undefined) continue;
    try {
      io.stdout.write(`${show(outcome.value, { colors: wantsColour(io.stdout, io.env) })}\n`);
    } catch (error) {
      fail(explainError(error));
    }
  }
  const failure = await evaluator.end();
  if (failure !== undefined) fail(explainError(failure.error));
  return status;
}
