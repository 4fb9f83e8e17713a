import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The repository, wherever this was compiled to. */
const ROOT = (() => {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'binding.gyp'))) folder = dirname(folder);
  return folder;
})();
const probe = spawnSync('cc', ['--version']);

/** Why nothing can be compiled here; undefined when it can. */
export const compilerMissing =
  probe.error === undefined && probe.status === 0 ? undefined : 'there is no C compiler (cc) here';

/** Compiles one of the programs of a folder with the package's header, strictly; it is there until it is removed. */
export function compile(
  name: string,
  flags: readonly string[] = ['-std=c11'],
  sources = 'test/unit/sharing/c',
): { path: string; remove(): void } {
  const folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-c-'));
  const path = join(folder, 'program');
  const source = join(ROOT, sources, `${name}.c`);
  const warnings = ['-Wall', '-Wextra', '-Wpedantic', '-Werror'];
  const { status, stderr } = spawnSync('cc', [
    ...flags,
    '-O1',
    ...warnings,
    '-I',
    join(ROOT, 'native/include'),
    '-o',
    path,
    source,
  ]);
  if (status !== 0) throw new Error(`cc: ${stderr}`);
  return { path, remove: () => rmSync(folder, { recursive: true }) };
}
