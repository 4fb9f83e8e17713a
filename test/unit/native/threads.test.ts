import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import { ERRNO } from '../../../lib/raw.ts';
import { childPath, openDescriptors, realModeGuest, runChild, SPIN } from './real.ts';

type HowToRun = 'run' | 'runAsync' | 'runUntilKicked';

async function workerInGuest(how: HowToRun): Promise<{ worker: Worker; vcpu: number }> {
  const worker = new Worker(childPath('worker-in-guest'), { workerData: { how } });
  const [vcpu] = (await once(worker, 'message')) as [number];
  await new Promise((resolve) => setTimeout(resolve, 30));
  return { worker, vcpu };
}

describe('a worker', () => {
  it.for(['run', 'runAsync'] as const)('that is terminated inside %s ends, with all that it had', async (how, test) => {
    realModeGuest(test, SPIN).guest.close();
    await (await workerInGuest(how)).worker.terminate();
    const before = openDescriptors();
    for (let i = 0; i < 3; i++) {
      const { worker } = await workerInGuest(how);
      const start = performance.now();
      await worker.terminate();
      expect(performance.now() - start).toBeLessThan(2000);
    }
    expect(openDescriptors()).toBe(before);
  });

  it('inside run is kicked out from another thread', async (test) => {
    const { calls, guest } = realModeGuest(test, SPIN);
    const { worker, vcpu } = await workerInGuest('runUntilKicked');
    expect(calls.getMpState(vcpu)).toBe(-ERRNO.EBADF);
    expect(calls.kick(vcpu)).toBe(0);
    expect(await once(worker, 'message')).toEqual([-ERRNO.EINTR]);
    await worker.terminate();
    expect(calls.kick(vcpu)).toBe(-ERRNO.EBADF);
    guest.close();
  });

  it('has descriptors and mappings of its own', async (test) => {
    const { calls, guest } = realModeGuest(test, SPIN);
    const workers = await Promise.all(['run', 'runAsync', 'run'].map((how) => workerInGuest(how as HowToRun)));
    expect(calls.run(guest.vcpu, 20)).toBe(-ERRNO.EINTR);
    for (const { vcpu } of workers) expect(calls.close(vcpu)).toBe(-ERRNO.EBADF);
    await Promise.all(workers.map(({ worker }) => worker.terminate()));
    guest.close();
  });
});

describe('a process', () => {
  it.for([
    ['exits while a guest runs on its own thread', 'exit-async', 7],
    ['exits while a worker is inside run', 'exit-worker', 7],
    ['ends by itself once the last run has ended', 'end', 0],
    ['ends by itself with everything left open', 'leave-open', 0],
    ['is ended by a signal while inside run', 'signal', null],
  ] as const)('%s', ([, how, status], test) => {
    realModeGuest(test, SPIN).guest.close();
    const child = runChild('process-end', [how]);
    expect(child).toMatchObject({ status, stderr: '' });
    expect(child.signal).toBe(status === null ? 'SIGTERM' : null);
  });
});
