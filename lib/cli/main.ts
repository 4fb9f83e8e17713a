#!/usr/bin/env node
import { cli } from './cli.ts';
import { fileProblem, isFileError } from './file-problem.ts';

for (const [name, stream] of [
  ['standard output', process.stdout],
  ['standard error', process.stderr],
] as const) {
  stream.on('error', (error) => {
    if (!isFileError(error)) throw error;
    // A reader that has seen enough (`| head`) is no failure.
    if (error.code === 'EPIPE') process.exit();
    if (stream !== process.stderr) process.stderr.write(`kvm-bridge: ${name}: ${fileProblem(error)}\n`);
    process.exit(1);
  });
}

const status = await cli(process.argv.slice(2), process);
// A script may have set another.
if (status !== 0) process.exitCode = status;
