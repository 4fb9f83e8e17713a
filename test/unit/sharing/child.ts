import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** What runs TypeScript in processes of the tests' own. */
const TYPESCRIPT = ['--import', new URL('../../typescript/register.mjs', import.meta.url).href] as const;

export interface ChildResult {
  readonly status: number | null;
  readonly signal: string | null;
  readonly stdout: string;
  readonly stderr: string;
}

function childPath(name: string): string {
  return fileURLToPath(new URL(`children/${name}.ts`, import.meta.url));
}

/** Starts one of the programs of `children/`. */
export function spawnChild(name: string, args: readonly string[] = [], options: SpawnOptions = {}): ChildProcess {
  return spawn(process.execPath, [...TYPESCRIPT, childPath(name), ...args], options);
}

/** Runs one of them to its end. */
export async function runChild(name: string, args: readonly string[] = []): Promise<ChildResult> {
  return ended(spawnChild(name, args, { stdio: ['ignore', 'pipe', 'pipe'] }));
}

/** What a process printed, and how it ended. */
export function ended(child: ChildProcess): Promise<ChildResult> {
  const out: Buffer[] = [];
  const err: Buffer[] = [];
  child.stdout?.on('data', (chunk: Buffer) => out.push(chunk));
  child.stderr?.on('data', (chunk: Buffer) => err.push(chunk));
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (status, signal) => {
      resolve({ status, signal, stdout: Buffer.concat(out).toString(), stderr: Buffer.concat(err).toString() });
    });
  });
}
