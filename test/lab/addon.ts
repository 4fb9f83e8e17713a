import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rename, rm } from 'node:fs/promises';
import { homedir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { runCommand } from './command.ts';
import { readGypTarget } from './gyp.ts';
import { LabError } from './lab-error.ts';
import { PROJECT_ROOT } from './project.ts';
import type { Machine } from './variants.ts';

const FLAGS = ['-std=c++17', '-O2', '-fPIC', '-fvisibility=hidden', '-Wall', '-Wextra', '-Werror', '-pthread'];

export interface AddonOptions {
  readonly cache: string;
  readonly onProgress: (line: string) => void;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Compiles the addon for a lab's machine with its cross compiler, or finds it in the cache. Must be called with the cache's
 * lock held.
 *
 * @returns the path of the compiled addon
 */
export async function prepareAddon(machine: Machine, options: AddonOptions): Promise<string> {
  const gyp = await readFile(join(PROJECT_ROOT, 'binding.gyp'), 'utf8');
  const target = readGypTarget(gyp);
  const compiler = `${machine.triplet}-g++`;
  const compile = [
    ...FLAGS,
    ...[...target.defines, `NODE_GYP_MODULE_NAME=${target.name}`].map((each) => `-D${each}`),
    // As system headers: their warnings are not ours.
    ...['-isystem', nodeHeaders(), '-isystem', join(PROJECT_ROOT, 'node_modules/node-addon-api')],
    ...target.includeFolders.map((each) => `-I${join(PROJECT_ROOT, each)}`),
  ];

  const version = await runCommand(compiler, ['--version'], { signal: options.signal });
  const digest = await digestOf([version, gyp, compile.join('\0')], join(PROJECT_ROOT, 'native'));
  const folder = join(options.cache, 'addon', machine.arch);
  const built = join(folder, digest, `${target.name}.node`);
  if (existsSync(built)) return built;

  options.onProgress(`compiling the addon for ${machine.arch}`);
  await mkdir(folder, { recursive: true });
  const work = await mkdtemp(join(folder, 'building-'));
  try {
    const objects = target.sources.map((source) => join(work, `${basename(source)}.o`));
    await Promise.all(
      target.sources.map((source, index) =>
        runCommand(compiler, [...compile, '-c', join(PROJECT_ROOT, source), '-o', objects[index]!], options),
      ),
    );
    const product = join(work, basename(built));
    await runCommand(compiler, ['-shared', '-pthread', ...objects, '-o', product], options);
    await Promise.all(objects.map((object) => rm(object)));
    await removeOthers(folder, basename(work));
    await rename(work, dirname(built));
  } catch (error) {
    await rm(work, { recursive: true, force: true });
    throw error;
  }
  return built;
}

/** The folder of node_api.h: Node-API is the same for every architecture and version that we support. */
function nodeHeaders(): string {
  const roots = [
    process.env.npm_config_nodedir,
    join(dirname(process.execPath), '..'),
    join(homedir(), '.cache/node-gyp', process.versions.node),
    '/usr',
  ];
  const folders = roots.flatMap((root) => (root === undefined ? [] : [join(root, 'include/node')]));
  const found = folders.find((folder) => existsSync(join(folder, 'node_api.h')));
  if (found !== undefined) return found;
  throw new LabError(
    'The headers of Node are not on this machine; set npm_config_nodedir to a folder of Node, or sudo apt-get install libnode-dev.',
  );
}

async function digestOf(parts: readonly (string | Uint8Array)[], sources: string): Promise<string> {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part);
  for (const name of (await readdir(sources)).sort()) {
    if (/\.(cc|h)$/.test(name)) hash.update(name).update(await readFile(join(sources, name)));
  }
  return hash.digest('hex').slice(0, 16);
}

/** Removes what was compiled from other sources; a lab that runs has its own copy. */
async function removeOthers(folder: string, kept: string): Promise<void> {
  for (const name of await readdir(folder)) {
    if (name !== kept) await rm(join(folder, name), { recursive: true, force: true });
  }
}
