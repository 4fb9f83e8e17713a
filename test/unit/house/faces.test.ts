import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { importsIn } from './imports.ts';

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));

/** What the package exports. */
const FACES = new Set(['lib/index.ts', 'lib/raw.ts', 'lib/arch/s390x/model/index.ts', 'lib/arch/ppc64/model/index.ts']);

it.each(['handles', 'memory', 'arch/s390x/handles', 'arch/ppc64/handles'])('tests of %s see what users see', (room) => {
  const imports = importsIn(ROOT, `test/unit/${room}`);
  expect(imports.size).toBeGreaterThan(0);
  const inner = [...imports].flatMap(([file, targets]) =>
    targets.filter((to) => to.startsWith('lib/') && !FACES.has(to)).map((to) => `${file} imports ${to}`),
  );
  expect(inner).toEqual([]);
});
