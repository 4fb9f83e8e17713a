import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import { LabError } from './lab-error.ts';

/**
 * Starts a program that cannot outlive this process: the kernel kills it when we die, however we die. It gets a process group
 * of its own, so that Ctrl-C on the terminal reaches only us, and we end it by its own id.
 */
export function spawnOwned(command: string, args: readonly string[], options: SpawnOptions): ChildProcess {
  return spawn('setpriv', ['--pdeathsig', 'KILL', '--', command, ...args], { ...options, detached: true });
}

/** Kills a child of `spawnOwned` together with whatever it started. */
export function killOwned(child: ChildProcess): void {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  try {
    process.kill(-child.pid, 'SIGKILL');
  } catch {
    child.kill('SIGKILL'); // Not the leader of its group yet: setsid() happens in the child.
  }
}

export interface CommandOptions {
  readonly cwd?: string;
  /** For its stdin. */
  readonly input?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal | undefined;
  readonly timeoutMs?: number;
}

/** What a program left behind. */
export interface Ended {
  readonly code: number | null;
  readonly stdout: Buffer;
  /** The end of it. */
  readonly stderr: string;
}

/** Runs a program to its end and returns what it wrote to stdout; throws a LabError that says what went wrong. */
export async function runCommand(
  command: string,
  args: readonly string[],
  options: CommandOptions = {},
): Promise<Buffer> {
  const ended = await runToEnd(command, args, options);
  if (ended.code !== 0) throw failureOf(command, ended);
  return ended.stdout;
}

/** The error of a program that ended with another status than 0. */
export function failureOf(command: string, { code, stderr }: Pick<Ended, 'code' | 'stderr'>): LabError {
  return new LabError(`${command} failed: ${reason(stderr) ?? `exit status ${code ?? 'unknown'}`}`);
}

/** Runs a program to its end, whatever its exit status is; throws a LabError only if it does not start or does not end in time. */
export async function runToEnd(command: string, args: readonly string[], options: CommandOptions = {}): Promise<Ended> {
  options.signal?.throwIfAborted();
  const timeoutMs = options.timeoutMs ?? 600_000;
  const child = spawnOwned(command, args, {
    cwd: options.cwd,
    env: { ...process.env, LC_ALL: 'C', ...options.env },
    stdio: [options.input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
  });
  child.stdin?.on('error', () => {}); // It ended without having read all; its status says why.
  child.stdin?.end(options.input);
  const stdout: Buffer[] = [];
  let stderr = '';
  child.stdout?.on('data', (chunk: Buffer) => stdout.push(chunk));
  child.stderr?.on('data', (chunk: Buffer) => {
    stderr = (stderr + chunk.toString()).slice(-4096);
  });

  let timedOut = false;
  const timer = setTimeout(() => {
    timedOut = true;
    killOwned(child);
  }, timeoutMs);
  const abort = () => killOwned(child);
  options.signal?.addEventListener('abort', abort);
  try {
    const code = await new Promise<number | null>((resolve, reject) => {
      child.on('error', (error) => reject(new LabError(`${command} cannot be started: ${error.message}`)));
      child.on('close', resolve);
    });
    options.signal?.throwIfAborted();
    if (timedOut)
      throw new LabError(`${command} did not end within ${Math.round(timeoutMs / 1000)} s and was stopped.`);
    return { code, stdout: Buffer.concat(stdout), stderr };
  } finally {
    clearTimeout(timer);
    options.signal?.removeEventListener('abort', abort);
  }
}

/** The line of a program's stderr that says why: that the disk is full, which programs say among other things, or an error line, else the last. */
function reason(stderr: string): string | undefined {
  const lines = stderr.split('\n').filter((line) => line.trim() !== '');
  const full = lines.find((line) => line.includes('No space left on device'));
  return (full ?? lines.find((line) => /^E:|error:/.test(line)) ?? lines.at(-1))?.trim();
}
