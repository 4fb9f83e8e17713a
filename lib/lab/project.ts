import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The repository's root: the nearest folder above this file, compiled or not, with a package.json. */
export const PROJECT_ROOT = findRoot(dirname(fileURLToPath(import.meta.url)));

/** What was resolved of Debian's packages, for each part of a lab. */
export const LOCKS_FOLDER = join(PROJECT_ROOT, 'lib/lab/locks');

function findRoot(folder: string): string {
  if (existsSync(join(folder, 'package.json'))) return folder;
  const parent = dirname(folder);
  if (parent === folder) throw new Error('no package.json above the lab');
  return findRoot(parent);
}
