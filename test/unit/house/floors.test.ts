import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { wrongImports } from './floors.ts';
import { circlesOf, importsIn } from './imports.ts';

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));

describe('lib', () => {
  const imports = importsIn(ROOT, 'lib');

  it('has no import that runs up, or from one architecture to another', () => {
    expect(imports.size).toBeGreaterThan(100);
    expect(wrongImports(imports)).toEqual([]);
  });

  it('has no circle of imports', () => {
    expect(circlesOf(imports)).toEqual([]);
  });
});

describe('a house with', () => {
  const scratch = mkdtempSync(join(tmpdir(), 'kvm-bridge-house-'));
  afterAll(() => rmSync(scratch, { recursive: true }));
  let houses = 0;

  /** A project of these files, and what each of them imports. */
  function house(files: Readonly<Record<string, string>>) {
    const root = join(scratch, String(++houses));
    const options = { module: 'NodeNext', moduleResolution: 'NodeNext', rewriteRelativeImportExtensions: true };
    const all = { 'tsconfig.json': JSON.stringify({ compilerOptions: options }), ...files };
    for (const [path, text] of Object.entries(all)) {
      mkdirSync(dirname(join(root, path)), { recursive: true });
      writeFileSync(join(root, path), text);
    }
    return importsIn(root, 'lib');
  }

  const LEAF = 'export const x = 1;\nexport type X = number;\n';

  it.each([
    ['an import', "import { x } from '../handles/vm.ts'; export const y = x;"],
    ['an import of a type', "import type { X } from '../handles/vm.ts'; export type Y = X;"],
    ['an import of a type among others', "import { type X } from '../handles/vm.ts'; export type Y = X;"],
    ['a type that is imported where it stands', "export type Y = import('../handles/vm.ts').X;"],
    ['an export of what another has', "export * from '../handles/vm.ts';"],
    ['an import when it runs', "export const y = import('../handles/vm.ts');"],
  ])('%s that runs up is found, both files named', (_what, text) => {
    const imports = house({ 'lib/handles/vm.ts': LEAF, 'lib/memory/region.ts': text });
    expect(wrongImports(imports)).toEqual([
      'lib/memory/region.ts imports lib/handles/vm.ts, which is on a higher floor',
    ]);
  });

  it('an import between two architectures is found', () => {
    const text = "import { x } from '../../s390x/model/dat.ts'; export const y = x;";
    const imports = house({ 'lib/arch/s390x/model/dat.ts': LEAF, 'lib/arch/ppc64/handles/vm.ts': text });
    expect(wrongImports(imports)).toEqual([
      'lib/arch/ppc64/handles/vm.ts imports lib/arch/s390x/model/dat.ts, which is of another architecture',
    ]);
  });

  it.each([
    ['model', 'handles'],
    ['model', 'emulated'],
    ['handles', 'emulated'],
    ['emulated', 'handles'],
  ])('an import from the %s to the %s of an architecture is found', (from, to) => {
    const text = `import { x } from '../${to}/vm.ts'; export const y = x;`;
    const imports = house({ [`lib/arch/s390x/${to}/vm.ts`]: LEAF, [`lib/arch/s390x/${from}/keys.ts`]: text });
    expect(wrongImports(imports)).toEqual([
      `lib/arch/s390x/${from}/keys.ts imports lib/arch/s390x/${to}/vm.ts, and no ${from} may look into ${to}`,
    ]);
  });

  it("an architecture's part of the command line may look up to that, and nothing below the command line at it", () => {
    const imports = house({
      'lib/cli/arch/cli-arch.ts': LEAF,
      'lib/arch/s390x/handles/vm.ts': LEAF,
      'lib/arch/s390x/cli.ts':
        "export * from '../../cli/arch/cli-arch.ts'; export * from '../../handles/vcpu.ts'; export * from './handles/vm.ts';",
      'lib/arch/s390x/index.ts': "export * from './cli.ts';",
      'lib/arch/ppc64/cli.ts': "export * from '../s390x/handles/vm.ts';",
      'lib/handles/vcpu.ts': "export * from '../arch/s390x/cli.ts';",
    });
    expect(wrongImports(imports)).toEqual([
      'lib/arch/ppc64/cli.ts imports lib/arch/s390x/handles/vm.ts, which is of another architecture',
      'lib/arch/s390x/index.ts imports lib/arch/s390x/cli.ts, which is on a higher floor',
      'lib/handles/vcpu.ts imports lib/arch/s390x/cli.ts, which is on a higher floor',
    ]);
  });

  it('a circle is found, and what only leads into it is not of it', () => {
    const imports = house({
      'lib/memory/a.ts': "import type { B } from './b.ts'; export type A = B;",
      'lib/memory/b.ts': "import type { C } from './c.ts'; export type B = C;",
      'lib/memory/c.ts': "import type { A } from './a.ts'; import { x } from './leaf.ts'; export type C = A; x;",
      'lib/memory/leaf.ts': LEAF,
      'lib/memory/outside.ts': "import type { A } from './a.ts'; export type O = A;",
    });
    expect(circlesOf(imports)).toEqual([['lib/memory/a.ts', 'lib/memory/b.ts', 'lib/memory/c.ts']]);
  });

  it.each(['lib/attic/thing.ts', 'lib/arch/s390x/vm.ts'])('a file that belongs nowhere is found: %s', (path) => {
    const imports = house({ [path]: LEAF, 'lib/cli/main.ts': `import '${join('../..', path)}';` });
    expect(() => wrongImports(imports)).toThrow(path);
  });

  it('all imports downward or beside is left alone', () => {
    const imports = house({
      'lib/index.ts': "export * from './handles/vm.ts';",
      'lib/handles/vm.ts': "export * from '../arch/s390x/handles/vm.ts'; export * from './vcpu.ts';",
      'lib/handles/vcpu.ts': LEAF,
      'lib/arch/s390x/handles/vm.ts': "export * from '../rules.ts'; export * from '../../../memory/region.ts';",
      'lib/arch/s390x/rules.ts': "export * from './model/dat.ts';",
      'lib/arch/s390x/model/dat.ts': LEAF,
      'lib/memory/region.ts': "import { inspect } from 'node:util'; export const x = inspect;",
    });
    expect(wrongImports(imports)).toEqual([]);
    expect(circlesOf(imports)).toEqual([]);
  });
});
