import { loadCapture, readCapture } from '../capture.ts';
import type { Command } from '../command.ts';
import type { Io } from '../io.ts';
import {
  closeSession,
  openSession,
  SESSION_OPTIONS,
  type Session,
  type SessionOptions,
  sessionOptions,
  shareGlobals,
} from '../session.ts';
import { ExitCounts } from '../top/exit-counts.ts';
import { traceTo } from '../trace-lines.ts';
import { takeLines } from './pipe.ts';
import { prompt } from './prompt.ts';
import { sliceRuns } from './slices.ts';

export interface ReplOptions extends SessionOptions {
  /** Folder of a captured guest. */
  readonly load?: string | undefined;
}

/** `kvm-bridge repl`. */
export const repl: Command = {
  summary: 'a JavaScript prompt with kvm (the opened /dev/kvm) and vm (a VM) ready',
  usage: '[OPTION…]',
  details: `Lines from a pipe are taken without a prompt; the status is 1 if one of them failed. Commands that begin with a dot
(.help lists them) show the memory map, dump, search and walk the guest's memory, and more.`,
  options: {
    ...SESSION_OPTIONS,
    load: {
      type: 'string',
      value: 'FOLDER',
      help: 'a captured guest: its memory, keys, table and registers, ready to walk',
    },
  },
  run: (values, _, io) =>
    replCommand(io, {
      ...sessionOptions('repl', values, traceTo(io.stderr, io.env)),
      ...(values.load === undefined ? {} : { load: String(values.load) }),
    }),
};

/**
 * A prompt with `kvm` and `vm` ready. Ends with its input; a pipe's lines are taken without a prompt.
 * @returns the status: 1 if a line of a pipe failed
 * @throws KvmError when the wanted backend cannot be had
 */
export async function replCommand(io: Io, { load, trace, ...options }: ReplOptions): Promise<number> {
  const capture = load === undefined ? undefined : readCapture(load);
  const sink = { write: trace };
  const opened = openSession({
    ...options,
    ...(capture === undefined ? {} : { arch: capture.arch, backend: 'emulated' }),
    trace: (line) => sink.write?.(line),
  });
  const exits = new ExitCounts(opened.kvm.calls);
  sliceRuns(opened.kvm);
  const session: Session = capture === undefined ? opened : { ...opened, ...loadCapture(opened, capture) };
  const unshare = shareGlobals(session);
  try {
    const terminal = io.stdout.isTTY === true && (io.stdin as { readonly isTTY?: boolean }).isTTY === true;
    const setTrace = (write: typeof sink.write): void => {
      sink.write = write;
    };
    return terminal
      ? await prompt(io, session, { setTrace, exits })
      : await takeLines(io, session, { setTrace, exits });
  } finally {
    unshare();
    closeSession(session);
  }
}
