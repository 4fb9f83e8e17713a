import { createHash } from 'node:crypto';
import { setMaxListeners } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, readdir, readFile, rename, rm } from 'node:fs/promises';
import { availableParallelism, homedir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { checkRoom } from '../../lib/lab/cache.ts';
import { runCommand } from '../../lib/lab/command.ts';
import type { HostTool } from '../../lib/lab/host-tools.ts';
import { LabError } from '../../lib/lab/lab-error.ts';
import { PROJECT_ROOT } from '../../lib/lab/project.ts';
import type { Machine } from '../../lib/lab/variants.ts';
import { readGypTarget } from './gyp.ts';

/** What compiling needs on the disk, several times over. */
const ROOM = 32 * 1024 ** 2;

const FLAGS = ['-O2', '-fPIC', '-pthread', '-Werror'];

/** The cross compiler for a machine's addon. */
export function compilerOf({ triplet, compilerPackages }: Machine): HostTool {
  return { needs: `${triplet}-g++`, packages: compilerPackages };
}

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
  const target = readGypTarget(join(PROJECT_ROOT, 'binding.gyp'), (path) => readFileSync(path, 'utf8'));
  const compiler = `${machine.triplet}-g++`;
  const compile = [
    ...FLAGS,
    ...target.compilerFlags,
    ...[...target.defines, `NODE_GYP_MODULE_NAME=${target.name}`].map((each) => `-D${each}`),
    // As system headers: their warnings are not ours.
    ...['-isystem', nodeHeaders(), '-isystem', join(PROJECT_ROOT, 'node_modules/node-addon-api')],
    ...target.includeFolders.map((each) => `-I${each}`),
  ];
  const link = ['-shared', '-pthread', ...target.linkerFlags];

  const version = await runCommand(compiler, ['--version'], { signal: options.signal });
  // The same from every checkout.
  const how = JSON.stringify([target, compile, link]).replaceAll(PROJECT_ROOT, '.');
  const digest = await digestOf([version, how], join(PROJECT_ROOT, 'native'));
  const folder = join(options.cache, 'addon', machine.arch);
  const built = join(folder, digest, `${target.name}.node`);
  if (existsSync(built)) return built;

  await checkRoom(options.cache, ROOM);
  options.onProgress(`compiling the addon for ${machine.arch}`);
  await rm(folder, { recursive: true, force: true }); // What was compiled from other sources; a lab that runs has its own copy.
  const work = join(folder, 'building');
  await mkdir(work, { recursive: true });
  try {
    const objects = target.sources.map((source) => join(work, `${basename(source)}.o`));
    await runAll(
      target.sources.map((source, index) => [compiler, ...compile, '-c', source, '-o', objects[index]!] as const),
      options.signal,
    );
    const product = join(work, basename(built));
    await runCommand(compiler, [...link, ...objects, '-o', product], options);
    await Promise.all(objects.map((object) => rm(object)));
    await rename(work, dirname(built));
  } catch (error) {
    await rm(work, { recursive: true, force: true });
    throw error;
  }
  return built;
}

/** Runs as many of the commands at once as there are processors; the first failure ends the others. */
async function runAll(commands: readonly (readonly [string, ...string[]])[], outer?: AbortSignal): Promise<void> {
  const stop = new AbortController();
  const signal = outer === undefined ? stop.signal : AbortSignal.any([outer, stop.signal]);
  setMaxListeners(availableParallelism() + 1, signal);
  const queue = [...commands];
  const worker = async () => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      const [command, ...args] = next;
      await runCommand(command, args, { signal });
    }
  };
  const workers = Array.from({ length: availableParallelism() }, async () => {
    try {
      await worker();
    } catch (error) {
      stop.abort(error); // What the others throw from now on is this.
      throw error;
    }
  });
  const failed = (await Promise.allSettled(workers)).find((each) => each.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
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
