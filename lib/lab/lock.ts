import { once } from 'node:events';
import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import { failureOf, killOwned, spawnOwned } from './command.ts';
import { LabError } from './lab-error.ts';

const LONGEST_WAIT_S = 1800;

/** The status of `flock` when it has waited that long. */
const STILL_HELD = 75;

/**
 * Runs `work` while holding an exclusive lock on a file, which other processes may hold. The lock belongs to a `cat` that
 * reads from us, so that the kernel releases it when this process ends, however it ends.
 */
export async function withLock<T>(
  path: string,
  options: { readonly signal?: AbortSignal | undefined; readonly onWait: () => void },
  work: () => Promise<T>,
): Promise<T> {
  options.signal?.throwIfAborted();
  await mkdir(dirname(path), { recursive: true });
  const wait = ['--wait', String(LONGEST_WAIT_S), '--conflict-exit-code', String(STILL_HELD)];
  const holder = spawnOwned('flock', ['--exclusive', ...wait, path, 'cat'], {
    env: { ...process.env, LC_ALL: 'C' },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  let stderr = '';
  holder.stderr?.on('data', (chunk: Buffer) => {
    stderr += chunk.toString();
  });
  const abort = () => killOwned(holder);
  options.signal?.addEventListener('abort', abort);
  const waiting = setTimeout(options.onWait, 1000);
  try {
    holder.stdin?.on('error', () => {}); // Its end is noticed below.
    holder.stdin?.write('locked\n'); // What comes back says that `cat` runs, so that the lock is ours.
    const end = once(holder, 'close').then(() => 'ended' as const);
    const outcome = await Promise.race([end, once(holder.stdout!, 'data').then(() => 'locked' as const)]);
    clearTimeout(waiting);
    options.signal?.throwIfAborted();
    if (outcome === 'ended') throw whyNot(path, holder.exitCode, stderr);
    return await work();
  } finally {
    clearTimeout(waiting);
    options.signal?.removeEventListener('abort', abort);
    killOwned(holder);
  }
}

function whyNot(path: string, code: number | null, stderr: string): LabError {
  if (code === STILL_HELD) return new LabError(`Another lab has held ${path} for ${LONGEST_WAIT_S} s; giving up.`);
  return failureOf('flock', { code, stderr });
}
