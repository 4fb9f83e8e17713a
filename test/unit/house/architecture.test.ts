import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));

/** Where riscv64 is named outside of its folder: what a new architecture needs, and what it may have (CONTRIBUTING.md). */
const NEEDED = ['lib/arch/folders.ts', 'lib/uapi/arch.ts', 'native/addon.gypi', 'native/riscv64.cc'];
const BESIDE = [
  'lib/cli/arch/index.ts',
  'lib/cli/tour/index.ts',
  'lib/handles/vcpu.ts',
  'lib/index.ts',
  'lib/lab/variants.ts',
  'native/prebuilt/glibc_2_28.cc',
  'native/prebuilt/prebuilds.mjs',
];

const isSource = (file: string): boolean =>
  /\.(ts|cc|h|gypi?|mjs)$/.test(file) && !file.startsWith('lib/arch/riscv64/');

/** Without whole lines of comments. */
const codeOf = (file: string): string =>
  readFileSync(join(ROOT, file), 'utf8')
    .split('\n')
    .filter((line) => !/^\s*(\/?\*|\/\/)/.test(line))
    .join('\n');

it('an architecture is a folder, a row of facts and a line; what else names it is written down', () => {
  const files = ['lib', 'native']
    .flatMap((folder) =>
      readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' }).map((f) => join(folder, f)),
    )
    .filter(isSource);
  expect(files.length).toBeGreaterThan(300);
  const naming = files.filter((file) => /riscv(64\b|\) && __riscv_xlen == 64)/i.test(codeOf(file)));
  expect(naming.sort()).toEqual([...NEEDED, ...BESIDE].sort());
});
