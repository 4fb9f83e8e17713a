import { describe, expect, it } from 'vitest';
import { resolveClosure } from '../../../../lib/lab/archive/closure.ts';
import { isPoolPath, type PackageFile, SuiteIndex } from '../../../../lib/lab/archive/suite-index.ts';
import { sha256 } from './tiny-archive.ts';

/** An index of packages given as `name version` and what they depend on. */
function suite(name: string, packages: Readonly<Record<string, string>>): SuiteIndex {
  const stanzas = Object.entries(packages).map(([spec, fields]) => {
    const [name, version] = spec.split(' ');
    const [depends, provides] = fields.split('; provides ');
    return [
      `Package: ${name}`,
      `Version: ${version}`,
      'Architecture: s390x',
      ...(depends === '' ? [] : [`Depends: ${depends}`]),
      ...(provides === undefined ? [] : [`Provides: ${provides}`]),
      'Tag: a::b,',
      ' Depends: not-a-field',
      `Filename: pool/main/x/${name}_${version}.deb`,
      'Size: 1000',
      `SHA256: ${sha256(`${name} ${version}`)}`,
    ].join('\n');
  });
  return new SuiteIndex(name, `${stanzas.join('\n\n')}\n`);
}

function resolve(roots: string, suites: readonly SuiteIndex[], lost: readonly string[] = [], follows?: RegExp) {
  const isMissing = ({ name, version, suite }: PackageFile) =>
    lost.some((each) => [name, `${name} ${version}`, `${name}/${suite}`].includes(each));
  const wish = {
    roots: roots.split(',').map((each) => each.split('|').map((name) => ({ name: name.trim() }))),
    ...(follows === undefined ? {} : { follows: (name: string) => follows.test(name) }),
  };
  const found = resolveClosure(wish, suites, isMissing);
  return 'packages' in found ? found.packages.map((each) => `${each.name} ${each.version}/${each.suite}`) : found;
}

const trixie = suite('trixie', {
  'node 20': 'libnode20 (= 20), libc (>= 2.41)',
  'libnode20 20': 'libc (>= 2.41), libssl (>= 3.0) | libtls, libicu76',
  'libc 2.41': 'libgcc',
  'libgcc 14': 'libc (>= 2.35)',
  'libssl 3.5': 'libc (>= 2.34)',
  'libicu76 76': 'libc',
});
const forky = suite('forky', {
  'node 24': 'libnode24 (= 24)',
  'libnode24 24': 'libc (>= 2.42), libicu78',
  'libc 2.43': 'libgcc (>= 15)',
  'libgcc 16': '',
  'libssl 3.6': 'libc (>= 2.42)',
  'libicu78 78': '',
});

describe('a set of packages', () => {
  it('is of the first suite if that has all of it', () => {
    expect(resolve('node', [trixie, forky])).toEqual([
      'libc 2.41/trixie',
      'libgcc 14/trixie',
      'libicu76 76/trixie',
      'libnode20 20/trixie',
      'libssl 3.5/trixie',
      'node 20/trixie',
    ]);
  });

  it('takes a newer version of what is missing, and what that one needs', () => {
    expect(resolve('node', [trixie, forky], ['libc 2.41'])).toEqual([
      'libc 2.43/forky',
      'libgcc 16/forky',
      'libicu76 76/trixie',
      'libnode20 20/trixie',
      'libssl 3.5/trixie',
      'node 20/trixie',
    ]);
  });

  it('gives up a package that cannot be had whole in a suite, and takes another one', () => {
    const found = resolve('node', [trixie, forky], ['libicu76']);
    expect(found).toContain('node 24/forky');
    expect(found).not.toContain('libnode20 20/trixie');
  });

  it('goes back where two choices exclude each other', () => {
    const one = suite('one', { 'a 1': 'b, c', 'b 2': '', 'b 1': '', 'c 1': 'b (<< 2)' });
    expect(resolve('a', [one])).toEqual(['a 1/one', 'b 1/one', 'c 1/one']);
  });

  it('takes the first alternative that there is, and what provides a name', () => {
    const one = suite('one', {
      'a 1': 'x | y, virtual (>= 2)',
      'y 1': '',
      'real 9': '; provides virtual (= 2), other',
    });
    expect(resolve('a', [one])).toEqual(['a 1/one', 'real 9/one', 'y 1/one']);
    const old = suite('one', { 'a 1': 'virtual (>= 3)', 'real 9': '; provides virtual (= 2)' });
    expect(resolve('a', [old])).toEqual({ missing: [], unlisted: [] });
  });

  it('is only of what is followed, where not all that a package needs is wanted', () => {
    const one = suite('one', { 'image 1': 'tool, part-a (= 1), part-b', 'part-a 1': 'tool', 'part-b 1': '' });
    expect(resolve('image', [one], [], /^part-/)).toEqual(['image 1/one', 'part-a 1/one', 'part-b 1/one']);
  });

  it('that does not exist says which files are missing and which names nobody lists', () => {
    const found = resolve('node', [trixie], ['libc', 'libssl/trixie']);
    expect(found).toMatchObject({ unlisted: ['libtls'] });
    expect((found as { missing: readonly PackageFile[] }).missing.map(({ name }) => name).sort()).toEqual([
      'libc',
      'libssl',
    ]);
  });

  it('that does not exist is noticed without trying every combination', () => {
    const wide: Record<string, string> = {
      'a 1': Array.from({ length: 30 }, (_, i) => `b${i}`)
        .join(', ')
        .concat(', no'),
    };
    for (let i = 0; i < 30; i++) for (const version of [1, 2, 3]) wide[`b${i} ${version}`] = '';
    expect(resolve('a', [suite('one', wide)])).toEqual({ missing: [], unlisted: ['no'] });
  });
});

describe('an index', () => {
  it('offers nothing that could not be checked, or that lies outside of the pool', () => {
    const stanza = (fields: string) => `Package: a\nVersion: 1\nArchitecture: all\n${fields}\n`;
    const digest = `SHA256: ${'0'.repeat(64)}`;
    const whole = stanza(`Filename: pool/main/a/a_1_all.deb\nSize: 5\n${digest}`);
    expect(new SuiteIndex('one', whole).find('a')).toHaveLength(1);
    for (const bad of [
      'Filename: pool/main/a/a_1_all.deb\nSize: 5',
      `Filename: pool/../../a_1_all.deb\nSize: 5\n${digest}`,
      `Filename: /etc/a.deb\nSize: 5\n${digest}`,
      `Filename: pool/main/a/a_1_all.deb\nSize: many\n${digest}`,
    ]) {
      expect(new SuiteIndex('one', stanza(bad)).find('a')).toEqual([]);
    }
  });

  it('knows the path of the same file in the security archive', () => {
    const text = `Package: a\nVersion: 1\nFilename: pool/main/a/a_1.deb\nSize: 5\nSHA256: ${'0'.repeat(64)}\n`;
    expect(new SuiteIndex('one', text).find('a')[0]?.paths).toEqual([
      'pool/main/a/a_1.deb',
      'pool/updates/main/a/a_1.deb',
    ]);
  });

  it.each(['pool/./a.deb', 'pool//a.deb', 'pool/..a/../b.deb', 'http://m.test/a.deb', 'pool/a b.deb', 'pool/a'])(
    'does not take %s for a path in the pool',
    (path) => expect(isPoolPath(path)).toBe(false),
  );
});
