import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Entry, readTree } from '../../lib/lab/cpio.ts';
import { PROJECT_ROOT } from '../../lib/lab/project.ts';

/** Installed packages, and all that they depend on, by name. */
export async function packageClosure(names: readonly string[]): Promise<string[]> {
  const found = new Set<string>();
  const visit = async (name: string): Promise<void> => {
    if (found.has(name)) return;
    found.add(name);
    const manifest = JSON.parse(await readFile(join(PROJECT_ROOT, 'node_modules', name, 'package.json'), 'utf8')) as {
      readonly dependencies?: Readonly<Record<string, string>>;
    };
    for (const dependency of Object.keys(manifest.dependencies ?? {})) await visit(dependency);
  };
  for (const name of names) await visit(name);
  return [...found].sort();
}

/** The JavaScript of installed packages, as entries below `node_modules`. */
export async function packageEntries(names: readonly string[]): Promise<Entry[]> {
  const trees = await Promise.all(
    names.map(async (name) => {
      const entries = await readTree(join(PROJECT_ROOT, 'node_modules', name), (path) =>
        /\.([cm]?js|json)$/.test(path),
      );
      return entries.map((entry) => ({ ...entry, path: `node_modules/${name}/${entry.path}` }));
    }),
  );
  return trees.flat();
}
