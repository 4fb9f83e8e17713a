import fs, { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import { LineFile } from '../../../lib/cli/output-file.ts';

const scratch = mkdtempSync(join(tmpdir(), 'output-'));
afterAll(() => rmSync(scratch, { recursive: true }));

/** A file system that takes three bytes at once, and so many in all. */
function smallDisk(room: number): void {
  let left = room;
  const { writeSync } = fs;
  const spy = vi.spyOn(fs, 'writeSync').mockImplementation(((fd: number, bytes: Buffer, offset: number) => {
    const count = Math.min(3, left, bytes.length - offset);
    if (count === 0) throw Object.assign(new Error('ENOSPC'), { code: 'ENOSPC', errno: -28, syscall: 'write' });
    left -= count;
    return writeSync(fd, bytes, offset, count);
  }) as typeof writeSync);
  syncBuiltinESMExports();
  onTestFinished(() => {
    spy.mockRestore();
    syncBuiltinESMExports();
  });
}

describe('a file of lines', () => {
  const path = join(scratch, 'lines');

  it('has each line as a whole where the system takes it in pieces', () => {
    smallDisk(1000);
    const file = new LineFile(path, expect.unreachable);
    file.write('the first line');
    file.write('größer');
    file.close();
    file.write('too late');
    expect(readFileSync(path, 'utf8')).toBe('the first line\ngrößer\n');
  });

  it('tells once that it is full, throws nothing, and is closed', () => {
    smallDisk(20);
    const told: string[] = [];
    const file = new LineFile(path, (sentence) => told.push(sentence));
    for (const line of ['the first line', 'the second line', 'the third line']) file.write(line);
    file.close();
    expect(told).toEqual([`${path}: no space left on device (ENOSPC)`]);
    expect(readFileSync(path, 'utf8')).toBe('the first line\nthe s');
  });

  it('does so on a real device', (test) => {
    if (!existsSync('/dev/full')) test.skip('there is no /dev/full');
    const told: string[] = [];
    new LineFile('/dev/full', (sentence) => told.push(sentence)).write('line');
    expect(told).toEqual(['/dev/full: no space left on device (ENOSPC)']);
  });
});
