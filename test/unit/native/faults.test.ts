import { afterAll, expect, it } from 'vitest';
import { trackingKernel } from '../memory/uffd-host.ts';
import { runPreloaded } from './preload.ts';
import { addon } from './real.ts';

let total = 0;
afterAll(() => console.log(`${total} calls that failed`));

it.for([
  ['guests, their memory and views', 'guests', 50],
  ['a table in a memfd, its locks, and descriptors over sockets', 'sharing', 35],
  ['eventfds, and those who wait for them', 'eventfds', 12],
  ['memory that the kernel copies', 'guarded', 30],
  ['a vCPU in another thread', 'threads', 12],
  ["a guest_memfd, and a vCPU's dirty ring", 'ofOneVm', 40],
  ['pages that are served, and writes that are tracked', 'userfaults', 30],
  ['the same by the typed layer', 'served', 40],
  ['a space that somebody else uses: its table, log and views', 'shared', 120],
  ['both ends of vhost-user', 'vhostUser', 300],
] as const)(
  'no call that fails crashes the process, leaks, or goes untold, the n-th for every n: %s',
  {
    timeout: 180_000,
  },
  ([_what, workload, least], test) => {
    addon(test);
    if (workload === 'userfaults' || workload === 'served') trackingKernel(test);
    const child = runPreloaded(test, 'faults', { args: [workload] });
    expect(child).toMatchObject({ status: 0, signal: null, stderr: '' });
    const { tried, usual, errors } = JSON.parse(child.stdout) as Record<'tried' | 'usual' | 'errors', number>;
    total += tried;
    expect(tried).toBeGreaterThanOrEqual(least);
    expect(errors).toBe(usual);
  },
);

it('an environment may end while a guest that it has closed is still inside KVM_RUN', { timeout: 60_000 }, (test) => {
  addon(test);
  expect(runPreloaded(test, 'fake-vcpus', { args: ['stuck'] })).toMatchObject({ status: 0, signal: null, stderr: '' });
});

it('vCPU threads survive kicks and closes in every order', { timeout: 60_000 }, (test) => {
  addon(test);
  const child = runPreloaded(test, 'fake-vcpus', { args: ['storm', '40'] });
  expect(child).toMatchObject({ status: 0, signal: null, stderr: '' });
  expect(JSON.parse(child.stdout)).toEqual({ rounds: 40, kicks: 1600 });
});

it('nothing that a thread does after a run is interrupted by what ends runs', (test) => {
  addon(test);
  expect(runPreloaded(test, 'fake-vcpus', { args: ['quiet'] })).toMatchObject({ status: 0, signal: null, stderr: '' });
});

it('a vCPU that changes threads lets through in the guest what ends runs, and of the rest what its thread lets through', (test) => {
  addon(test);
  expect(runPreloaded(test, 'fake-vcpus', { args: ['masks'] })).toMatchObject({ status: 0, signal: null, stderr: '' });
});

it('with no realtime signal to be had neither run nor runAsync starts what nothing could stop', (test) => {
  addon(test);
  const child = runPreloaded(test, 'fake-vcpus', { args: ['no-signal'], env: { NO_SIGNAL: '1' } });
  expect(child).toMatchObject({ status: 0, signal: null, stderr: '' });
});
