import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { cli } from '../../../lib/cli/cli.ts';
import { percent } from '../../../lib/cli/progress.ts';
import { fakeIo } from './fake-io.ts';

const captures = fileURLToPath(new URL('../../captures/', import.meta.url));
afterEach(() => vi.restoreAllMocks());

/** What a command draws on a terminal's standard error, each time over itself, when time passes quickly. */
async function drawn(...argv: string[]): Promise<string[]> {
  let now = 0;
  vi.spyOn(performance, 'now').mockImplementation(() => (now += 600));
  const io = fakeIo();
  Object.assign(io.stderr, { isTTY: true });
  await cli(argv, io);
  return io.err().split('\r\x1b[K').slice(1);
}

describe('progress', () => {
  it('is told by hpt verify while it computes, and taken away', async () => {
    const lines = await drawn('hpt', 'verify', join(captures, 'ppc64-hpt-linux-6.12/htab.stream.gz'));
    expect(lines).toContain('verifying: 131072 of 262144 slots, 50%');
    expect(lines.at(-1)).toBe('');
  });

  it('is told of a capture that is loaded', async () => {
    const folder = join(captures, 's390x-linux-6.12');
    const lines = await drawn('--load', folder);
    expect(lines).toContainEqual(expect.stringMatching(/\/pages\.bin\.gz: 64 KiB of 303\.26 KiB, 21%$/));
    expect(lines.at(-1)).toMatch(/^A captured s390x guest/);
  });

  it('is never of more than all', () => {
    expect([percent(0, 3), percent(2, 3), percent(4, 3)]).toEqual(['0%', '66%', '100%']);
  });
});
