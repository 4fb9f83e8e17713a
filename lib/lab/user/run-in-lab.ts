import { appendFile, mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { checkReadable } from '../../base/readable-file.ts';
import { ARCH_FACTS } from '../../uapi/arch.ts';
import type { Entry } from '../cpio.ts';
import { INPUT_FILE, JOB_FILE, type OutputFrame } from '../frames.ts';
import { LabError } from '../lab-error.ts';
import { attachTerminal, runJob } from '../machine.ts';
import { PROJECT_ROOT } from '../project.ts';
import type { Variant } from '../variants.ts';
import { type LabOptions, nodeLine, terminalHere, withMachine } from '../with-machine.ts';
import { type Asked, jobOf, scriptIn, type UserJob } from './job.ts';
import { isInside, ownEntries, type ProjectFiles, projectEntries, projectOf } from './project-files.ts';
import { isVitestFile, vitestEntries, withoutTypes } from './vitest-files.ts';

export interface UserRun extends Asked, LabOptions {
  /** Files and folders that go along, where not all beside the script are to. */
  readonly files?: readonly string[] | undefined;
  readonly timeoutMs: number;
  readonly onOutput: (stream: 'stdout' | 'stderr', bytes: Buffer) => void;
}

/**
 * Runs somebody's script, with the files beside it and this package as it is installed, on a variant's real KVM.
 *
 * @returns the script's exit status
 * @throws LabError if the lab fails, or the script does not end in time; Node's errors of a script that cannot be read
 */
export async function runInLab(variant: Variant, run: UserRun): Promise<number> {
  const { cwd } = run;
  const script = scriptIn(run.nodeArguments);
  // Behind an option it may be that one's value.
  if (script !== undefined && script === run.nodeArguments[0]) checkReadable(resolve(cwd, script));
  const project = projectOf(cwd, script);
  const out = run.out === undefined ? undefined : resolve(cwd, run.out);
  const files = run.files?.map((each) => resolve(cwd, each));
  const isVitest =
    script !== undefined && script === run.nodeArguments[0] && (await isVitestScript(resolve(cwd, script)));
  const job = withRunner(jobOf({ ...run, out }, project), isVitest ? project : undefined);
  return carryOut(variant, { ...run, out }, { job, home: project.home }, async () =>
    below(project.home, withoutOld(await filesOf(project.root, files, isVitest), project, out)),
  );
}

/**
 * Our prompt in the machine, whose lines come from a pipe.
 *
 * @returns the prompt's exit status: 1 if a line failed
 * @throws LabError if the lab fails
 */
export async function runPromptInLab(variant: Variant, run: Omit<UserRun, 'nodeArguments' | 'cwd'>): Promise<number> {
  const nodeArguments = [promptFile(SHELL_HOME), 'repl'];
  const job: UserJob = {
    nodeArguments,
    folder: SHELL_HOME,
    environment: run.environment,
    hasInput: true,
    out: undefined,
  };
  return carryOut(variant, run, { job, home: SHELL_HOME }, async () => []);
}

/** Boots a machine with the package, and other files, for a job. @returns its exit status */
async function carryOut(
  variant: Variant,
  run: Omit<UserRun, 'nodeArguments' | 'cwd'>,
  { job, home }: { readonly job: UserJob; readonly home: string },
  others: () => Promise<Entry[]>,
): Promise<number> {
  const { signal, timeoutMs, out, onProgress = () => {} } = run;
  const entries = async (): Promise<Entry[]> => [
    { path: JOB_FILE.slice(1), kind: 'file', content: Buffer.from(JSON.stringify(job)) },
    ...inputEntries(run.input),
    ...(job.out === undefined ? [] : [{ path: job.out.slice(1), kind: 'folder' } as const]),
    ...(await others()),
    ...(await packageIn({ home }, variant)),
  ];
  const command = { line: nodeLine(variant, `${packageFolder({ home })}/dist/lab/agent.js`), folder: home };
  const status = await withMachine(variant, run, { command, entries }, (boot) => {
    onProgress(`booting ${variant.id}`);
    const written = new FilesBack(out);
    return runJob(boot, {
      onProgress,
      timeoutMs,
      signal,
      onOutput: (frame) => {
        if (frame.kind === 'output') run.onOutput(frame.stream, Buffer.from(frame.data, 'base64'));
        else written.add(frame);
      },
      inspect: () => written.done(),
    });
  });
  if (typeof status !== 'number') throw new LabError(`The guest sent ${JSON.stringify(status)} for an exit status.`);
  return status;
}

const inputEntries = (input: Uint8Array | undefined): Entry[] =>
  input === undefined ? [] : [{ path: INPUT_FILE.slice(1), kind: 'file', content: input }];

const isVitestScript = async (path: string): Promise<boolean> => isVitestFile(await readFile(path, 'utf8'));

/** A job whose script, and the scripts behind it, are given to vitest's runner. */
function withRunner(job: UserJob, project: ProjectFiles | undefined): UserJob {
  if (project === undefined) return job;
  return { ...job, nodeArguments: [`${packageFolder(project)}/dist/lab/run-vitest.js`, ...job.nodeArguments] };
}

async function filesOf(root: string, only: readonly string[] | undefined, isVitest: boolean): Promise<Entry[]> {
  const entries = await projectEntries(root, only);
  return isVitest ? [...entries.map(withoutTypes), ...(await vitestEntries(root))] : entries;
}

const SHELL_HOME = '/home/shell';

const promptFile = (home: string): string => `${packageFolder({ home })}/dist/cli/main.js`;

/** Our prompt in the machine, on the user's terminal. */
export async function openShell(variant: Variant, options: LabOptions): Promise<void> {
  const home = SHELL_HOME;
  const line = nodeLine(variant, `${promptFile(home)} repl`);
  const payload = {
    command: { line, folder: home, terminal: terminalHere() },
    entries: () => packageIn({ home }, variant),
  };
  await withMachine(variant, options, payload, (boot) => {
    options.onProgress?.(`booting ${variant.id}; Ctrl-] stops the machine`);
    return attachTerminal(boot, options.signal);
  });
}

/** Without what an earlier run brought back. */
function withoutOld(entries: readonly Entry[], { root }: ProjectFiles, out: string | undefined): readonly Entry[] {
  return out === undefined ? entries : entries.filter(({ path }) => !isInside(out, join(root, path)));
}

const packageFolder = ({ home }: Pick<ProjectFiles, 'home'>): string => `${home}/node_modules/kvm-bridge`;

async function packageIn(project: Pick<ProjectFiles, 'home'>, { machine }: Variant): Promise<Entry[]> {
  const platform = `linux-${ARCH_FACTS[machine.arch].nodeArch}`;
  return below(packageFolder(project), await ownEntries(PROJECT_ROOT, platform));
}

function below(folder: string, entries: readonly Entry[]): Entry[] {
  return entries.map((entry) => ({ ...entry, path: `${folder.slice(1)}/${entry.path}` }));
}

/** Writes what comes back, in the order in which it comes. */
class FilesBack {
  readonly #folder: string | undefined;
  #last: Promise<void> = Promise.resolve();

  constructor(folder: string | undefined) {
    this.#folder = folder;
  }

  add(frame: Extract<OutputFrame, { kind: 'file' }>): void {
    const path = resolve(this.#folder ?? '.', frame.path);
    // A guest may say what it likes.
    if (this.#folder === undefined || !isInside(this.#folder, path)) return;
    const bytes = Buffer.from(frame.data, 'base64');
    this.#last = this.#last.then(async () => {
      await mkdir(dirname(path), { recursive: true });
      await (frame.first ? writeFile(path, bytes) : appendFile(path, bytes));
    });
    this.#last.catch(() => {}); // Told by done().
  }

  done(): Promise<void> {
    return this.#last;
  }
}
