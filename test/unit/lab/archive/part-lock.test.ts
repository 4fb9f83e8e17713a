import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { formatLock, parseLock } from '../../../../lib/lab/archive/part-lock.ts';
import { LOCKS_FOLDER } from '../../../../lib/lab/project.ts';
import { VARIANTS } from '../../../../lib/lab/variants.ts';
import { packageOf } from './tiny-archive.ts';

const lock = {
  resolved: new Date('2026-11-28T20:00:00Z'),
  packages: [packageOf('a', Buffer.from('a')), packageOf('b', Buffer.from('b'))],
};

/** The lock's text after an edit of what is in it. */
function edited(edit: (value: { resolved: unknown; packages: Record<string, unknown>[] }) => void): string {
  const value = JSON.parse(formatLock(lock));
  edit(value);
  return JSON.stringify(value);
}

describe('a lock', () => {
  it('is read as it was written', () => {
    expect(parseLock(formatLock(lock), 'x.json')).toEqual(lock);
  });

  it.each([
    ['text', 'nonsense', 'it is not JSON'],
    ['a list', '[]', '"resolved" is undefined, not a date'],
    ['half a file', formatLock(lock).slice(0, 300), 'it is not JSON'],
    ['no packages', edited((each) => each.packages.splice(0)), '"packages" is not a list of packages'],
    [
      'another date',
      edited((each) => {
        each.resolved = 'yesterday';
      }),
      '"resolved" is "yesterday", not a date',
    ],
    [
      'a short digest',
      edited((each) => {
        each.packages[1]!.sha256 = 'abc';
      }),
      'package 1: "sha256" is "abc"',
    ],
    [
      'a path out of the cache',
      edited((each) => {
        each.packages[0]!.name = '../../a';
      }),
      'package 0: "name" is "../../a"',
    ],
    [
      'a version with a slash',
      edited((each) => {
        each.packages[0]!.version = '1/2';
      }),
      'package 0: "version" is "1/2"',
    ],
    [
      'an address',
      edited((each) => {
        each.packages[0]!.paths = ['http://m.test/a.deb'];
      }),
      'package 0: "paths" of a is ["http://m.test/a.deb"]',
    ],
    [
      'no path',
      edited((each) => {
        each.packages[0]!.paths = [];
      }),
      'package 0: "paths" of a is []',
    ],
    [
      'a size in words',
      edited((each) => {
        each.packages[0]!.bytes = '7';
      }),
      'package 0: "bytes" of a is "7"',
    ],
    [
      'a package twice',
      edited((each) => {
        each.packages[1]!.name = 'a';
      }),
      'a is there twice',
    ],
    [
      'nothing for a package',
      edited((each) => {
        (each.packages as unknown[])[0] = null;
      }),
      'package 0: "name" is undefined',
    ],
  ])('with %s in it is refused', (_, text, what) => {
    expect(() => parseLock(text, 'x.json')).toThrow(
      `x.json is not a lock of packages: ${what}; --refresh makes a new one.`,
    );
  });
});

describe('the locks in the repository', () => {
  const parts = VARIANTS.flatMap(({ node, kernelPart, qemu }) => [
    node,
    kernelPart,
    ...(qemu === undefined ? [] : [qemu]),
  ]);
  const names = readdirSync(LOCKS_FOLDER);

  it.each(names)('%s is one of a lab, written by us', (name) => {
    const text = readFileSync(join(LOCKS_FOLDER, name), 'utf8');
    const part = parts.find(({ id }) => `${id}.json` === name);
    expect(part).toBeDefined();
    const { resolved, packages } = parseLock(text, name);
    expect(formatLock({ resolved, packages })).toBe(text);
    for (const each of packages) {
      expect(part!.suites).toContain(each.suite);
      expect(['all', part!.debianArch]).toContain(each.architecture);
    }
  });
});
