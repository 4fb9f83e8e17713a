import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { isVitestFile, vitestEntries, withoutTypes } from '../../../../lib/lab/user/vitest-files.ts';
import { BuiltPackage } from '../../cli/built-package.ts';

const ROOT = fileURLToPath(new URL('../../../../', import.meta.url));
const { AREAS }: { AREAS: readonly { readonly tests: RegExp }[] } = await import(
  new URL('../../../mutate/areas.mjs', import.meta.url).href
);
const built = new BuiltPackage();
/** The files as a guest has them, on this machine. */
const home = mkdtempSync(join(tmpdir(), 'kvm-bridge-vitest-'));

function write(path: string, content: string | Uint8Array): void {
  mkdirSync(dirname(join(home, path)), { recursive: true });
  writeFileSync(join(home, path), content);
}

beforeAll(async () => {
  await built.build();
  for (const entry of await vitestEntries(ROOT)) if (entry.kind === 'file') write(entry.path, entry.content);
  symlinkSync(built.folder, join(home, 'node_modules/kvm-bridge'));
}, 120_000);
afterAll(() => {
  built.remove();
  rmSync(home, { recursive: true });
});

function runTests(...files: readonly string[]) {
  // As in a guest, where nothing is a link.
  const options = ['--preserve-symlinks', '--preserve-symlinks-main'];
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [...options, join(home, 'node_modules/kvm-bridge/dist/lab/run-vitest.js'), ...files],
    { cwd: home, encoding: 'utf8', env: { ...process.env, NO_COLOR: '1', VITEST: undefined } },
  );
  return { status, out: stdout.replaceAll(/ {2}\d+ ms$/gm, ''), err: stderr };
}

