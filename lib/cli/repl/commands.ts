import { explainError } from '../explain-error.ts';
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

/** Runs a dot command; never throws. */
export async function runDotCommand(name: string, argument: string, prompt: Prompt): Promise<DotOutcome> {
  const command = Object.hasOwn(DOT_COMMANDS, name) ? DOT_COMMANDS[name] : undefined;
  if (command === undefined) {
    return { ok: false, text: `there is no command .${name}${suggestion(name, Object.keys(DOT_COMMANDS))}` };
  }
  try {
    return { ok: true, text: await command.run(argument.trim(), prompt) };
  } catch (error) {
    if (!(error instanceof DotUsageError)) return { ok: false, text: explainError(error) };
    return { ok: false, text: `.${name}: ${error.message}\nusage: .${name} ${command.usage ?? ''}`.trimEnd() };
  }
}

/** The list that `.help` shows in a pipe. */
export function dotHelp(): string {
  const names = Object.entries(DOT_COMMANDS).map(([name, { usage = '', help }]) => [
    `.${name} ${usage}`.trimEnd(),
    help,
  ]);
  const width = Math.max(...names.map(([left]) => left!.length));
  return names.map(([left, help]) => `${left!.padEnd(width)}  ${help}`).join('\n');
}
