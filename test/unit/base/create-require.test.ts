import { readdirSync, readFileSync } from 'node:fs';
import { createRequire as named } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, expect, it, vi } from 'vitest';
import { createRequire } from '../../../lib/base/create-require.ts';
import { lazyModules } from '../../../lib/base/lazy-modules.ts';

const LIB = join(fileURLToPath(new URL('.', import.meta.url)), '../../../lib');

afterEach(() => {
  vi.unstubAllGlobals();
  vi.resetModules();
});

it("is Node's own, also of a Node that has no process.getBuiltinModule", async () => {
  expect(createRequire(import.meta.url)('node:path')).toHaveProperty('join');
  expect(lazyModules.crypto.createHash('sha256').update('').digest('hex')).toMatch(/^e3b0c442/);
  vi.stubGlobal('process', Object.create(process, { getBuiltinModule: { value: undefined } }));
  vi.resetModules();
  const old = await import('../../../lib/base/create-require.ts');
  expect(old.createRequire).toBe(named);
  const { lazyModules: lazy } = await import('../../../lib/base/lazy-modules.ts');
  expect(lazy.stream.Readable).toBe(lazyModules.stream.Readable);
});

it('is called by its name nowhere but with `import.meta.url`: webpack has it undefined', () => {
  const named = readdirSync(LIB, { recursive: true, encoding: 'utf8' }).filter((path) => {
    if (!path.endsWith('.ts') || path.endsWith('create-require.ts')) return false;
    const source = readFileSync(join(LIB, path), 'utf8');
    return source.includes("from 'node:module'") && /createRequire\((?!import\.meta\.url\))/.test(source);
  });
  expect(named).toEqual([]);
});
