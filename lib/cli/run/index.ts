import type { Command } from '../command.ts';
import { SESSION_OPTIONS, sessionOptions } from '../session.ts';
import { runScript } from './run-script.ts';

/** `kvm-bridge run`. */
export const run: Command = {
  summary: 'a JavaScript file, or standard input (-), with kvm and vm ready',
  usage: '[OPTION…] FILE|- [ARGUMENT…]',
  details: `The file is an ES module: import, and await at top level. Everything that kvm-bridge exports is global there, and so are
raw, s390x, ppc64 and x86_64. What follows FILE is the script's, in process.argv. The status is Node's.`,
  options: SESSION_OPTIONS,
  positionals: { least: 1, most: Number.POSITIVE_INFINITY },
  passesOn: 1,
  run: (values, [file = '-', ...args], io) => runScript(io, file, args, sessionOptions('run', values, io)),
};
