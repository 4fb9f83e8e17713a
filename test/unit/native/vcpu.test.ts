import { spawnSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { ERRNO, EXIT, KVM_RUN, requestNumber } from '../../../lib/raw.ts';
import { openDescriptors, realKvm, realModeGuest, runChild, SPIN } from './real.ts';

const delay = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** mov byte [0x2000], 0x55; hlt; jmp $ */
const STORE_AND_HALT = [0xc6, 0x06, 0x00, 0x20, 0x55, 0xf4, ...SPIN];

describe('run', () => {
  it('executes the guest, and its stores are in our memory', (test) => {
    const { calls, guest } = realModeGuest(test, STORE_AND_HALT);
    expect(calls.run(guest.vcpu, 0)).toBe(0);
    expect(guest.run.getUint32(KVM_RUN.exit_reason, true)).toBe(EXIT.HLT);
    const stored = new Uint8Array(1);
    calls.readMemory(guest.ram + 0x2000, stored);
    expect(stored[0]).toBe(0x55);
    guest.close();
  });

  it.for([1, 30, 130, 240])('ends after a timeout of %i ms', (timeoutMs, test) => {
    const { calls, guest } = realModeGuest(test, SPIN);
    const start = performance.now();
    expect(calls.run(guest.vcpu, timeoutMs)).toBe(-ERRNO.EINTR);
    const took = performance.now() - start;
    expect(took).toBeGreaterThanOrEqual(timeoutMs - 0.5);
    expect(took).toBeLessThan(timeoutMs + 150);
    guest.close();
  });

  it('is interrupted by a kick that came before, once', (test) => {
    const { calls, guest } = realModeGuest(test, STORE_AND_HALT);
    expect(calls.kick(guest.vcpu)).toBe(0);
    expect(guest.run.getUint8(KVM_RUN.immediate_exit)).toBe(1);
    expect(calls.run(guest.vcpu, 0)).toBe(-ERRNO.EINTR);
    expect(guest.run.getUint8(KVM_RUN.immediate_exit)).toBe(0);
    expect(calls.run(guest.vcpu, 0)).toBe(0);
    guest.close();
  });

  it("leaves the caller's own immediate_exit alone", (test) => {
    const { calls, guest } = realModeGuest(test, SPIN);
    guest.run.setUint8(KVM_RUN.immediate_exit, 1);
    for (let i = 0; i < 3; i++) expect(calls.run(guest.vcpu, 0)).toBe(-ERRNO.EINTR);
    expect(guest.run.getUint8(KVM_RUN.immediate_exit)).toBe(1);
    guest.close();
  });
});

it('has a signal mask in the guest that no request changes', (test) => {
  const { calls, guest } = realModeGuest(test, SPIN);
  const mask = new Uint8Array(12);
  mask[0] = 8;
  const set = requestNumber('KVM_SET_SIGNAL_MASK', calls.arch);
  for (const arg of [mask, 0]) expect(calls.ioctlUnchecked(guest.vcpu, set, arg)).toBe(-ERRNO.EPERM);
  expect(calls.run(guest.vcpu, 20)).toBe(-ERRNO.EINTR);
  guest.close();
});

describe('runAsync', () => {
  it('leaves this thread free, and a kick ends it', async (test) => {
    const { calls, guest } = realModeGuest(test, SPIN);
    const running = calls.runAsync(guest.vcpu);
    let turns = 0;
    for (let i = 0; i < 5; i++) {
      await delay(2);
      turns++;
    }
    expect(turns).toBe(5);
    expect(calls.kick(guest.vcpu)).toBe(0);
    expect(await running).toBe(-ERRNO.EINTR);
    expect(guest.run.getUint8(KVM_RUN.immediate_exit)).toBe(0);
    guest.close();
  });

  it('is one at a time, and nothing else on the vCPU blocks this thread meanwhile', async (test) => {
    const { calls, guest } = realModeGuest(test, SPIN);
    const running = calls.runAsync(guest.vcpu);
    expect(await calls.runAsync(guest.vcpu)).toBe(-ERRNO.EBUSY);
    expect(calls.run(guest.vcpu, 0)).toBe(-ERRNO.EBUSY);
    expect(calls.getRegs(guest.vcpu, new Uint8Array(144))).toBe(-ERRNO.EBUSY);
    expect(calls.getMpState(guest.vcpu)).toBe(-ERRNO.EBUSY);
    expect(calls.setUserMemoryRegion(guest.vm, 1, 0, 0x100000, 0x1000, guest.ram)).toBe(0);
    calls.kick(guest.vcpu);
    expect(await running).toBe(-ERRNO.EINTR);
    expect(calls.getRegs(guest.vcpu, new Uint8Array(144))).toBe(0);
    guest.close();
  });

  it('never loses a kick', async (test) => {
    const { calls, guest } = realModeGuest(test, SPIN);
    for (let i = 0; i < 300; i++) {
      const running = calls.runAsync(guest.vcpu);
      for (let pause = 0; pause < (i % 50) * 200; pause++);
      if (i % 3 === 0) await delay(0);
      calls.kick(guest.vcpu);
      expect(await running).toBe(-ERRNO.EINTR);
    }
    guest.close();
  });

  it('loses no kick where no signal can be queued, and is not begun where none could be set aside', (test) => {
    realModeGuest(test, SPIN);
    if (spawnSync('prlimit', ['--version']).error !== undefined) test.skip('prlimit of util-linux is not here');
    expect(runChild('signal-limit')).toMatchObject({ status: 0, signal: null, stderr: '' });
  });

  it('is over in the guest when stop comes back, and its promise comes later', async (test) => {
    // inc dword [0x2000]; jmp $-5
    const { calls, guest } = realModeGuest(test, [0x66, 0xff, 0x06, 0x00, 0x20, 0xeb, 0xf9]);
    const counter = new Uint8Array(4);
    const count = (): string => {
      calls.readMemory(guest.ram + 0x2000, counter);
      return Buffer.from(counter).toString('hex');
    };
    for (let i = 0; i < 50; i++) {
      const running = calls.runAsync(guest.vcpu);
      if (i % 5 === 0) await delay(1);
      expect(calls.stop(guest.vcpu)).toBe(0);
      const stopped = count();
      expect(calls.getMpState(guest.vcpu)).toBe(-ERRNO.EBUSY);
      expect(await running).toBe(-ERRNO.EINTR);
      expect(count()).toBe(stopped);
      // No kick is left.
      expect(guest.run.getUint8(KVM_RUN.immediate_exit)).toBe(0);
      expect(calls.stop(guest.vcpu)).toBe(0);
      expect(guest.run.getUint8(KVM_RUN.immediate_exit)).toBe(0);
    }
    expect(count()).not.toBe('00000000');
    const kvm = calls.openKvm();
    expect(calls.stop(kvm)).toBe(-ERRNO.EINVAL);
    calls.close(kvm);
    expect(calls.stop(kvm)).toBe(-ERRNO.EBADF);
    guest.close();
  });

  it('of several vCPUs at once does not depend on the thread pool', async (test) => {
    const guests = Array.from({ length: 8 }, () => realModeGuest(test, SPIN));
    const running = guests.map(({ calls, guest }) => calls.runAsync(guest.vcpu));
    await delay(20);
    for (const { calls, guest } of guests) calls.kick(guest.vcpu);
    expect(await Promise.all(running)).toEqual(guests.map(() => -ERRNO.EINTR));
    for (const { guest } of guests) guest.close();
  });

  it('ends when its descriptor is closed, and nothing is left', async (test) => {
    realModeGuest(test, SPIN).guest.close();
    const before = openDescriptors();
    for (let i = 0; i < 20; i++) {
      const { calls, guest } = realModeGuest(test, SPIN);
      const running = calls.runAsync(guest.vcpu);
      if (i % 2 === 0) await delay(1);
      expect(calls.close(guest.vcpu)).toBe(0);
      expect(calls.close(guest.vcpu)).toBe(-ERRNO.EBADF);
      expect(calls.kick(guest.vcpu)).toBe(-ERRNO.EBADF);
      guest.close();
      expect(await running).toBe(-ERRNO.EINTR);
    }
    expect(openDescriptors()).toBe(before);
  });

  it('answers for what is no vCPU', async (test) => {
    const calls = realKvm(test);
    const kvm = calls.openKvm();
    expect(await calls.runAsync(kvm)).toBe(-ERRNO.EINVAL);
    calls.close(kvm);
    expect(await calls.runAsync(kvm)).toBe(-ERRNO.EBADF);
  });
});
