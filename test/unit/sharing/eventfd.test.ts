import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type EventFd, Kvm } from '../../../lib/index.ts';
import { ERRNO, POLL } from '../../../lib/raw.ts';
import { backends, UNIT } from '../handles/backends.ts';
import { loadGuest, runsGuests } from '../handles/guests.ts';
import { runChild } from './child.ts';

const MMIO = 0xd000_0000;
const aTurn = () => new Promise((resolve) => setTimeout(resolve, 5));

describe.each(backends)('an eventfd on $name', (backend) => {
  let kvm: Kvm;
  let eventfd: EventFd;

  beforeEach(() => {
    kvm = Kvm.open(backend.options);
    eventfd = kvm.createEventFd();
  });
  afterEach(() => {
    eventfd.close();
    kvm.close();
  });

  it('is waited for, and is taken at once when it is not 0', async () => {
    const waiting = eventfd.wait();
    setTimeout(() => eventfd.signal(3n), 2);
    expect(await waiting).toBe(3n);
    eventfd.signal(0xffff_ffff_ffff_fffen);
    expect(await eventfd.wait()).toBe(0xffff_ffff_ffff_fffen);
    expect(eventfd.read()).toBe(0n);
    expect(() => eventfd.signal(2n ** 64n - 1n)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
  });

  it('gives an iteration each count, adds up what nobody took meanwhile, and is over when it is closed', async () => {
    const counts: bigint[] = [];
    const iteration = (async () => {
      for await (const count of eventfd) counts.push(count);
    })();
    eventfd.signal();
    eventfd.signal(2n);
    await expect.poll(() => counts).toEqual([3n]);
    eventfd.signal(5n);
    await expect.poll(() => counts).toEqual([3n, 5n]);
    eventfd.close();
    await iteration;
    expect(counts).toEqual([3n, 5n]);
  });

  it('lets go of an iteration that ends, while others wait on', async () => {
    const first = eventfd[Symbol.asyncIterator]();
    const second = eventfd[Symbol.asyncIterator]();
    const ended = first.next();
    const goesOn = second.next();
    await aTurn();
    expect(await first.return?.()).toEqual({ done: true, value: undefined });
    expect(await ended).toEqual({ done: true, value: undefined });
    expect(await first.next()).toEqual({ done: true, value: undefined });
    eventfd.signal(7n);
    expect(await goesOn).toEqual({ done: false, value: 7n });
  });

  it('gives each signal to one of those who wait', async () => {
    const counts: bigint[] = [];
    const waits = [1, 2, 3].map(async () => counts.push(await eventfd.wait()));
    for (const count of [1n, 2n, 3n]) {
      eventfd.signal(count);
      await expect.poll(() => counts.at(-1)).toBe(count);
    }
    await Promise.all(waits);
    expect(counts).toEqual([1n, 2n, 3n]);
  });

  it('ends waits by a signal and by closing', async () => {
    const stop = new AbortController();
    const aborted = eventfd.wait(stop);
    const other = eventfd.wait();
    stop.abort(new Error('no longer'));
    await expect(aborted).rejects.toThrow('no longer');
    await expect(eventfd.wait({ signal: AbortSignal.abort() })).rejects.toThrow(/aborted/);
    await aTurn();
    eventfd.close();
    await expect(other).rejects.toMatchObject({ code: 'EBADF', explanation: 'the eventfd is closed' });
    await expect(eventfd.wait()).rejects.toMatchObject({ code: 'EBADF' });
  });

  it('is polled by the calls beneath', async () => {
    const { calls } = kvm;
    const memfd = calls.memfdCreate('x', UNIT, 0);
    expect(await calls.poll(eventfd.fd, POLL.OUT)).toBe(POLL.OUT);
    const both = calls.poll(eventfd.fd, POLL.IN | POLL.OUT);
    expect(await both).toBe(POLL.OUT);
    const input = [calls.poll(eventfd.fd, POLL.IN), calls.poll(eventfd.fd, POLL.IN)];
    eventfd.signal();
    expect(await Promise.all(input)).toEqual([POLL.IN, POLL.IN]);
    eventfd.read();
    const ended = calls.poll(eventfd.fd, POLL.IN);
    expect(await calls.poll(eventfd.fd, 0)).toBe(0);
    expect(await ended).toBe(0);
    expect(await calls.poll(eventfd.fd, 0x10)).toBe(-ERRNO.EINVAL);
    expect(await calls.poll(memfd, POLL.IN)).toBe(-ERRNO.EPERM);
    expect(await calls.poll(kvm.fd, POLL.IN)).toBe(-ERRNO.EPERM);
    expect(await calls.poll(0, POLL.IN)).toBe(-ERRNO.EBADF);
    calls.close(memfd);
    expect(await calls.poll(memfd, POLL.IN)).toBe(-ERRNO.EBADF);
  });

  it('at its largest value has no room, until it is read', async () => {
    eventfd.signal(0xffff_ffff_ffff_fffen);
    const room = kvm.calls.poll(eventfd.fd, POLL.OUT);
    let isRoom = false;
    room.then(() => {
      isRoom = true;
    });
    await aTurn();
    expect(isRoom).toBe(false);
    eventfd.read();
    expect(await room).toBe(POLL.OUT);
  });

  it.runIf(runsGuests(backend))('is signalled by a guest, who is not stopped by it', async () => {
    using vm = kvm.createVm();
    vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
    const vcpu = vm.createVcpu();
    using _event = vm.io.ioeventfd({ addr: MMIO, len: 1, eventfd, datamatch: 5 });
    const told = eventfd.wait();
    loadGuest(kvm, vm, vcpu, [
      { store: MMIO, value: 5 },
      { store: MMIO, value: 5 },
      { store: 0x3000, value: 9 },
    ]);
    expect(await vcpu.run()).toEqual({ reason: 'HLT' });
    // The wait may have ended between the two.
    expect((await told) + eventfd.read()).toBe(2n);
    expect(vm.memory.readU8(0x3000)).toBe(9);
  });
});

const someBackends = backends.filter(({ options }) => options.backend === 'native' || options.arch === 's390x');

describe.each(someBackends)('a process with $name', { timeout: 120_000 }, ({ options }) => {
  const kernel = JSON.stringify(options);

  it.for([
    ['lives while it waits for an eventfd', 'waits', 'signalled\n'],
    ['ends by itself when an iteration was left', 'left', 'left\n'],
    ['ends by itself when nobody waits any more', 'aborted', 'aborted\n'],
    ['exits while it waits', 'exits', 'exits\n'],
  ] as const)('%s', async ([, how, stdout]) => {
    expect(await runChild('eventfd', [how, kernel])).toEqual({ status: 0, signal: null, stdout, stderr: '' });
  });
});
