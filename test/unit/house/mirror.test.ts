import { existsSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { HELD_BY } from './held-by.ts';
import { importsIn } from './imports.ts';

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));
const below = (folder: string, end: string): string[] =>
  readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith(end));

/** Folders of test/unit that are of no folder of lib. */
const OF_NO_FOLDER = ['bench', 'docs', 'fuzz', 'house', 'native', 'package', 'scenarios'];

/** Tests that reach what they hold in a process of its own, in a browser or in a machine. */
const ELSEWHERE = ['unit/cli/built', 'package/report', 'unit/lab/frames', 'unit/lab/user/vitest-files'];

const libFiles = below('lib', '.ts');
const isThere = (test: string): boolean => existsSync(join(ROOT, 'test', `${test}.test.ts`));

/** A file of lib, and the test that HELD_BY names for it. */
const held = Object.entries(HELD_BY).flatMap(([folder, tests]) =>
  Object.entries(tests).flatMap(([test, names]) =>
    names.split(' ').map((name) => ({ file: join(folder, `${name}.ts`), test })),
  ),
);

it('every file of lib has a test of its name, or one that held-by.ts names', () => {
  const named = libFiles.filter((file) => isThere(`unit/${file.slice(0, -'.ts'.length)}`));
  expect([...named, ...held.map(({ file }) => file)].sort()).toEqual(libFiles.sort());
});

it('the tests that are named are there, and reach what they are to hold', () => {
  expect(held.filter(({ test }) => !isThere(test))).toEqual([]);
  const imports = new Map(['test', 'lib'].flatMap((folder) => [...importsIn(ROOT, folder)]));
  const reached = (from: string, found = new Set<string>()): ReadonlySet<string> => {
    if (!found.has(from)) {
      found.add(from);
      for (const to of imports.get(from) ?? []) reached(to, found);
    }
    return found;
  };
  const unreached = [...new Set(held.map(({ test }) => test))]
    .filter((test) => !ELSEWHERE.includes(test))
    .flatMap((test) => {
      const files = reached(`test/${test}.test.ts`);
      return held.filter((each) => each.test === test && !files.has(`lib/${each.file}`));
    });
  expect(unreached).toEqual([]);
});

it('every folder of tests is that of a folder of lib', () => {
  const libFolders = new Set(libFiles.map(dirname));
  const strays = [...new Set(below('test/unit', '.test.ts').map(dirname))].filter(
    (folder) => !libFolders.has(folder) && !OF_NO_FOLDER.includes(folder),
  );
  expect(strays).toEqual([]);
});
