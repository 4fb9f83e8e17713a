import { once } from 'node:events';
import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import { killOwned, spawnOwned } from './command.ts';
import { LabError } from './lab-error.ts';

const LONGEST_WAIT_S = 1800;

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
  const holder = spawnOwned('flock', ['--exclusive', '--wait', String(LONGEST_WAIT_S), path, 'cat'], {
    stdio: ['pipe', 'pipe', 'ignore'],
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
    if (outcome === 'ended') throw new LabError(`Another lab has held ${path} for ${LONGEST_WAIT_S} s; giving up.`);
    return await work();
  } finally {
    clearTimeout(waiting);
    options.signal?.removeEventListener('abort', abort);
    killOwned(holder);
  }
}
