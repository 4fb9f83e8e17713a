import { getSystemErrorMap } from 'node:util';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { KvmError } from '../../../lib/base/errors.ts';
import { ERRNO, errnoName } from '../../../lib/uapi/errno.ts';

const here = process.platform;
const on = (value: string) => Object.defineProperty(process, 'platform', { value });
afterEach(() => {
  on(here);
  vi.restoreAllMocks();
});

const message = (errno: number): string => new KvmError(errno, { syscall: 'read' }).message;

describe('an error number that no call of this project is known to give', () => {
  it('has the name and the text that Node knows', (test) => {
    if (here !== 'linux') test.skip('this is no Linux');
    expect([21, -20, 30, 40].map(errnoName)).toEqual(['EISDIR', 'ENOTDIR', 'EROFS', 'ELOOP']);
    expect(message(21)).toBe('EISDIR: illegal operation on a directory, read');
    expect(message(-30)).toBe('EROFS: read-only file system, read');
  });

  it('has its number where Node knows none, and on other systems, whose numbers are others', () => {
    on('linux');
    expect([126, 512, 3000, 4095].map(errnoName)).toEqual(['E126', 'E512', 'E3000', 'E4095']);
    expect(message(512)).toBe('E512: unknown error, read');
    on('darwin');
    expect(errnoName(21)).toBe('E21');
    expect(message(21)).toBe('E21: unknown error, read');
  });
});

it('every number of the list has its name and a text on every system', () => {
  for (const platform of [here, 'darwin']) {
    on(platform);
    for (const [name, errno] of Object.entries(ERRNO)) {
      expect(errnoName(errno)).toBe(name);
      expect(message(errno)).toMatch(new RegExp(`^${name}: (?!unknown error)`));
    }
  }
});

it('the texts are those of Node', (test) => {
  if (here !== 'linux') test.skip('this is no Linux');
  const others = Object.entries(ERRNO).flatMap(([name, errno]) => {
    const [, text] = getSystemErrorMap().get(-errno) ?? [];
    return text === undefined || message(errno) === `${name}: ${text}, read` ? [] : [name];
  });
  // Node says "on socket" of a number that is no socket's alone.
  expect(others).toEqual(['EOPNOTSUPP']);
});
