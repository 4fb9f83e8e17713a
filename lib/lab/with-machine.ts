import { constants } from 'node:fs';
import { appendFile, copyFile, link, mkdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { findKernel, prepareBaseImage } from './base-image.ts';
import { cacheFolder, checkRoom, makeRunFolder } from './cache.ts';
import { type Entry, packCpio } from './cpio.ts';
import { guestModules, MODULES_FOLDER } from './guest-modules.ts';
import { checkHost, type HostTool } from './host-tools.ts';
import { type GuestCommand, initScript } from './init-script.ts';
import { LabError } from './lab-error.ts';
import { withLock } from './lock.ts';
import type { Boot } from './machine.ts';
import { LOCKS_FOLDER } from './project.ts';
import { prepareQemu } from './qemu.ts';
import type { Variant } from './variants.ts';

/** Beside those of the base image, which stay unloaded. */
const OWN_MODULES_FOLDER = 'lab/own-modules';

const ROOM_TO_RUN = 300 * 1024 ** 2;

export interface LabOptions {
  readonly onProgress?: ((line: string) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Ask Debian's archive for newer packages even if there is an image already. */
  readonly refresh?: boolean | undefined;
  /** An unpacked kernel package, whose kernel and modules stand in for those of Debian's archive. */
  readonly kernelRoot?: string | undefined;
}

/** What a machine gets beside its kernel, Node and modules. */
export interface Payload {
  /** What it runs. */
  readonly command: GuestCommand;
  /** Programs of this machine that making the entries takes. */
  readonly tools?: readonly HostTool[];
  /** Makes its files, with paths from the guest's root; the cache's lock for the machine is held meanwhile. */
  readonly entries: (cache: string) => Promise<readonly Entry[]>;
}

/**
 * Makes what a variant's machine boots from, downloading first what is not in the cache yet, and removes it after the work. Any number
 * of labs can do this at the same time.
 *
 * @throws LabError with one sentence; the signal's reason if it is aborted
 */
export async function withMachine<T>(
  variant: Variant,
  options: LabOptions,
  payload: Payload,
  work: (boot: Boot) => Promise<T>,
): Promise<T> {
  const { machine } = variant;
  const { signal, refresh = false, onProgress = () => {}, kernelRoot } = options;
  checkHost(machine, payload.tools);
  const cache = cacheFolder();
  await checkRoom(cache, ROOM_TO_RUN);
  await mkdir(cache, { recursive: true });
  const run = await makeRunFolder(cache);
  try {
    const qemu = await prepareQemu(variant, { cache, locks: LOCKS_FOLDER, refresh, onProgress, signal });
    const boot: Boot = { machine, qemu, kernel: join(run, 'kernel'), initramfs: join(run, 'initramfs') };
    const onWait = () => onProgress('waiting for another lab that is filling the cache');
    const entries = await withLock(join(cache, `${machine.debianArch}.lock`), { signal, onWait }, async () => {
      const base = await prepareBaseImage(variant, { cache, refresh, onProgress, signal });
      const made = await payload.entries(cache);
      // The run has its own names for everything, so that nobody who fills the cache next can take it away.
      await link(base.kernel, boot.kernel);
      await copyFile(base.initramfs, boot.initramfs, constants.COPYFILE_FICLONE);
      return made;
    });
    const modules = kernelRoot === undefined ? [] : await replaceKernel(variant, kernelRoot, boot.kernel, signal);
    const folder = kernelRoot === undefined ? MODULES_FOLDER : OWN_MODULES_FOLDER;
    const script = Buffer.from(initScript(variant, payload.command, folder));
    const init: Entry = { path: 'init', kind: 'file', content: script, executable: true };
    await appendFile(boot.initramfs, Buffer.concat([...packCpio([init, ...modules, ...entries])]));
    await checkSize(boot);
    return await work(boot);
  } finally {
    await rm(run, { recursive: true, force: true });
  }
}

/** Puts another kernel in the place of a run's, and returns its modules. */
async function replaceKernel(
  variant: Variant,
  root: string,
  kernel: string,
  signal: AbortSignal | undefined,
): Promise<Entry[]> {
  const own = await findKernel(variant, root);
  // What is there is a link to the cache's.
  await rm(kernel);
  await copyFile(own, kernel);
  const folder: Entry = { path: OWN_MODULES_FOLDER, kind: 'folder' };
  return [folder, ...(await guestModules(variant, root, signal, OWN_MODULES_FOLDER))];
}

async function checkSize({ machine, initramfs }: Boot): Promise<void> {
  const limit = machine.maxInitramfsBytes;
  const { size } = await stat(initramfs);
  if (limit === undefined || size < limit) return;
  throw new LabError(`The initramfs of ${machine.arch} has ${size} bytes; its firmware loads no more than ${limit}.`);
}

/** The command line that runs Node there. */
export function nodeLine({ machine }: Variant, ...args: readonly string[]): string {
  return ['node', ...machine.nodeOptions, ...args].join(' ');
}

/** The user's terminal, as the guest has to know it. */
export function terminalHere(): NonNullable<GuestCommand['terminal']> {
  const { stdout } = process;
  const type = /^[\w.+-]+$/.test(process.env.TERM ?? '') ? process.env.TERM! : 'linux';
  // A terminal that does not know its size says 0.
  return { columns: stdout.columns || 80, rows: stdout.rows || 24, type };
}
