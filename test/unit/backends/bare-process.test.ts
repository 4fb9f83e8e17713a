import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { describe, expect, it, type TestContext } from 'vitest';
import { nativeMissing } from '../handles/backends.ts';

const PROGRAM = fileURLToPath(new URL('children/bare.ts', import.meta.url));
const TYPESCRIPT = new URL('../../typescript/register.mjs', import.meta.url).href;

/** Runs the program after a change of what is mounted, which is its own. */
function runAfter(test: TestContext, change: string, node = process.execPath): unknown {
  const tried = spawnSync('unshare', ['-m', 'sh', '-c', 'mount --make-rprivate / && mount --bind /dev/null /dev/null']);
  if (tried.status !== 0) test.skip('mounts of its own are for a process with CAP_SYS_ADMIN');
  const script = `mount --make-rprivate / && ${change} && exec "$0" "$@"`;
  const { stdout, stderr } = spawnSync(
    'unshare',
    ['-m', 'sh', '-c', script, node, '--no-warnings', '--import', TYPESCRIPT, PROGRAM],
    { encoding: 'utf8' },
  );
  expect(stderr).toBe('');
  return JSON.parse(stdout);
}

describe('a process', () => {
  it.for([process.execPath, 'node'])(
    'without /proc, begun as %s, has the package; what might be a guest is not duplicated',
    (node, test) => {
      // A vCPU of this process's own is lent, as `Vcpu.attach` has it.
      const real = { backend: 'native', why: null, native: 'taken', duplicates: ['EPERM', 'taken', 'EPERM'] };
      const emulated = { backend: 'emulated', why: expect.any(String), native: expect.any(String), duplicates: [] };
      expect(runAfter(test, 'umount -l /proc', node)).toEqual(nativeMissing === undefined ? real : emulated);
    },
  );

  it.for(['/dev/null', '/dev/zero'])('whose /dev/kvm is %s has the emulated kernel, and knows why', (device, test) => {
    if (nativeMissing !== undefined) test.skip(`the real kernel is missing anyway: ${nativeMissing}`);
    expect(runAfter(test, `mount --bind ${device} /dev/kvm`)).toEqual({
      backend: 'emulated',
      why: expect.stringContaining('/dev/kvm is no KVM of version 12'),
      native: 'ENOTTY',
      duplicates: [],
    });
  });
});
