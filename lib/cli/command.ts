import { type ParseArgsConfig, parseArgs } from 'node:util';
import { counted } from '../base/text.ts';
import { type Io, UsageError } from './io.ts';
import { suggestion } from './nearest.ts';

/** An option of a command, as `util.parseArgs` takes it, and as `--help` shows it. */
export interface Option {
  readonly type: 'string' | 'boolean';
  readonly short?: string;
  /** What stands for its value in the help. */
  readonly value?: string;
  readonly help: string;
}

export type Options = Readonly<Record<string, Option>>;

export type Values = Readonly<Record<string, string | boolean | undefined>>;

/** A command of the command line. */
export interface Command {
  /** One line for the list of commands. */
  readonly summary: string;
  /** What may follow the name. */
  readonly usage: string;
  /** Paragraphs for `--help`. */
  readonly details?: string;
  readonly options?: Options;
  /** How many other arguments there may be; none by default. */
  readonly positionals?: { readonly least: number; readonly most: number };
  /** So many arguments that are no options end the options, and so does `--`: what follows is somebody else's. */
  readonly passesOn?: number;
  run(values: Values, positionals: readonly string[], io: Io): number | Promise<number>;
}

const HELP: Option = { type: 'boolean', short: 'h', help: 'this text' };

/** What `--help` says. */
export function helpOf(name: string, { usage, summary, details, options = {} }: Command): string {
  const all = Object.entries({ ...options, help: HELP });
  const left = all.map(([option, { short, value }]) => {
    const long = `--${option}${value === undefined ? '' : ` ${value}`}`;
    return short === undefined ? `    ${long}` : `-${short}, ${long}`;
  });
  const width = Math.max(...left.map((text) => text.length));
  const rows = all.map(([, { help }], index) => `  ${left[index]!.padEnd(width)}  ${help}`);
  return [
    `usage: kvm-bridge ${name}${usage === '' ? '' : ` ${usage}`}`,
    '',
    `${summary[0]!.toUpperCase()}${summary.slice(1)}.`,
    ...(details === undefined ? [] : ['', details]),
    '',
    ...rows,
    '',
  ].join('\n');
}

/**
 * Reads a command's arguments and runs it.
 * @throws UsageError
 */
export async function runCommandLine(name: string, command: Command, args: readonly string[], io: Io): Promise<number> {
  const { values, positionals } = parse(name, command, args);
  if (values.help === true) {
    io.stdout.write(helpOf(name, command));
    return 0;
  }
  return await command.run(values, positionals, io);
}

function parse(name: string, { usage, options = {}, positionals: taken, passesOn }: Command, args: readonly string[]) {
  const known: NonNullable<ParseArgsConfig['options']> = {};
  for (const [option, { type, short }] of Object.entries({ ...options, help: HELP })) {
    known[option] = { type, ...(short === undefined ? {} : { short }) };
  }
  const own = passesOn === undefined ? args : upToPositional(passesOn, args, known);
  let parsed: { values: Values; positionals: string[] };
  try {
    parsed = parseArgs({ args: [...own], options: known, allowPositionals: true }) as typeof parsed;
  } catch (error) {
    throw new UsageError(sentence(error, { ...options, help: HELP }), name);
  }
  for (const [option, { value }] of Object.entries(options)) {
    if (parsed.values[option] === '') throw new UsageError(`--${option} wants a value: --${option} ${value}`, name);
  }
  if (parsed.positionals.includes('')) throw new UsageError('an argument is empty', name);
  const positionals = [...parsed.positionals, ...args.slice(own.length)];
  const { least, most } = taken ?? { least: 0, most: 0 };
  if (parsed.values.help !== true && (positionals.length < least || positionals.length > most)) {
    const count =
      least === most
        ? least === 0
          ? 'no arguments'
          : counted(least, 'argument')
        : `at least ${counted(least, 'argument')}`;
    const wanted = usage.replaceAll(/\[[^\]]*\] ?/g, '').trim();
    throw new UsageError(
      positionals.length < least
        ? `${wanted} is missing`
        : `it takes ${count}, not ${positionals.length}: ${positionals.join(' ')}`,
      name,
    );
  }
  return { values: parsed.values, positionals };
}

/** The options and so many arguments, the last of which gets the rest. */
function upToPositional(count: number, args: readonly string[], options: NonNullable<ParseArgsConfig['options']>) {
  const { tokens } = parseArgs({ args: [...args], options, strict: false, allowPositionals: true, tokens: true });
  const terminator = tokens.find(({ kind }) => kind === 'option-terminator');
  const last = tokens.filter(({ kind }) => kind === 'positional')[count - 1];
  const end = Math.min(terminator?.index ?? args.length, last?.index ?? args.length);
  return args.slice(0, end + 1);
}

/** Node's error in our words: what is wrong with which option, and which one was meant. */
function sentence(error: unknown, options: Options): string {
  if (!(error instanceof Error)) return String(error);
  const [, without] =
    /^Option '(?:-\w, )?--([\w-]+) <value>' argument (?:missing|is ambiguous)/.exec(error.message) ?? [];
  if (without !== undefined) return `--${without} wants a value: --${without} ${options[without]?.value ?? 'VALUE'}`;
  const [, needless] = /^Option '(?:-\w, )?--([\w-]+)' does not take an argument/.exec(error.message) ?? [];
  if (needless !== undefined) return `--${needless} takes no value`;
  const unknown = /Unknown option '(-[^']*)'/.exec(error.message)?.[1];
  if (unknown === undefined) return (error.message.split('. ', 1)[0] ?? error.message).replace(/^Option/, 'the option');
  const names = Object.keys(options).map((option) => `--${option}`);
  return `there is no option ${unknown}${suggestion(unknown, names)}`;
}
