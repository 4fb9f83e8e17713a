import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { type Entry, readEntry, readTree } from '../../lib/lab/cpio.ts';
import { JOB_FILE, type Json } from '../../lib/lab/frames.ts';
import type { GuestCommand } from '../../lib/lab/init-script.ts';
import { LabError } from '../../lib/lab/lab-error.ts';
import { attachTerminal, type Boot, type Controls, runJob } from '../../lib/lab/machine.ts';
import { packageEntries } from '../../lib/lab/node-packages.ts';
import { PROJECT_ROOT } from '../../lib/lab/project.ts';
import type { Variant } from '../../lib/lab/variants.ts';
import { type LabOptions, nodeLine, terminalHere, withMachine } from '../../lib/lab/with-machine.ts';
import { compilerOf, prepareAddon } from './addon.ts';
import { GUEST_ROOT, type Job, OUT_FOLDER } from './job.ts';

const DEFAULT_TIMEOUT_MS = 600_000;

const ADDON_IN_PACKAGE = 'build/Release/kvm_bridge.node';

/** The dependency that the compiled JavaScript loads at run time; the other one of the package is headers only. */
const RUNTIME_PACKAGES = ['bindings'];

export interface RunOptions extends LabOptions {
  /** A compiled module inside `out/`, such as `test/lab/guest/probe.js`; its default export is a `GuestScript`. */
  readonly script: string;
  /** Handed to the script. */
  readonly args?: Json;
  /** Further files for the guest, with paths below its copy of the repository. */
  readonly entries?: readonly Entry[];
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
  const line = nodeLine(variant, 'out/test/lab/guest/agent.js');
  return withProject(
    variant,
    options,
    { line, folder: GUEST_ROOT },
    [jobEntry, ...(options.entries ?? []).map(inGuest)],
    (boot) => {
      onProgress(`booting ${variant.id}`);
      if (inspect === undefined) return runJob(boot, { onProgress, timeoutMs, signal });
      const folder = dirname(boot.initramfs);
      const controls = { qmp: join(folder, 'qmp'), gdb: join(folder, 'gdb') };
      return runJob(
        { ...boot, controls },
        { onProgress, timeoutMs, signal, inspect: (result) => inspect(result, controls, folder) },
      );
    },
  );
}

/** Boots the variant's machine with the user's terminal on its console, where our REPL runs. */
export async function openShell(variant: Variant, options: LabOptions): Promise<void> {
  const line = nodeLine(variant, 'out/lib/cli/main.js repl');
  await withProject(variant, options, { line, folder: GUEST_ROOT, terminal: terminalHere() }, [], (boot) => {
    options.onProgress?.(`booting ${variant.id}; Ctrl-] stops the machine`);
    return attachTerminal(boot, options.signal);
  });
}

/** A machine with the compiled tree and an addon that was cross-compiled for it. */
function withProject<T>(
  variant: Variant,
  options: LabOptions,
  command: GuestCommand,
  more: readonly Entry[],
  work: (boot: Boot) => Promise<T>,
): Promise<T> {
  const { machine } = variant;
  const { onProgress = () => {}, signal } = options;
  const entries = async (cache: string): Promise<Entry[]> => {
    const addon = await readEntry(await prepareAddon(machine, { cache, onProgress, signal }), ADDON_IN_PACKAGE);
    return [...more, ...[addon, ...(await projectEntries())].map(inGuest)];
  };
  return withMachine(variant, options, { command, tools: [compilerOf(machine)], entries }, work);
}

/** The compiled tree with what it needs to be a package, with paths below its root. */
async function projectEntries(): Promise<Entry[]> {
  const compiled = await readTree(OUT_FOLDER, (path) => path.endsWith('.js'));
  return [
    await readEntry(join(PROJECT_ROOT, 'package.json'), 'package.json'),
    ...compiled.map((entry) => ({ ...entry, path: `out/${entry.path}` })),
    ...(await packageEntries(RUNTIME_PACKAGES, PROJECT_ROOT)),
  ];
}

/** An entry of the repository at its place in the guest. */
function inGuest(entry: Entry): Entry {
  return { ...entry, path: `${GUEST_ROOT.slice(1)}/${entry.path}` };
}
