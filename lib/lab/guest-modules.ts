import { readdir, readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { runCommand } from './command.ts';
import type { Entry } from './cpio.ts';
import { canonicalModuleName, dependenciesOf, withoutSignature } from './kernel-module.ts';
import { LabError } from './lab-error.ts';
import { patchS390xKvm } from './s390x-kvm-patch.ts';
import type { Variant } from './variants.ts';

/** Where the modules lie in the initramfs, named so that their order is that of loading. */
export const MODULES_FOLDER = 'lab/modules';

/** The kernel's modules that the variant loads, numbered in the order of loading. */
export async function guestModules(
  variant: Variant,
  kernelRoot: string,
  signal: AbortSignal | undefined,
  folder = MODULES_FOLDER,
): Promise<Entry[]> {
  const found = await readdir(kernelRoot, { recursive: true, withFileTypes: true });
  const files = new Map<string, string>();
  const builtIn = new Set<string>();
  for (const each of found) {
    const path = join(each.parentPath, each.name);
    const module = /^(.+)\.ko(\.xz)?$/.exec(each.name);
    if (module !== null) files.set(canonicalModuleName(module[1]!), path);
    if (each.name !== 'modules.builtin') continue;
    for (const line of (await readFile(path, 'utf8')).split('\n')) {
      builtIn.add(canonicalModuleName(basename(line, '.ko')));
    }
  }

  const loaded = new Map<string, Uint8Array>();
  const load = async (name: string): Promise<void> => {
    const key = canonicalModuleName(name);
    if (loaded.has(key) || builtIn.has(key)) return;
    const file = files.get(key);
    if (file === undefined) throw new LabError(`The kernel of ${variant.id} has no module ${name}.`);
    const raw = file.endsWith('.xz') ? await runCommand('xz', ['-dc', file], { signal }) : await readFile(file);
    const module = withoutSignature(raw);
    for (const dependency of dependenciesOf(module)) await load(dependency);
    const patch = key === 'kvm' && variant.machine.patchKvm === 's390x-without-sie';
    loaded.set(key, patch ? patchS390xKvm(module) : module);
  };
  for (const name of variant.machine.modules) await load(name);
  return [...loaded].map(([name, content], index) => {
    const path = `${folder}/${String(index).padStart(2, '0')}-${name}.ko`;
    return { path, kind: 'file', content };
  });
}
