import { isExact } from '../../base/arguments.ts';
import type { OutputStream, Style } from '../io.ts';
import type { Session } from '../session.ts';
import type { ExitCounts } from '../top/exit-counts.ts';

/** What a dot command can use. */
export interface Prompt {
  readonly session: Session;
  readonly style: Style;
  readonly columns: number;
  /** To what tables are folded: a terminal's columns; in a pipe they are not. */
  readonly tableWidth: number;
  /** The value of a JavaScript expression, as at the prompt. */
  evaluate(expression: string): unknown;
  /** Where trace lines go: `undefined` is nowhere. */
  setTrace(sink: ((line: string) => void) | undefined): void;
  /** The lines that were typed and gave no error, in order. */
  readonly typed: readonly string[];
  /** Trace lines that are shown go here. */
  readonly showTrace: (line: string) => void;
  /** Says what failed outside of a command; the status is 1 then. */
  readonly showFailure: (text: string) => void;
  /** What the session's vCPUs left their guests for. */
  readonly exits: ExitCounts;
  /** A terminal that can be drawn on. */
  readonly screen?: OutputStream;
  /** Aborts with the next Ctrl-C. */
  readonly interrupted: () => AbortSignal;
}

/** What is the same for a terminal and for a pipe. */
export type SessionParts = Pick<Prompt, 'setTrace' | 'showFailure' | 'exits'>;

/** A command that begins with a dot. */
export interface DotCommand {
  /** What follows the name. */
  readonly usage?: string;
  readonly help: string;
  /** Words that may follow, for completion. */
  readonly words?: (prompt: Prompt) => readonly string[];
  /** What it prints. @throws Error whose message is for the user */
  run(argument: string, prompt: Prompt): string | Promise<string>;
}

/** What was typed after a command cannot be used: the message says what would be right. */
export class DotUsageError extends Error {
  override readonly name = 'Usage';
}

/** An address or a number: any JavaScript expression that gives a number ≥ 0 or a bigint. @throws DotUsageError */
export function numberOf(text: string, what: string, prompt: Prompt): bigint {
  if (text === '') throw new DotUsageError(`${what} is missing`);
  let value: unknown;
  try {
    value = prompt.evaluate(text);
  } catch (error) {
    throw new DotUsageError(`${what} ${text}: ${error instanceof Error ? error.message : String(error)}`);
  }
  const whole = typeof value === 'bigint' || (typeof value === 'number' && isExact(value));
  if (!whole || (value as number | bigint) < 0) throw new DotUsageError(`${what} is a number ≥ 0, not ${text}`);
  return BigInt(value as number | bigint);
}

/** Words separated by spaces; what stands in brackets or quotes stays together. */
export function wordsOf(text: string): string[] {
  return text.match(/(?:"[^"]*"|'[^']*'|\([^)]*\)|\[[^\]]*\]|[^\s"'([]+)+/g) ?? [];
}
