import type { Command } from '../command.ts';
import { type Io, styleFor, UsageError } from '../io.ts';
import { openSession } from '../open-session.ts';
import { closeSession, SESSION_OPTIONS, type SessionOptions, sessionOptions, shareGlobals } from '../session.ts';
import { ExitCounts } from '../top/exit-counts.ts';
import { takeLines } from './pipe.ts';
import { prompt } from './prompt.ts';
import { sliceRuns } from './slices.ts';

/** `kvm-bridge repl`. */
export const repl: Command = {
  summary: 'a JavaScript prompt with kvm (the opened /dev/kvm) and vm (a VM) ready',
  usage: '[OPTION…]',
  details: `Lines from a pipe are taken without a prompt; the status is 1 if one of them failed. Commands that begin with a dot
(.help lists them) show the memory map, dump, search and walk the guest's memory, and more.`,
  options: SESSION_OPTIONS,
  run(values, _, io) {
    if (values.load === '-') {
      throw new UsageError('standard input has what is typed here: --load - is for run and top, and wants a file here');
    }
    return replCommand(io, sessionOptions('repl', values, io));
  },
};

/**
 * A prompt with `kvm` and `vm` ready. Ends with its input; a pipe's lines are taken without a prompt.
 * @returns the status: 1 if a line of a pipe failed, or what a command had begun
 * @throws KvmError when the wanted backend cannot be had
 */
export async function replCommand(io: Io, { trace, ...options }: SessionOptions): Promise<number> {
  const sink = { write: trace };
  const session = await openSession({ ...options, trace: (line) => sink.write?.(line) }, io);
  const exits = new ExitCounts(session.kvm.calls);
  sliceRuns(session.kvm);
  const unshare = shareGlobals(session);
  let status: number;
  let failed = false;
  try {
    const terminal = io.stdout.isTTY === true && (io.stdin as { readonly isTTY?: boolean }).isTTY === true;
    const setTrace = (write: typeof sink.write): void => {
      sink.write = write;
    };
    const showFailure = (text: string): void => {
      failed = true;
      if (terminal) io.stdout.write(`${styleFor(io.stdout, io.env).red(text)}\n`);
      else io.stderr.write(`${text}\n`);
    };
    const parts = { setTrace, showFailure, exits };
    status = await (terminal ? prompt(io, session, parts) : takeLines(io, session, parts));
  } finally {
    unshare();
    closeSession(session);
  }
  // Only now: closing is traced, too.
  return failed ? 1 : status;
}
