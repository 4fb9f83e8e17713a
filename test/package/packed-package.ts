import { spawn } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT = fileURLToPath(new URL('../../', import.meta.url));

export interface Ended {
  readonly status: number | null;
  /** Standard output and standard error, as they came. */
  readonly text: string;
}

/** Runs a program to its end. */
export function run(cwd: string, program: string, args: readonly string[], env: NodeJS.ProcessEnv = {}) {
  return new Promise<Ended>((resolve, reject) => {
    const child = spawn(program, args, {
      cwd,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, NO_COLOR: '1', ...env },
    });
    const chunks: Buffer[] = [];
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    child.on('error', reject);
    child.on('close', (status) => resolve({ status, text: Buffer.concat(chunks).toString() }));
  });
}

async function must(what: Promise<Ended>): Promise<string> {
  const { status, text } = await what;
  if (status !== 0) throw new Error(text);
  return text;
}

const SHIPPED = ['package.json', 'README.md', 'LICENSE', 'binding.gyp', 'native', 'lib', 'docs', 'examples'];
/** What npm would install beside it. */
const DEPENDENCIES = ['bindings', 'file-uri-to-path', 'node-addon-api', '@types/node', 'undici-types'];

/** The package as npm packs it from the present sources, installed for an application of its own. */
export class PackedPackage {
  readonly #scratch = mkdtempSync(join(tmpdir(), 'kvm-bridge-packed-'));
  /** The application's folder. */
  readonly app = join(this.#scratch, 'app');
  readonly tarball = join(this.#scratch, 'kvm-bridge-0.0.0.tgz');
  readonly installed = join(this.app, 'node_modules', 'kvm-bridge');

  /** @param platforms of the prebuilt addons that it holds */
  async make(platforms: readonly string[]): Promise<void> {
    await must(run(ROOT, process.execPath, ['native/prebuild.mjs', ...platforms]));
    const stage = join(this.#scratch, 'stage');
    for (const name of SHIPPED) cpSync(join(ROOT, name), join(stage, name), { recursive: true });
    for (const platform of platforms) {
      cpSync(join(ROOT, 'prebuilds', platform), join(stage, 'prebuilds', platform), { recursive: true });
    }
    await must(run(ROOT, process.execPath, ['build.mjs', join(stage, 'dist')]));
    await must(run(stage, 'npm', ['version', '0.0.0', '--no-git-tag-version', '--ignore-scripts']));
    await must(run(stage, 'npm', ['pack', '--ignore-scripts', '--pack-destination', this.#scratch]));
    await this.install();
  }

  /** Installs it anew, as it was packed; without its scripts. */
  async install(): Promise<void> {
    rmSync(this.installed, { recursive: true, force: true });
    mkdirSync(this.installed, { recursive: true });
    await must(run(this.app, 'tar', ['-xzf', this.tarball, '-C', this.installed, '--strip-components=1']));
    for (const name of DEPENDENCIES) {
      const link = join(this.app, 'node_modules', name);
      rmSync(link, { force: true });
      mkdirSync(dirname(link), { recursive: true });
      symlinkSync(join(ROOT, 'node_modules', name), link);
    }
  }

  /** Node in the application's folder. */
  node(args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Ended> {
    return run(this.app, process.execPath, args, env);
  }

  /** The package's install script. */
  runInstallScript(env: NodeJS.ProcessEnv = {}): Promise<Ended> {
    return run(this.installed, process.execPath, ['native/install.mjs'], env);
  }

  remove(): void {
    rmSync(this.#scratch, { recursive: true, force: true });
  }
}
