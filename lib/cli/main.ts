#!/usr/bin/env node
import { cli } from './cli.ts';

// A reader that has seen enough (`| head`) is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  process.exit();
});

const status = await cli(process.argv.slice(2), process);
// A script may have set another.
if (status !== 0) process.exitCode = status;
