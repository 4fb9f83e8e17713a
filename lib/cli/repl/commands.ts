import { wrap } from '../../base/text.ts';
import { explainError } from '../explain-error.ts';
import { namedProblem } from '../file-problem.ts';
import { suggestion } from '../nearest.ts';
import { type DotCommand, DotUsageError, type Prompt } from './dot-command.ts';
import { GUEST_COMMANDS } from './guest-commands.ts';
import { MEMORY_COMMANDS } from './memory-commands.ts';
import { SESSION_COMMANDS } from './session-commands.ts';
import { top } from './top-command.ts';

/** What begins with a dot, besides Node's own. */
export const DOT_COMMANDS: Readonly<Record<string, DotCommand>> = {
  ...MEMORY_COMMANDS,
  ...GUEST_COMMANDS,
  ...SESSION_COMMANDS,
  top,
};

export interface DotOutcome {
  readonly ok: boolean;
  /** What is to be printed. */
  readonly text: string;
}

/** What is said of a word with a dot that is no command. */
export function noSuchCommand(name: string, known: readonly string[]): string {
  const meant = suggestion(
    `.${name}`,
    known.map((each) => `.${each}`),
  );
  return `there is no command .${name}${meant || '; .help lists them'}`;
}

/** Runs a dot command; never throws. */
export async function runDotCommand(name: string, argument: string, prompt: Prompt): Promise<DotOutcome> {
  const command = Object.hasOwn(DOT_COMMANDS, name) ? DOT_COMMANDS[name] : undefined;
  if (command === undefined) {
    return { ok: false, text: noSuchCommand(name, [...Object.keys(DOT_COMMANDS), 'help', 'exit']) };
  }
  try {
    if (command.usage === undefined && argument.trim() !== '') throw new DotUsageError('it takes nothing behind it');
    return { ok: true, text: await command.run(argument.trim(), prompt) };
  } catch (error) {
    const problem = namedProblem(error);
    if (problem !== undefined) return { ok: false, text: `.${name}: ${problem}` };
    if (!(error instanceof DotUsageError)) return { ok: false, text: explainError(error) };
    return { ok: false, text: `.${name}: ${error.message}\nusage: .${name} ${command.usage ?? ''}`.trimEnd() };
  }
}

/** A command's name, what follows it, and what it is for: as `.help` lists it. */
export type HelpRow = readonly [name: string, help: string];

export const HELP_ROWS: readonly HelpRow[] = Object.entries(DOT_COMMANDS).map(([name, { usage = '', help }]) => [
  `.${name} ${usage}`.trimEnd(),
  help,
]);

/** The list that `.help` shows, folded between words where the screen is narrow. */
export function dotHelp(rows: readonly HelpRow[], columns = Number.POSITIVE_INFINITY): string {
  const width = Math.max(...rows.map(([left]) => left.length));
  const isNarrow = width + MOST_HELP > columns;
  const indent = isNarrow ? NARROW_INDENT : width + 2;
  return rows
    .flatMap(([left, help]) => {
      const [first = '', ...more] = columns === Number.POSITIVE_INFINITY ? [help] : wrap(help, columns - indent);
      const begin = isNarrow ? [left, ' '.repeat(indent) + first] : [left.padEnd(indent) + first];
      return [...begin, ...more.map((line) => ' '.repeat(indent) + line)];
    })
    .join('\n');
}

/** What `.help` says, of all or of one command. */
export function helpOn(argument: string, rows: readonly HelpRow[], columns?: number): DotOutcome {
  const name = argument.trim().replace(/^\./, '');
  if (name === '') return { ok: true, text: dotHelp(rows, columns) };
  const names = rows.map(([left]) => left.slice(1).split(' ', 1)[0]!);
  const row = rows[names.indexOf(name)];
  if (row === undefined) return { ok: false, text: noSuchCommand(name, names) };
  return { ok: true, text: dotHelp([row], columns) };
}

/** Where there is less room for the help beside the commands, it stands below them. */
const MOST_HELP = 40;
const NARROW_INDENT = 4;
