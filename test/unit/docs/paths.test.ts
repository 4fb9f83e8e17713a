import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { ROOT } from './blocks.ts';

const PAGES = ['README.md', 'CONTRIBUTING.md', ...readdirSync(join(ROOT, 'docs')).map((file) => `docs/${file}`)].filter(
  (file) => file.endsWith('.md'),
);

/** What stands in backquotes and is a path of the project: a folder ends with a slash, a file has an ending. */
const PATH = /`((?:lib|test|native|docs|examples)\/[\w./-]*(?:\/|\.(?:ts|mjs|cc|h|c|md|json)))`/g;

/** The walks name files as from lib, those of an architecture's rooms as from its folder. */
const WALKED = /`((?:memory|handles|emulated|model|arch|calls|rules|sharing)\/[\w./-]+\.ts)`/g;
const ROOTS = ['lib', 'lib/arch/s390x', 'lib/arch/ppc64'];

it.each(PAGES)('what %s names is there', (page) => {
  const text = readFileSync(join(ROOT, page), 'utf8');
  const missing = [...text.matchAll(PATH)].map(([, path]) => path!).filter((path) => !existsSync(join(ROOT, path)));
  const unwalked = [...text.matchAll(WALKED)]
    .map(([, path]) => path!)
    .filter((path) => !ROOTS.some((root) => existsSync(join(ROOT, root, path))));
  expect([...missing, ...unwalked]).toEqual([]);
});

it('how-it-works.md names files, and every folder of lib', () => {
  const text = readFileSync(join(ROOT, 'docs/how-it-works.md'), 'utf8');
  const folders = readdirSync(join(ROOT, 'lib'), { withFileTypes: true }).filter((entry) => entry.isDirectory());
  expect(folders.map(({ name }) => `lib/${name}/`).filter((folder) => !text.includes(folder))).toEqual([]);
  expect([...text.matchAll(PATH)].length).toBeGreaterThan(5);
  expect([...text.matchAll(WALKED)].length).toBeGreaterThan(20);
});

/** What text calls by these names is ours: `vm.memory.readU32(gpa)`. Names with an underscore are sysctls, and other libraries'. */
const OBJECTS = 'kvm|vm|vcpu|calls|dirtyPages|memory|space|binding|region|mapping|reader|writer';
const CALLED = new RegExp(`\`(?:${OBJECTS})((?:\\.[a-z]\\w*)+)[^\`]*\``, 'g');

/** Names of members of classes and interfaces, each at the beginning of a line. */
const DECLARED = /^ +(?:(?:readonly|static|override|protected|async|get|set) )*\*?([a-z]\w*)[?!]?[(:<;]/gm;

it('the methods and properties that pages name are there', () => {
  const files = readdirSync(join(ROOT, 'lib'), { recursive: true, encoding: 'utf8' }).filter((f) => f.endsWith('.ts'));
  const declared = new Set(
    files.flatMap((file) =>
      [...readFileSync(join(ROOT, 'lib', file), 'utf8').matchAll(DECLARED)].map(([, name]) => name),
    ),
  );
  const named = PAGES.flatMap((page) =>
    [...readFileSync(join(ROOT, page), 'utf8').matchAll(CALLED)].map(([whole, path]) => ({ page, whole, path: path! })),
  );
  const ours = named.filter(({ path }) => !/_(?!64)|\.ts$/.test(path));
  expect(ours.length).toBeGreaterThan(60);
  expect(
    ours.filter(
      ({ path }) =>
        !path
          .slice(1)
          .split('.')
          .every((name) => declared.has(name)),
    ),
  ).toEqual([]);
});
