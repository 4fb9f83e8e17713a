import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  closeSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
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

/** What was built is kept, each by the digest of all that it was made of. */
const kept = join(root, 'node_modules/.cache/kvm-bridge-built');
const MADE_OF = ['package.json', 'package-lock.json', 'tsconfig.json', 'vite.config.ts'];
const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

function digestOfSources(): string {
  const lib = readdirSync(join(root, 'lib'), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map(({ parentPath, name }) => join(parentPath, name))
    .sort();
  const digest = createHash('sha256').update(process.version);
  for (const path of [...MADE_OF.map((name) => join(root, name)), ...lib]) {
    const bytes = readFileSync(path);
    digest.update(`${relative(root, path)}:${bytes.length}:`).update(bytes);
  }
  return digest.digest('hex');
}

/** In milliseconds; 0 of what has just gone. */
function ageOf(name: string): number {
  const stats = statSync(join(kept, name), { throwIfNoEntry: false });
  return stats === undefined ? 0 : Date.now() - stats.mtimeMs;
}

/** Whoever was killed while it built is not waited for. */
const somebodyBuilds = (): boolean =>
  readdirSync(kept).some((name) => name.startsWith('making-') && ageOf(name) < MINUTE);

/** The folder of the modules of the sources as they are now, which are built unless they were. */
async function builtModules(): Promise<string> {
  const folder = join(kept, digestOfSources());
  if (existsSync(folder)) return folder;
  mkdirSync(kept, { recursive: true });
  while (somebodyBuilds()) {
    await sleep(50);
    if (existsSync(folder)) return folder;
  }
  // Two may begin at the same time all the same: what has its name is whole, and the first is as good as the last.
  const making = mkdtempSync(join(kept, 'making-'));
  const built = await run(root, [vite, 'build', '--logLevel', 'warn', '--outDir', making]);
  if (built.status !== 0) {
    rmSync(making, { recursive: true });
    throw new Error(`The package cannot be built:\n${built.out}${built.err}`);
  }
  if (join(kept, digestOfSources()) !== folder) throw new Error('The sources were changed while they were built');
  try {
    renameSync(making, folder);
  } catch (error) {
    if (!existsSync(folder)) throw error;
    rmSync(making, { recursive: true });
  }
  const old = readdirSync(kept).filter((name) => ageOf(name) > HOUR);
  for (const name of old) rmSync(join(kept, name), { recursive: true, force: true });
  return folder;
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
    cpSync(await builtModules(), join(this.folder, 'dist'), { recursive: true });
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
