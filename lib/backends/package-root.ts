import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createRequire } from '../base/create-require.ts';

const NAME = 'kvm-bridge';

/** Only in a CommonJS bundle, where `import.meta.url` may be missing. */
declare const __filename: string | undefined;

/** The file that this code is in: one of ours, or somebody's bundle. */
export function thisFile(): string {
  const url: string | undefined = import.meta.url;
  if (url !== undefined) return fileURLToPath(url);
  return typeof __filename === 'string' ? __filename : join(process.cwd(), 'bundle.js');
}

/**
 * This package's folder: the one above this file, or where this code was bundled into another file, the installed package that
 * can be seen from there. Undefined where the bundle has moved away from it.
 */
export function packageRoot(from = thisFile()): string | undefined {
  for (let folder = dirname(from); ; folder = dirname(folder)) {
    if (isOurs(join(folder, 'package.json'))) return folder;
    if (dirname(folder) === folder) break;
  }
  try {
    return dirname(createRequire(from).resolve(`${NAME}/package.json`));
  } catch {
    return undefined;
  }
}

function isOurs(manifest: string): boolean {
  if (!existsSync(manifest)) return false;
  try {
    return (JSON.parse(readFileSync(manifest, 'utf8')) as { readonly name?: unknown } | null)?.name === NAME;
  } catch {
    return false;
  }
}
