import { execFileSync } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { isPresent } from '../../../lib/lab/host-tools.ts';
import { withLock } from '../../../lib/lab/lock.ts';

const lacking = ['flock', 'setpriv'].filter((tool) => !isPresent(tool));

describe.skipIf(lacking.length > 0)(`a lock (needs ${lacking.join(', ') || 'no more'})`, () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'lock-'));
  });
  afterEach(() => {
    vi.unstubAllEnvs();
    rmSync(folder, { recursive: true });
  });

  const locked = <T>(path: string, work: () => Promise<T>) => withLock(path, { onWait: () => {} }, work);

  it('is held by one at a time', async () => {
    const path = join(folder, 'new', 'lock');
    const order: string[] = [];
    const first = locked(path, async () => {
      order.push('first');
      await new Promise((done) => setTimeout(done, 100));
      order.push('first ends');
    });
    await vi.waitFor(() => expect(order).toEqual(['first']));
    await Promise.all([first, locked(path, async () => order.push('second'))]);
    expect(order).toEqual(['first', 'first ends', 'second']);
  });

  it('that cannot be made says why', async () => {
    const path = join(folder, 'loop');
    symlinkSync('loop', path);
    await expect(locked(path, async () => {})).rejects.toThrow(
      `flock failed: flock: cannot open lock file ${path}: Too many levels of symbolic links`,
    );
  });

  it('says that flock cannot be started', async () => {
    symlinkSync(execFileSync('sh', ['-c', 'command -v setpriv'], { encoding: 'utf8' }).trim(), join(folder, 'setpriv'));
    vi.stubEnv('PATH', folder);
    await expect(locked(join(folder, 'lock'), async () => {})).rejects.toThrow(/^flock failed: setpriv: .*flock/);
  });

  it('that another has for too long is given up', async () => {
    const flock = join(folder, 'flock');
    writeFileSync(flock, '#!/bin/sh\nwhile [ "$1" != --conflict-exit-code ]; do shift; done\nexit $2\n');
    chmodSync(flock, 0o755);
    vi.stubEnv('PATH', `${folder}:${process.env.PATH}`);
    const path = join(folder, 'lock');
    await expect(locked(path, async () => {})).rejects.toThrow(`Another lab has held ${path} for 1800 s; giving up.`);
  });
});
