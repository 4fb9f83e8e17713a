import { existsSync } from 'node:fs';
import { readFile, realpath } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { type Entry, readTree } from './cpio.ts';
import { LabError } from './lab-error.ts';

/** The folder of an installed package as Node finds it from another folder, or undefined. */
export async function findPackage(name: string, from: string): Promise<string | undefined> {
  for (let folder = from; ; folder = dirname(folder)) {
    const found = join(folder, 'node_modules', name);
    if (existsSync(join(found, 'package.json'))) return realpath(found);
    if (dirname(folder) === folder) return undefined;
  }
}

interface Wanted {
  readonly name: string;
  /** Whence it is looked for. */
  readonly from: string;
  /** The folder, in the new tree, of what wants it. */
  readonly by: string;
}

/**
 * The JavaScript of installed packages and of all that they depend on, as entries below `node_modules`: each package once, except where two
 * versions of it are wanted.
 *
 * @param from the folder from which they are looked for
 * @throws LabError for one that is not installed; what it depends on may be absent, as optional packages are
 */
export async function packageEntries(names: readonly string[], from: string): Promise<Entry[]> {
  /** The folder of each package by its path in the new tree. */
  const placed = new Map<string, string>();
  const wanted: Wanted[] = names.map((name) => ({ name, from, by: '' }));
  for (let next = wanted.shift(); next !== undefined; next = wanted.shift()) {
    const { name, by } = next;
    const folder = await findPackage(name, next.from);
    if (folder === undefined && by !== '') continue;
    if (folder === undefined) throw new LabError(`The package ${name} is not installed in ${from} or above it.`);
    const top = `node_modules/${name}`;
    const place = (placed.get(top) ?? folder) === folder ? top : `${by}/${top}`;
    if (placed.has(place)) continue;
    placed.set(place, folder);
    for (const dependency of await dependenciesOf(folder)) wanted.push({ name: dependency, from: folder, by: place });
  }
  const trees = [...placed].map(async ([place, folder]) => {
    const scripts = await readTree(folder, (path) => /\.([cm]?js|json)$/.test(path) && !/^node_modules\//.test(path));
    return scripts.map((entry) => ({ ...entry, path: `${place}/${entry.path}` }));
  });
  return (await Promise.all(trees)).flat();
}

async function dependenciesOf(folder: string): Promise<string[]> {
  const manifest = JSON.parse(await readFile(join(folder, 'package.json'), 'utf8')) as {
    readonly dependencies?: Readonly<Record<string, string>>;
  };
  return Object.keys(manifest.dependencies ?? {});
}
