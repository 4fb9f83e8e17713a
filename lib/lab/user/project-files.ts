import { existsSync } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import { builtinModules } from 'node:module';
import { basename, dirname, join, relative, resolve, sep } from 'node:path';
import { type Entry, readEntry, readTree } from '../cpio.ts';
import { LabError } from '../lab-error.ts';
import { findPackage, packageEntries } from '../node-packages.ts';

/** What there is room for beside Node: the machine's memory holds it all. */
const MOST_BYTES = 16 * 1024 ** 2;

const STAYS_HERE = /(^|\/)(node_modules|\.git)(\/|$)/;

/** A user's files, and where they lie in the guest. */
export interface ProjectFiles {
  /** The folder on this machine that goes along. */
  readonly root: string;
  /** The same in the guest. */
  readonly home: string;
  /** Where Node is started there. */
  readonly folder: string;
}

/**
 * Which folder goes along: the package that the script is part of, else the folder it lies in; without a script, the package of the
 * current folder.
 */
export function projectOf(cwd: string, script: string | undefined): ProjectFiles {
  const start = script === undefined ? cwd : dirname(resolve(cwd, script));
  const root = nearestPackage(start) ?? start;
  // No character that a shell has to be told of.
  const home = `/home/${basename(root).replaceAll(/[^\w.-]/g, '_') || 'project'}`;
  return { root, home, folder: inGuest({ root, home }, isInside(root, cwd) ? cwd : start) };
}

function nearestPackage(start: string): string | undefined {
  for (let folder = start; ; folder = dirname(folder)) {
    if (existsSync(join(folder, 'package.json'))) return folder;
    if (dirname(folder) === folder) return undefined;
  }
}

export function isInside(folder: string, path: string): boolean {
  return path === folder || path.startsWith(folder.endsWith(sep) ? folder : folder + sep);
}

/** The place in the guest of a path inside the project. */
export function inGuest({ root, home }: Pick<ProjectFiles, 'root' | 'home'>, path: string): string {
  return join(home, relative(root, path));
}

/**
 * The files of a project, and of the packages that they import, with paths from its root. Left out are node_modules, but for those packages,
 * and .git.
 *
 * @param only files and folders, where not all are to go along
 * @throws LabError if one of them is not in the project, or all are too large together
 */
export async function projectEntries(root: string, only: readonly string[] | undefined): Promise<Entry[]> {
  const wanted = only?.map((path) => relative(root, path));
  for (const [index, path] of (wanted ?? []).entries()) {
    if (path.startsWith('..') || !existsSync(join(root, path)))
      throw new LabError(`${only![index]} is not a file or folder in ${root}.`);
  }
  const keep = (path: string) =>
    !STAYS_HERE.test(path) && (wanted === undefined || wanted.some((each) => each === '' || isInside(each, path)));
  await checkSizes(root, keep);
  const files = await readTree(root, keep);
  const imported = await importedPackages(root, files);
  return [...files, ...(await packageEntries(imported, root))];
}

/** Before anything is read: it may be somebody's whole home. */
async function checkSizes(root: string, keep: (path: string) => boolean): Promise<void> {
  let sum = 0;
  const folders = [root];
  for (let folder = folders.pop(); folder !== undefined; folder = folders.pop()) {
    for (const each of await readdir(folder, { withFileTypes: true })) {
      const path = join(folder, each.name);
      if (each.isDirectory() && !STAYS_HERE.test(each.name)) folders.push(path);
      if (!each.isFile() || !keep(relative(root, path))) continue;
      sum += (await stat(path)).size;
      if (sum <= MOST_BYTES) continue;
      throw new LabError(
        `The files in ${root} are more than the ${MOST_BYTES / 1024 ** 2} MiB that a lab takes along: name those that the script needs with --files.`,
      );
    }
  }
}

const IMPORT = /\b(?:from|import|require)\s*\(?\s*['"]((?:@[^'"/]+\/)?[^'"./][^'"/]*)[^'"]*['"]/g;

/** The installed packages that files import by name; kvm-bridge goes along in its own way. */
async function importedPackages(root: string, files: readonly Entry[]): Promise<string[]> {
  const names = new Set<string>();
  for (const file of files) {
    if (file.kind !== 'file' || !/\.[cm]?[jt]s$/.test(file.path)) continue;
    for (const [, name] of Buffer.from(file.content).toString().matchAll(IMPORT)) names.add(name!);
  }
  for (const name of ['kvm-bridge', 'vitest', ...builtinModules]) names.delete(name);
  const found: string[] = [];
  for (const name of names) {
    if (name.startsWith('node:') || (await findPackage(name, root)) === undefined) continue;
    found.push(name);
  }
  return found;
}

/** This package as it is installed, with the addon of the guest's architecture: what running it takes, with paths below its folder. */
export async function ownEntries(packageRoot: string, platform: string): Promise<Entry[]> {
  const checks = (await import(join(packageRoot, 'native/prebuilt/prebuilds.mjs'))) as {
    readonly whyNot: (root: string, platform: string) => string | undefined;
  };
  const flaw = checks.whyNot(packageRoot, platform);
  if (flaw !== undefined) {
    throw new LabError(
      `The prebuilt addon for ${platform} cannot be used: ${flaw}. In a checkout: npm run build:prebuilds`,
    );
  }
  if (!existsSync(join(packageRoot, 'dist/lab/agent.js'))) throw new LabError('dist/ is not there: npm run build');
  const dist = await readTree(join(packageRoot, 'dist'), (path) => path.endsWith('.js') || path === 'cjs/package.json');
  const addon = `prebuilds/${platform}/kvm_bridge.node`;
  return [
    await readEntry(join(packageRoot, 'package.json'), 'package.json'),
    await readEntry(join(packageRoot, addon), addon),
    ...dist.map((entry) => ({ ...entry, path: `dist/${entry.path}` })),
    ...(await packageEntries(['bindings'], packageRoot)),
  ];
}
