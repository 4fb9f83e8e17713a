import { spawnSync } from 'node:child_process';
import fs, {
  chmodSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { replaceFile } from '../../../lib/base/replace-file.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'replace-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

const at = (name: string): string => join(folder, name);
const text = (name: string): string => readFileSync(at(name), 'utf8');

/** Has a function of Node's file system fail. */
function failing(name: 'renameSync' | 'writeFileSync', code: string): void {
  const spy = vi.spyOn(fs, name).mockImplementation(() => {
    throw Object.assign(new Error(`${code}: no, ${name}`), { code, syscall: name });
  });
  syncBuiltinESMExports();
  onTestFinished(() => {
    spy.mockRestore();
    syncBuiltinESMExports();
  });
}

describe('a file that is replaced', () => {
  beforeEach(() => {
    writeFileSync(at('page'), 'old', { mode: 0o640 });
    chmodSync(at('page'), 0o640);
  });

  it('is another, with the mode of the old one, and nothing is left beside it', () => {
    const { ino } = statSync(at('page'));
    replaceFile(at('page'), 'new');
    expect(text('page')).toBe('new');
    expect(statSync(at('page')).mode & 0o777).toBe(0o640);
    expect(statSync(at('page')).ino).not.toBe(ino);
    expect(readdirSync(folder)).toEqual(['page']);
  });

  it('stays when there is no room for the new one, and the error names it', () => {
    failing('writeFileSync', 'ENOSPC');
    expect(() => replaceFile(at('page'), 'new')).toThrow(expect.objectContaining({ code: 'ENOSPC', path: at('page') }));
    expect(text('page')).toBe('old');
    expect(readdirSync(folder)).toEqual(['page']);
  });

  it.each(['EBUSY', 'EXDEV'])('is written to where it cannot be renamed over: %s', (code) => {
    failing('renameSync', code);
    const { ino } = statSync(at('page'));
    replaceFile(at('page'), 'new');
    expect([text('page'), statSync(at('page')).ino, readdirSync(folder)]).toEqual(['new', ino, ['page']]);
  });

  it('has all of its names afterwards, and links lead to it', () => {
    symlinkSync('page', at('link'));
    replaceFile(at('link'), 'by the link');
    expect([text('page'), readlinkSync(at('link'))]).toEqual(['by the link', 'page']);
    linkSync(at('page'), at('other'));
    replaceFile(at('page'), 'new');
    expect([text('page'), text('other')]).toEqual(['new', 'new']);
  });

  it('is refused as it was where it may not be written', (test) => {
    if (process.getuid?.() === 0) test.skip('root may write everything');
    chmodSync(at('page'), 0o440);
    expect(() => replaceFile(at('page'), 'new')).toThrow(expect.objectContaining({ code: 'EACCES', path: at('page') }));
    expect(text('page')).toBe('old');
  });
});

it('what is no file, or not there, is written to', () => {
  replaceFile(at('new'), 'text');
  expect(text('new')).toBe('text');
  replaceFile('/dev/null', 'text');
  expect(statSync('/dev/null').isFile()).toBe(false);
  mkdirSync(at('folder'));
  expect(() => replaceFile(at('folder'), '')).toThrow(expect.objectContaining({ code: 'EISDIR', path: at('folder') }));
  expect(spawnSync('mkfifo', [at('pipe')]).status).toBe(0);
  const reader = fs.openSync(at('pipe'), fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
  replaceFile(at('pipe'), 'text');
  expect(fs.readFileSync(reader, 'utf8')).toBe('text');
  fs.closeSync(reader);
});

it('a descriptor that has a path is the file that others go on writing', (test) => {
  if (process.platform !== 'linux') test.skip('this is no Linux');
  writeFileSync(at('out'), 'old');
  const fd = fs.openSync(at('out'), 'r+');
  replaceFile(`/proc/self/fd/${fd}`, 'new');
  expect(fs.fstatSync(fd).nlink).toBe(1);
  fs.closeSync(fd);
  expect(text('out')).toBe('new');
});
