import { spawn } from 'node:child_process';
import { closeSync, cpSync, mkdtempSync, openSync, rmSync, symlinkSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const vite = join(dirname(createRequire(import.meta.url).resolve('vite/package.json')), 'bin/vite.js');

export interface Ended {
  readonly status: number | null;
  readonly out: string;
  readonly err: string;
}

export interface RunOptions {
  readonly input?: string;
  readonly env?: NodeJS.ProcessEnv;
  /** Closed after the first that comes on it, as `head -1` does. */
  readonly closes?: 'stdout' | 'stderr';
  /** The file that is standard output; else it is read. */
  readonly stdout?: string;
}

/** The package as users get it, built from the sources as they are now, in a folder of its own. */
export class BuiltPackage {
  readonly folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-'));

  async build(): Promise<void> {
    for (const name of ['package.json', 'examples', 'README.md', 'docs']) {
      cpSync(join(root, name), join(this.folder, name), { recursive: true });
    }
    // The addon is found in build/, its loader's dependencies in node_modules/.
    for (const name of ['node_modules', 'build']) symlinkSync(join(root, name), join(this.folder, name));
    const built = await run(root, [vite, 'build', '--logLevel', 'warn', '--outDir', join(this.folder, 'dist')]);
    if (built.status !== 0) throw new Error(`The package cannot be built:\n${built.out}${built.err}`);
  }

  /** Node on a script of the package. */
  node(args: readonly string[], options: RunOptions = {}) {
    return run(this.folder, args, options);
  }

  /** The command line. */
  cli(args: readonly string[], options: RunOptions = {}) {
    return this.node(['dist/cli/main.js', ...args], options);
  }

  remove(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

function run(
  cwd: string,
  args: readonly string[],
  { input = '', env = {}, closes, stdout }: RunOptions = {},
): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const file = stdout === undefined ? undefined : openSync(stdout, 'w');
    const child = spawn(process.execPath, args, {
      cwd,
      env: { ...process.env, NO_COLOR: '1', ...env },
      stdio: ['pipe', file ?? 'pipe', 'pipe'],
    });
    if (file !== undefined) closeSync(file);
    const [out, err]: [Buffer[], Buffer[]] = [[], []];
    child.stdout?.on('data', (chunk: Buffer) => out.push(chunk));
    child.stderr!.on('data', (chunk: Buffer) => err.push(chunk));
    if (closes !== undefined) child[closes]!.once('data', () => child[closes]!.destroy());
    child.on('error', reject);
    child.on('close', (status) => {
      resolve({ status, out: Buffer.concat(out).toString(), err: Buffer.concat(err).toString() });
    });
    // A child that has ended before it read everything is no failure here.
    child.stdin!.on('error', () => {});
    child.stdin!.end(input);
  });
}
