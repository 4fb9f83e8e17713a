import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { runPreloaded } from './preload.ts';
import { addon, runChild } from './real.ts';

describe('what another thread changes while a call looks at it', () => {
  it('is no way to a memslot over memory of the process', (test) => {
    addon(test);
    const child = runPreloaded(test, 'shared-memory', { args: ['slots', '20000'] });
    expect(child).toMatchObject({ status: 0, signal: null, stderr: '' });
    // Each of the two addresses was seen, and got its own answer: EPERM or 0, and never the fake KVM's EXDEV.
    expect(Object.keys(JSON.parse(child.stdout)).sort()).toEqual(['-1', '0']);
  });

  it('is no way out of the table that a HTAB stream is applied to', (test) => {
    addon(test);
    const child = runChild('shared-memory', ['htab', '50000']);
    expect(child).toMatchObject({ status: 0, signal: null, stderr: '' });
    expect(Object.keys(JSON.parse(child.stdout)).sort()).toEqual(['0', '1']);
  });
});

it.for([
  ['0', 'views'],
  ['1', 'views'],
  ['2', 'EACCES, and copies'],
])('with vm.overcommit_memory %s there are %s of a memfd', ([mode, expected], test) => {
  addon(test);
  const folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-'));
  const file = join(folder, 'overcommit_memory');
  writeFileSync(file, `${mode}\n`);
  const child = runPreloaded(test, 'overcommit', { env: { OVERCOMMIT: file } });
  rmSync(folder, { recursive: true });
  expect(child).toMatchObject({ status: 0, signal: null, stderr: '' });
  expect(child.stdout.trim()).toBe(expected);
});
