import { WriteStream } from 'node:tty';
import { styleText } from 'node:util';

/** Where a command reads and writes, so that tests can stand in for the terminal. */
export interface Io {
  readonly stdin: NodeJS.ReadableStream;
  readonly stdout: OutputStream;
  readonly stderr: OutputStream;
  readonly env: NodeJS.ProcessEnv;
  /** Ends the process, for what cannot be thrown to the command. */
  readonly exit: (status: number) => void;
}

export type OutputStream = NodeJS.WritableStream & { readonly isTTY?: boolean; readonly columns?: number };

/** A mistake on the command line: exit status 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
  /** The command that was misused, where it is known. */
  readonly command: string | undefined;

  constructor(message: string, command?: string) {
    super(message);
    this.command = command;
  }
}

/** Takes away what was drawn on a terminal's line: written before anything else there. */
export const CLEAR_LINE = '\r\x1b[K';

/** Two lines for what went wrong: why, and where there is help. */
export function complain({ stderr }: Pick<Io, 'stderr'>, command: string | undefined, message: string): void {
  const of = command === undefined ? 'kvm-bridge' : `kvm-bridge ${command}`;
  stderr.write(`${stderr.isTTY === true ? CLEAR_LINE : ''}${of}: ${message}\n\`${of} --help\` says what there is.\n`);
}

const FORMATS = ['bold', 'dim', 'red', 'green', 'yellow', 'cyan'] as const;

/** Text in colours, or the text itself. */
export type Style = Record<(typeof FORMATS)[number], (text: string) => string>;

/** Whether a stream is to be written to in colours: NO_COLOR, FORCE_COLOR and TERM are heeded as Node heeds them. */
export function wantsColour({ isTTY = false }: OutputStream, env: NodeJS.ProcessEnv): boolean {
  return (isTTY || env.FORCE_COLOR !== undefined) && WriteStream.prototype.getColorDepth(env) > 1;
}

export function styleFor(stream: OutputStream, env: NodeJS.ProcessEnv): Style {
  const colour = wantsColour(stream, env);
  const entries = FORMATS.map((format) => [
    format,
    (text: string) => (colour && text !== '' ? styleText(format, text, { validateStream: false }) : text),
  ]);
  return Object.fromEntries(entries) as Style;
}

const DEFAULT_COLUMNS = 80;

/** Characters in a line of the terminal; 80 where there is none. */
export function columnsOf({ columns }: OutputStream): number {
  return columns !== undefined && columns > 0 ? columns : DEFAULT_COLUMNS;
}
