import type { Command } from '../command.ts';
import { runScript } from '../run/run-script.ts';
import { linesTo, SESSION_OPTIONS, sessionOptions } from '../session.ts';
import { ExitCounts } from './exit-counts.ts';
import { lookAsJson, lookAsText } from './look.ts';
import { Meter } from './meter.ts';
import { textTo, watch } from './show.ts';

/** `kvm-bridge top`. */
export const top: Command = {
  summary: 'a script as by run, and what its guest does: exits a second, dirty pages by region',
  usage: '[OPTION…] FILE|- [ARGUMENT…]',
  details: `It is told once a second on standard error, on a terminal in place, and at the end. Counted are the exits of all vCPUs of kvm, and
the dirty pages of vm, for which its dirty log is started; a script that does so itself finds none started, loses no page, and its own
collecting is what is counted then. A vCPU that runs by runSync keeps the picture from changing meanwhile; one that runs by run() does
not.`,
  options: {
    ...SESSION_OPTIONS,
    json: { type: 'boolean', help: 'each time as a line of JSON: counts, and the seconds in which they were' },
    out: {
      type: 'string',
      short: 'o',
      value: 'FILE',
      help: 'where it is told (- is standard output); else on standard error',
    },
  },
  positionals: { least: 1, most: Number.POSITIVE_INFINITY },
  passesOn: 1,
  async run({ json, out, ...values }, [file = '-', ...args], io) {
    const options = sessionOptions('top', values, io);
    // Calls that are traced are the session's own, and may be changed.
    const own = { ...options, trace: options.trace ?? (() => {}) };
    const asText = json === true ? lookAsJson : lookAsText;
    const tell = out === undefined ? (line: string) => io.stderr.write(`${line}\n`) : linesTo(String(out), 'top', io);
    const inPlace = json !== true && out === undefined ? textTo(io.stderr) : undefined;
    return runScript(io, file, args, own, ({ kvm, vm }) => {
      const meter = new Meter({ kvm, vm, exits: new ExitCounts(kvm.calls) });
      const ended = new AbortController();
      void watch(meter, inPlace ?? ((look) => tell(asText(look))), ended.signal);
      return () => {
        ended.abort();
        tell(asText(meter.look()));
      };
    });
  },
};
