import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { expect, it } from 'vitest';
import { schedulerTimes, whereTimeWent } from '../../../lib/lab/processor-time.ts';

it("a process that computes is told from one that sleeps, by the scheduler's own counts", async () => {
  const idle = spawn('sleep', ['60']);
  const busy = spawn(process.execPath, ['-e', 'console.log("there"); for (;;);'], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  try {
    await once(busy.stdout, 'data');
    await expect.poll(() => schedulerTimes(busy.pid)[0], { timeout: 60_000 }).toBeGreaterThan(5e8);
    expect(schedulerTimes(idle.pid)[0]).toBeLessThan(1e8);
    expect(whereTimeWent(busy.pid)).toMatch(
      /^ QEMU computed for [1-9]\d* s, and waited \d+ s for processors that others had\.$/,
    );
  } finally {
    for (const each of [idle, busy]) each.kill('SIGKILL');
  }
});

it('says nothing of a process that is gone', async () => {
  const gone = spawn('true');
  await once(gone, 'close');
  expect([whereTimeWent(gone.pid), whereTimeWent(undefined)]).toEqual(['', '']);
});
