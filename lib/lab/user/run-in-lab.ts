import { existsSync } from 'node:fs';
import { appendFile, mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { ARCH_FACTS } from '../../uapi/arch.ts';
import type { Entry } from '../cpio.ts';
import { JOB_FILE, type OutputFrame } from '../frames.ts';
import { LabError } from '../lab-error.ts';
import { attachTerminal, runJob } from '../machine.ts';
import { PROJECT_ROOT } from '../project.ts';
import type { Variant } from '../variants.ts';
import { type LabOptions, nodeLine, terminalHere, withMachine } from '../with-machine.ts';
import type { UserJob } from './job.ts';
import { inGuest, isInside, ownEntries, type ProjectFiles, projectEntries, projectOf } from './project-files.ts';
import { isVitestFile, vitestEntries, withoutTypes } from './vitest-files.ts';

export interface UserRun extends LabOptions {
  /** Node's command line: options, the script, its arguments. */
  readonly nodeArguments: readonly string[];
  readonly cwd: string;
  /** Files and folders that go along, where not all beside the script are to. */
  readonly files?: readonly string[] | undefined;
  /** A folder whose files are brought back: it is there in the guest, empty, at the same place. */
  readonly out?: string | undefined;
  readonly timeoutMs: number;
  readonly environment: Readonly<Record<string, string>>;
  readonly onOutput: (stream: 'stdout' | 'stderr', bytes: Buffer) => void;
}

/** Where files of an `out` outside the project are put. */
const ELSEWHERE = '/out';

/**
 * Runs somebody's script, with the files beside it and this package as it is installed, on a variant's real KVM.
 *
 * @returns the script's exit status
 * @throws LabError if the lab fails, or the script does not end in time
 */
export async function runInLab(variant: Variant, run: UserRun): Promise<number> {
  const { cwd, signal, timeoutMs, onProgress = () => {} } = run;
  const script = run.nodeArguments.find((each) => !each.startsWith('-'));
  // Behind an option it may be that one's value.
  if (script !== undefined && script === run.nodeArguments[0] && !existsSync(resolve(cwd, script))) {
    throw new LabError(`There is no file ${resolve(cwd, script)}.`);
  }
  const project = projectOf(cwd, script);
  const out = run.out === undefined ? undefined : resolve(cwd, run.out);
  const files = run.files?.map((each) => resolve(cwd, each));
  const isVitest =
    script !== undefined && script === run.nodeArguments[0] && (await isVitestScript(resolve(cwd, script)));
  const job = withRunner(jobOf(run, project, out), isVitest ? project : undefined);
  const entries = async (): Promise<Entry[]> => [
    { path: JOB_FILE.slice(1), kind: 'file', content: Buffer.from(JSON.stringify(job)) },
    ...(job.out === undefined ? [] : [{ path: job.out.slice(1), kind: 'folder' } as const]),
    ...below(project.home, withoutOld(await filesOf(project.root, files, isVitest), project, out)),
    ...(await packageIn(project, variant)),
  ];
  const command = { line: nodeLine(variant, `${packageFolder(project)}/dist/lab/agent.js`), folder: project.home };
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

/** Our prompt in the machine, on the user's terminal. */
export async function openShell(variant: Variant, options: LabOptions): Promise<void> {
  const home = '/home/shell';
  const line = nodeLine(variant, `${home}/node_modules/kvm-bridge/dist/cli/main.js repl`);
  const payload = {
    command: { line, folder: home, terminal: terminalHere() },
    entries: () => packageIn({ home }, variant),
  };
  await withMachine(variant, options, payload, (boot) => {
    options.onProgress?.(`booting ${variant.id}; Ctrl-] stops the machine`);
    return attachTerminal(boot, options.signal);
  });
}

function jobOf({ nodeArguments, environment, cwd }: UserRun, project: ProjectFiles, out: string | undefined): UserJob {
  const { root, home, folder } = project;
  const there = isInside(root, cwd);
  const moved = nodeArguments.map((each, index) => {
    const path = resolve(cwd, each);
    const isScript = index === nodeArguments.findIndex((argument) => !argument.startsWith('-'));
    return (isScript && !there) || (each.startsWith('/') && isInside(root, path)) ? inGuest(project, path) : each;
  });
  const outThere = out === undefined ? undefined : isInside(root, out) ? inGuest({ root, home }, out) : ELSEWHERE;
  const named: Record<string, string> = outThere === undefined ? {} : { KVM_BRIDGE_LAB_OUT: outThere };
  return { nodeArguments: moved, folder, environment: { ...environment, ...named }, out: outThere };
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
