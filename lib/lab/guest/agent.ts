import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, openSync, readdirSync, readFileSync, readSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { INPUT_FILE, JOB_FILE } from '../frames.ts';
import type { UserJob } from '../user/job.ts';
import { describeThrown, openPort } from './port.ts';

/*
 * The first program of a guest that runs somebody's script: starts Node for it, sends what it prints while it prints it, then the
 * files that it left, then its exit status.
 */

const PIECE = 24 * 1024;
/** As a shell reports a program that a signal ended. */
const SIGNALLED = 128;

const send = openPort();

/** Options of our own that Node would refuse there: whoever starts a Node without ours gets V8's warning. */
const NOT_IN_NODE_OPTIONS = ['--no-expose-wasm'];

async function runNode({ nodeArguments, folder, environment, hasInput }: UserJob): Promise<number> {
  const inherited = process.execArgv.filter((option) => !NOT_IN_NODE_OPTIONS.includes(option));
  const child = spawn(process.execPath, [...process.execArgv, ...nodeArguments], {
    cwd: folder,
    stdio: [hasInput ? openSync(INPUT_FILE, 'r') : 'ignore', 'pipe', 'pipe'],
    // Node processes that it starts want the same options.
    env: { ...process.env, NODE_OPTIONS: inherited.join(' '), ...environment },
  });
  for (const stream of ['stdout', 'stderr'] as const) {
    child[stream]?.on('data', (chunk: Buffer) => send({ kind: 'output', stream, data: chunk.toString('base64') }));
  }
  const [status, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
  if (signal !== null) console.error(`the script was ended by ${signal}`);
  return status ?? SIGNALLED + (signal === null ? 0 : constants.signals[signal]);
}

/** Sends every file below a folder, in pieces, with its path below that folder. */
function sendFiles(folder: string): void {
  if (!existsSync(folder)) return;
  for (const each of readdirSync(folder, { recursive: true, withFileTypes: true })) {
    if (!each.isFile()) continue;
    const file = join(each.parentPath, each.name);
    const path = file.slice(folder.length + 1);
    const fd = openSync(file, 'r');
    const piece = Buffer.alloc(PIECE);
    for (let first = true; ; first = false) {
      const read = readSync(fd, piece);
      if (read > 0 || first) send({ kind: 'file', path, first, data: piece.toString('base64', 0, read) });
      if (read === 0) break;
    }
    closeSync(fd);
  }
}

try {
  send({ kind: 'started' });
  const job = JSON.parse(readFileSync(JOB_FILE, 'utf8')) as UserJob;
  const status = await runNode(job);
  if (job.out !== undefined) sendFiles(job.out);
  send({ kind: 'result', value: status });
} catch (error) {
  send({ kind: 'failure', message: describeThrown(error) });
}
// The host stops the machine when it has the frame; ending earlier could be taken for a failure of init.
await sleep(60_000);
