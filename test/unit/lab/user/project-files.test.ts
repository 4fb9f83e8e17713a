import { mkdirSync, mkdtempSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { inGuest, projectEntries, projectOf } from '../../../../lib/lab/user/project-files.ts';

const scratch = mkdtempSync(join(tmpdir(), 'kvm-bridge-project-'));
afterAll(() => rmSync(scratch, { recursive: true }));
let projects = 0;

function project(files: Readonly<Record<string, string>>): string {
  const root = join(scratch, `p ${++projects}`);
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  }
  return root;
}

const paths = async (root: string, only?: readonly string[]) =>
  (await projectEntries(root, only)).map(({ path }) => path).sort();

describe('what goes along with a script', () => {
  it('is its package, or without one its folder', () => {
    const root = project({ 'package.json': '{}', 'test/deep/a.mjs': '', 'lib/b.mjs': '' });
    const name = root.split('/').at(-1)!.replace(' ', '_');
    expect(projectOf(root, 'test/deep/a.mjs')).toEqual({ root, home: `/home/${name}`, folder: `/home/${name}` });
    expect(projectOf(join(root, 'lib'), undefined)).toMatchObject({ root, folder: `/home/${name}/lib` });
    expect(projectOf('/', join(root, 'lib/b.mjs'))).toMatchObject({ root, folder: `/home/${name}/lib` });
    expect(inGuest(projectOf(root, undefined), join(root, 'lib/b.mjs'))).toBe(`/home/${name}/lib/b.mjs`);
    const bare = project({ 'x/a.mjs': '' });
    expect(projectOf(scratch, join(bare, 'x/a.mjs'))).toMatchObject({ root: join(bare, 'x'), home: '/home/x' });
  });

  it('is every file but those of git, and of installed packages those that are imported, with what they depend on', async () => {
    const root = project({
      'package.json': '{}',
      'a.mjs':
        "import x from 'used'; import { y } from '@scope/used/part'; import 'absent'; import 'node:fs'; import './b.mjs';",
      'b.mjs': "const { z } = require('linked'); import { Kvm } from 'kvm-bridge';",
      'data/c.bin': 'c',
      '.git/config': '',
      'node_modules/used/package.json': '{ "dependencies": { "inner": "1" } }',
      'node_modules/used/index.js': '',
      'node_modules/used/addon.node': '',
      'node_modules/used/node_modules/inner/package.json': '{ "version": "2.0.0" }',
      'node_modules/inner/package.json': '{ "version": "1.0.0" }',
      'node_modules/@scope/used/package.json': '{ "dependencies": { "inner": "1" } }',
      'node_modules/unused/package.json': '{}',
      'node_modules/kvm-bridge/package.json': '{}',
      'store/linked/package.json': '{}',
    });
    symlinkSync('../store/linked', join(root, 'node_modules/linked'));
    expect(await paths(root)).toEqual([
      'a.mjs',
      'b.mjs',
      'data/c.bin',
      'node_modules/@scope/used/node_modules/inner/package.json',
      'node_modules/@scope/used/package.json',
      'node_modules/inner/package.json',
      'node_modules/linked/package.json',
      'node_modules/used/index.js',
      'node_modules/used/package.json',
      'package.json',
      'store/linked/package.json',
    ]);
  });

  it('can be some files and folders only', async () => {
    const root = project({ 'package.json': '{}', 'a.mjs': '', 'ab.mjs': '', 'data/c.bin': '', 'data2/d.bin': '' });
    expect(await paths(root, [join(root, 'a.mjs'), join(root, 'data')])).toEqual(['a.mjs', 'data/c.bin']);
    await expect(projectEntries(root, [join(root, 'nothing')])).rejects.toThrow(
      `${root}/nothing is not a file or folder in`,
    );
    await expect(projectEntries(root, ['/etc/passwd'])).rejects.toThrow('/etc/passwd is not a file or folder in');
  });

  it('is refused where it is too large, before it is read, and installed packages do not count', async () => {
    const root = project({ 'package.json': '{}', 'a.mjs': '', large: '', 'node_modules/large/large': '' });
    truncateSync(join(root, 'node_modules/large/large'), 2 ** 30);
    truncateSync(join(root, 'large'), 2 ** 30);
    await expect(projectEntries(root, undefined)).rejects.toThrow(/are more than the 16 MiB .* with --files\.$/);
    expect(await paths(root, [join(root, 'a.mjs')])).toEqual(['a.mjs']);
  });
});
