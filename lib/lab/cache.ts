import { mkdir, mkdtemp, readdir, rm, statfs } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { isIntegerIn } from '../base/arguments.ts';
import { LabError } from './lab-error.ts';

/** The labs' folder for downloads, initramfs and runs; outside the repository, and safe to delete at any time. */
export function cacheFolder(): string {
  const chosen = process.env.XDG_CACHE_HOME;
  const base = chosen?.startsWith('/') ? chosen : join(homedir(), '.cache');
  return join(base, 'kvm-bridge/lab');
}

/** Throws unless the cache's file system has that much room. */
export async function checkRoom(folder: string, bytes: number): Promise<void> {
  await mkdir(folder, { recursive: true });
  const { bavail, bsize } = await statfs(folder);
  if (bavail * bsize >= bytes) return;
  const mib = (count: number) => `${Math.floor(count / 1024 ** 2)} MiB`;
  throw new LabError(`The disk of ${folder} has ${mib(bavail * bsize)} free; the lab needs ${mib(bytes)}.`);
}

/** A new folder for one run, named after this process; folders of runs whose process is gone are removed on the way. */
export async function makeRunFolder(cache: string): Promise<string> {
  const runs = join(cache, 'runs');
  await mkdir(runs, { recursive: true });
  for (const name of await readdir(runs)) {
    if (!isAlive(Number(name.split('-')[0]))) await rm(join(runs, name), { recursive: true, force: true });
  }
  return mkdtemp(join(runs, `${process.pid}-`));
}

function isAlive(pid: number): boolean {
  if (!isIntegerIn(pid, 1, 2 ** 31)) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
