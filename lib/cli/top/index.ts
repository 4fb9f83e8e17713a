import type { Command } from '../command.ts';
import { runScript } from '../run/run-script.ts';
import { SESSION_OPTIONS, sessionOptions } from '../session.ts';
import { traceTo } from '../trace-lines.ts';
import { ExitCounts } from './exit-counts.ts';
import { Meter } from './meter.ts';
import { watch } from './show.ts';

/** `kvm-bridge top`. */
export const top: Command = {
  summary: 'a script as by run, and what its guest does: exits a second, dirty pages by region',
  usage: '[OPTION…] FILE|- [ARGUMENT…]',
  details: `It is told once a second on standard error, on a terminal in place, and at the end. Counted are the exits of all vCPUs of kvm, and
the dirty pages of vm, for which its dirty log is started; a script that does so itself finds none started, loses no page, and its own
collecting is what is counted then. A vCPU that runs by runSync keeps the picture from changing meanwhile; one that runs by run() does
not.`,
  options: SESSION_OPTIONS,
  positionals: { least: 1, most: Number.POSITIVE_INFINITY },
  passesOn: 1,
  async run(values, [file = '-', ...args], io) {
    const trace = traceTo(io.stderr, io.env);
    const options = sessionOptions('top', values, trace);
    // Calls that are traced are the session's own, and may be changed.
    const own = { ...options, trace: options.trace ?? (() => {}) };
    return runScript(io, file, args, own, ({ kvm, vm }) => {
      const meter = new Meter({ kvm, vm, exits: new ExitCounts(kvm.calls) });
      const ended = new AbortController();
      void watch(meter, io.stderr, ended.signal);
      return () => {
        ended.abort();
        io.stderr.write(`${meter.look()}\n`);
      };
    });
  },
};