describe('tests of vitest in a lab', { timeout: 60_000 }, () => {
  it('run with the runner and the matchers of vitest, and the status is 0', () => {
    write(
      'good.test.mjs',
      `import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Kvm } from 'kvm-bridge';
let seen = [];
beforeEach(() => { seen.push('before'); });
afterEach(() => { seen.push('after'); });
describe('memory', () => {
  it.each([[1], [2]])('of %i pages', async (pages) => {
    const kvm = Kvm.open({ arch: 's390x' });
    expect(kvm.mapAnonymous(pages << 20).size).toBe(pages << 20);
    expect(kvm).toMatchObject({ arch: 's390x' });
  });
  it('had its hooks', () => expect(seen).toEqual(['before', 'after', 'before', 'after', 'before']));
  it.skip('not this', () => { throw new Error('it ran'); });
});
`,
    );
    expect(runTests('good.test.mjs')).toEqual({
      status: 0,
      out: `good.test.mjs
  passed   memory > of 1 pages
  passed   memory > of 2 pages
  passed   memory > had its hooks
  skipped  memory > not this
3 passed, 0 failed, 1 skipped
`,
      err: '',
    });
  });

  it('tell what failed with its difference and place, also a file that cannot be loaded', () => {
    write(
      'bad.test.mjs',
      `import { expect, it } from 'vitest';
it('adds', () => {
  expect({ sum: 1 + 1 }).toEqual({ sum: 3 });
});
it('goes on', () => {});
`,
    );
    write('broken.test.mjs', "import { it } from 'vitest';\nthrow new Error('not today');\n");
    const { status, out } = runTests('bad.test.mjs', 'broken.test.mjs');
    expect(status).toBe(1);
    expect(out).toMatch(/^ {2}failed {3}adds\n {5}expected \{ sum: 2 \} to deeply equal \{ sum: 3 \}$/m);
    expect(out).toMatch(/bad\.test\.mjs:3:/);
    expect(out).toContain('  passed   goes on\n');
    expect(out).toContain('not today');
    expect(out).toMatch(/^1 passed, 2 failed, 0 skipped$/m);
  });

  it('poll what takes a while, and tell where they gave up', () => {
    write(
      'poll.test.mjs',
      `import { expect, it } from 'vitest';
it('comes to it', async () => {
  let calls = 0;
  const called = () => { if (++calls < 3) throw new Error('not yet'); return Promise.resolve(calls); };
  expect(await expect.poll(called, { interval: 1 }).not.toBeLessThan(5)).toBeUndefined();
  expect(calls).toBe(5);
  await expect.poll(() => calls).toBe(5);
});
it('gives up', async () => {
  let calls = 0;
  await expect.poll(() => calls++, { interval: 1, timeout: 20, message: 'less than nothing' }).toBeLessThan(0);
});
it('says what it got where it was thrown', () => expect.poll(() => { throw 'a string'; }, { timeout: 0 }).toBe(0));
it('is nothing to wait for', async () => expect(typeof await expect.poll(() => 0)).toBe('function'));
`,
    );
    const { status, out } = runTests('poll.test.mjs');
    expect(status).toBe(1);
    expect(out).toContain('  passed   comes to it\n');
    expect(out).toMatch(/^ {2}failed {3}gives up\n {5}less than nothing: expected \d+ to be less than 0$/m);
    expect(out).toMatch(/poll\.test\.mjs:11:/);
    expect(out).toMatch(/^ {2}failed {3}says what it got where it was thrown\n {5}a string$/m);
    expect(out).toMatch(/^2 passed, 2 failed, 0 skipped$/m);
  });

  it('may spy', () => {
    write(
      'spies.test.mjs',
      `import { afterEach, expect, it, vi } from 'vitest';
afterEach(() => { vi.restoreAllMocks(); });
const memory = { read: () => 1 };
it('on what is called', () => {
  const read = vi.spyOn(memory, 'read').mockReturnValue(2);
  expect(memory.read(0x1000)).toBe(2);
  expect(read).toHaveBeenCalledExactlyOnceWith(0x1000);
  expect(vi.isMockFunction(memory.read)).toBe(true);
});
it('until the test is over', () => expect(memory.read()).toBe(1));
`,
    );
    expect(runTests('spies.test.mjs')).toMatchObject({ status: 0 });
  });

  it('have all that the tests have need of that run in a guest, or on mutants, here', () => {
    const script = `import * as vitest from 'vitest';
const { expect, vi } = vitest;
console.log(JSON.stringify({ vitest: Object.keys(vitest), expect: Object.keys(expect), vi: Object.keys(vi) }));
`;
    write('names.mjs', script);
    const { stdout } = spawnSync(process.execPath, [join(home, 'names.mjs')], { encoding: 'utf8' });
    const there = JSON.parse(stdout) as Record<'vitest' | 'expect' | 'vi', string[]>;
    const missing = readdirSync(join(ROOT, 'test'), { recursive: true, encoding: 'utf8' })
      .filter(
        (path) => /^(unit\/arch|property)\/.*\.test\.ts$/.test(path) || AREAS.some(({ tests }) => tests.test(path)),
      )
      .flatMap((path) => {
        const source = readFileSync(join(ROOT, 'test', path), 'utf8');
        const imported = /^import \{([^}]*)\} from 'vitest';$/m.exec(source)?.[1] ?? '';
        const names = imported.split(',').flatMap((name) => name.trim() || []);
        const used = [...source.matchAll(/(?<![\w.])(expect|vi)\s*\.(\w+)/g)];
        return [
          ...names.filter((name) => !/^type /.test(name) && !there.vitest.includes(name)),
          ...used.filter(([, of, name]) => !there[of as 'expect' | 'vi'].includes(name!)).map(([text]) => text),
        ].map((name) => `${path}: ${name}`);
      });
    expect(missing).toEqual([]);
  });

  it('fail where there is none', () => {
    write('none.test.mjs', "import 'vitest';\n");
    expect(runTests('none.test.mjs')).toMatchObject({ status: 1 });
  });

  it('may be TypeScript where this Node takes types away, and is refused where it does not', () => {
    const source = "import { expect, it } from 'vitest';\nit('has types', () => expect(1 as number).toBe(1));\n";
    const entry = { path: 'typed.test.ts', kind: 'file', content: Buffer.from(source) } as const;
    const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
    if (major < 22 || (major === 22 && minor < 13)) {
      expect(() => withoutTypes(entry)).toThrow(/^typed\.test\.ts is TypeScript: Node v.* takes no types away/);
      return;
    }
    const stripped = withoutTypes(entry);
    expect(stripped).toMatchObject({ path: 'typed.test.ts', kind: 'file' });
    const content = Buffer.from((stripped as { readonly content: Uint8Array }).content).toString();
    expect(content).toContain('expect(1          ).toBe(1)');
    write('typed.test.ts', content);
    expect(runTests('typed.test.ts')).toMatchObject({ status: 0 });
    expect(() => withoutTypes({ ...entry, content: Buffer.from('enum E { A }') })).toThrow(/^typed\.test\.ts: /);
  });

  it('are known by what they import', () => {
    expect(isVitestFile("import { it } from 'vitest';")).toBe(true);
    expect(isVitestFile("import test from 'node:test'; // from vitest to this")).toBe(false);
  });

  it('want vitest to be installed', async () => {
    await expect(vitestEntries(home.replace(/[^/]*$/, ''))).rejects.toThrow(
      /^The script imports vitest, which is not installed in /,
    );
  });
});
