import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { vi } from 'vitest';
import { type Block, ROOT } from './blocks.ts';

/** What code imports, and where that is here. */
export const MODULES = {
  'kvm-bridge': 'lib/index.ts',
  'kvm-bridge/raw': 'lib/raw.ts',
  'kvm-bridge/s390x': 'lib/arch/s390x/model/index.ts',
  'kvm-bridge/ppc64': 'lib/arch/ppc64/model/index.ts',
  'kvm-bridge/vhost-user': 'lib/vhost-user/index.ts',
};

export interface Surroundings {
  /** A folder that files may be written to. */
  readonly scratch: string;
  /** What the text around the block has introduced, by name. */
  readonly globals: Readonly<Record<string, unknown>>;
  /** What the block says, and what is said in its place. */
  readonly instead?: Readonly<Record<string, string>>;
}

/** Runs a block, and gives what it printed. */
export async function runBlock(block: Block, { scratch, globals, instead = {} }: Surroundings): Promise<string[]> {
  const path = join(scratch, `${block.name.replaceAll(/\W/g, '-')}.ts`);
  const modules = Object.entries(MODULES).map(([name, file]) => [`'${name}'`, `'${join(ROOT, file)}'`] as const);
  const code = [...modules, ...Object.entries(instead)].reduce(
    (text, [said, here]) => text.replaceAll(said, here),
    block.code,
  );
  writeFileSync(path, code);
  const lines: string[] = [];
  for (const [name, value] of Object.entries(globals)) vi.stubGlobal(name, value);
  const log = vi.spyOn(console, 'log').mockImplementation((...args) => void lines.push(args.join(' ')));
  try {
    await import(/* @vite-ignore */ path);
  } finally {
    log.mockRestore();
    vi.unstubAllGlobals();
  }
  return lines;
}
