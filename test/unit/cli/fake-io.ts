import { PassThrough } from 'node:stream';
import type { Io } from '../../../lib/cli/io.ts';

export interface FakeTerminal {
  readonly columns?: number;
  /** Standard input and output are terminals. */
  readonly isTTY?: boolean;
  readonly env?: NodeJS.ProcessEnv;
  /** What is typed, or piped in; `undefined` leaves the input open. */
  readonly input?: string | undefined;
}

export interface FakeIo extends Io {
  readonly stdin: PassThrough;
  /** The statuses that the process was to end with. */
  readonly exits: readonly number[];
  out(): string;
  err(): string;
}

/** Streams that remember what was written to them. */
export function fakeIo(terminal: FakeTerminal = {}): FakeIo {
  const { columns, isTTY = false, env = {}, input } = terminal;
  const collect = () => {
    const chunks: Buffer[] = [];
    const stream = Object.assign(new PassThrough(), { isTTY, ...(columns === undefined ? {} : { columns }) });
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    return { stream, text: () => Buffer.concat(chunks).toString() };
  };
  const out = collect();
  const err = collect();
  const stdin = Object.assign(new PassThrough(), { isTTY });
  const exits: number[] = [];
  const exit = (status: number) => void exits.push(status);
  if (!('input' in terminal) || input !== undefined) stdin.end(input ?? '');
  return { stdin, stdout: out.stream, stderr: err.stream, env, exit, exits, out: out.text, err: err.text };
}

/** Text without its colours. */
export function plain(text: string): string {
  return text.replaceAll(new RegExp(`${String.fromCharCode(27)}\\[[0-9;]*[A-Za-z]`, 'g'), '');
}
