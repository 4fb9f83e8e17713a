import { constants, existsSync } from 'node:fs';
import { appendFile, copyFile, link, mkdir, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { prepareBaseImage } from '../../lib/lab/base-image.ts';
import { cacheFolder, checkRoom, makeRunFolder } from '../../lib/lab/cache.ts';
import { type Entry, packCpio, readEntry, readTree } from '../../lib/lab/cpio.ts';
import { GUEST_ROOT, JOB_FILE, type Job, type Json } from '../../lib/lab/frames.ts';
import { checkHost } from '../../lib/lab/host-tools.ts';
import { type GuestCommand, initScript } from '../../lib/lab/init-script.ts';
import { LabError } from '../../lib/lab/lab-error.ts';
import { withLock } from '../../lib/lab/lock.ts';
import { attachTerminal, type Boot, type Controls, runJob } from '../../lib/lab/machine.ts';
import { LOCKS_FOLDER, OUT_FOLDER, PROJECT_ROOT } from '../../lib/lab/project.ts';
import { prepareQemu } from '../../lib/lab/qemu.ts';
import type { Variant } from '../../lib/lab/variants.ts';
import { prepareAddon } from './addon.ts';
import { packageClosure, packageEntries } from './node-packages.ts';

const ROOM_TO_RUN = 300 * 1024 ** 2;
const DEFAULT_TIMEOUT_MS = 600_000;

/** The dependency that the compiled JavaScript loads at run time; the other one of the package is headers only. */
const RUNTIME_PACKAGES = ['bindings'];

export interface LabOptions {
  readonly onProgress?: (line: string) => void;
  readonly signal?: AbortSignal;
  /** Ask Debian's archive for newer packages even if there is an image already. */
  readonly refresh?: boolean;
  /** Further files for the guest, with paths below its copy of the repository. */
  readonly entries?: readonly Entry[];
}

export interface RunOptions extends LabOptions {
  /** A compiled module inside `out/`, such as `test/lab/guest/probe.js`; its default export is a `GuestScript`. */
  readonly script: string;
  /** Handed to the script. */
  readonly args?: Json;
  /** From the machine's start to the result. Default: ten minutes. */
  readonly timeoutMs?: number;
  /** Called with the result while the guest still runs, busy in user mode; `folder` is for files that go with the machine. */
  readonly inspect?: (result: Json, controls: Controls, folder: string) => Promise<void>;
}

/**
 * Boots the variant's machine, runs a script in it, and returns what the script returns. Downloads and compiles first what is not in the
 * cache yet. Any number of labs can run at the same time.
 *
 * @throws LabError with one sentence, and the guest's last console lines if there was a guest; the signal's reason if it is aborted
 */
export async function runInLab(variant: Variant, options: RunOptions): Promise<Json> {
  const { script, args = null, timeoutMs = DEFAULT_TIMEOUT_MS, signal } = options;
  if (!existsSync(join(OUT_FOLDER, script)))
    throw new LabError(`out/${script} is not there; compile with: npm run lab`);
  const { inspect } = options;
  const job: Job = { script, args, spin: inspect !== undefined };
  const jobEntry: Entry = { path: JOB_FILE.slice(1), kind: 'file', content: Buffer.from(JSON.stringify(job)) };
  const onProgress = options.onProgress ?? (() => {});
  const command = { line: nodeLine(variant, 'out/test/lab/guest/agent.js') };
  return withMachine(variant, options, command, [jobEntry], (boot) => {
    onProgress(`booting ${variant.id}`);
    if (inspect === undefined) return runJob(boot, { onProgress, timeoutMs, signal });
    const folder = dirname(boot.initramfs);
    const controls = { qmp: join(folder, 'qmp'), gdb: join(folder, 'gdb') };
    return runJob(
      { ...boot, controls },
      { onProgress, timeoutMs, signal, inspect: (result) => inspect(result, controls, folder) },
    );
  });
}

/** Boots the variant's machine with the user's terminal on its console, where our REPL runs. */
export async function openShell(variant: Variant, options: LabOptions): Promise<void> {
  const { stdout } = process;
  // A terminal that does not know its size says 0.
  const [columns, rows] = [stdout.columns || 80, stdout.rows || 24];
  const type = /^[\w.+-]+$/.test(process.env.TERM ?? '') ? process.env.TERM! : 'linux';
  const command = { line: nodeLine(variant, 'out/lib/cli/main.js repl'), terminal: { columns, rows, type } };
  await withMachine(variant, options, command, [], (boot) => {
    options.onProgress?.(`booting ${variant.id}; Ctrl-] stops the machine`);
    return attachTerminal(boot, options.signal);
  });
}

function nodeLine({ machine }: Variant, script: string): string {
  return ['node', ...machine.nodeOptions, script].join(' ');
}

async function withMachine<T>(
  variant: Variant,
  options: LabOptions,
  command: GuestCommand,
  entries: readonly Entry[],
  work: (boot: Boot) => Promise<T>,
): Promise<T> {
  const { machine } = variant;
  const { signal, refresh = false } = options;
  const onProgress = options.onProgress ?? (() => {});
  checkHost(machine);
  const cache = cacheFolder();
  await checkRoom(cache, ROOM_TO_RUN);
  await mkdir(cache, { recursive: true });
  const run = await makeRunFolder(cache);
  try {
    const qemu = await prepareQemu(variant, { cache, locks: LOCKS_FOLDER, refresh, onProgress, signal });
    const boot: Boot = { machine, qemu, kernel: join(run, 'kernel'), initramfs: join(run, 'initramfs') };
    const onWait = () => onProgress('waiting for another lab that is filling the cache');
    const addon = await withLock(join(cache, `${machine.debianArch}.lock`), { signal, onWait }, async () => {
      const base = await prepareBaseImage(variant, { cache, refresh, onProgress, signal });
      const compiled = await prepareAddon(machine, { cache, onProgress, signal });
      // The run has its own names for everything, so that nobody who fills the cache next can take it away.
      await link(base.kernel, boot.kernel);
      await copyFile(base.initramfs, boot.initramfs, constants.COPYFILE_FICLONE);
      return inGuest(await readEntry(compiled, 'build/Release/kvm_bridge.node'));
    });
    const init: Entry = {
      path: 'init',
      kind: 'file',
      content: Buffer.from(initScript(variant, command)),
      executable: true,
    };
    const payload = [
      init,
      ...entries,
      addon,
      ...[...(await projectEntries()), ...(options.entries ?? [])].map(inGuest),
    ];
    await appendFile(boot.initramfs, Buffer.concat([...packCpio(payload)]));
    await checkSize(boot);
    return await work(boot);
  } finally {
    await rm(run, { recursive: true, force: true });
  }
}

/** The compiled tree with what it needs to be a package, with paths below its root. */
async function projectEntries(): Promise<Entry[]> {
  const compiled = await readTree(OUT_FOLDER, (path) => path.endsWith('.js'));
  return [
    await readEntry(join(PROJECT_ROOT, 'package.json'), 'package.json'),
    ...compiled.map((entry) => ({ ...entry, path: `out/${entry.path}` })),
    ...(await packageEntries(await packageClosure(RUNTIME_PACKAGES))),
  ];
}

/** An entry of the repository at its place in the guest. */
function inGuest(entry: Entry): Entry {
  return { ...entry, path: `${GUEST_ROOT.slice(1)}/${entry.path}` };
}

async function checkSize({ machine, initramfs }: Boot): Promise<void> {
  const limit = machine.maxInitramfsBytes;
  const { size } = await stat(initramfs);
  if (limit === undefined || size < limit) return;
  throw new LabError(`The initramfs of ${machine.arch} has ${size} bytes; its firmware loads no more than ${limit}.`);
}
