import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const INCLUDE = fileURLToPath(new URL('../../../native/include', import.meta.url));
const probe = spawnSync('cc', ['--version']);

/** Why nothing can be compiled here; undefined when it can. */
export const compilerMissing =
  probe.error === undefined && probe.status === 0 ? undefined : 'there is no C compiler (cc) here';

/** Compiles C with the package's header, strictly; the program's path, until the function that comes with it is called. */
export function compile(source: string, flags: readonly string[] = ['-std=c11']): { path: string; remove(): void } {
  const folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-c-'));
  const path = join(folder, 'program');
  const warnings = ['-Wall', '-Wextra', '-Wpedantic', '-Werror'];
  const { status, stderr } = spawnSync('cc', [...flags, '-O1', ...warnings, '-I', INCLUDE, '-o', path, source]);
  if (status !== 0) throw new Error(`cc: ${stderr}`);
  return { path, remove: () => rmSync(folder, { recursive: true }) };
}
