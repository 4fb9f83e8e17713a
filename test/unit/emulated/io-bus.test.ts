import { afterEach, describe, expect, it } from 'vitest';
import { EmulatedKernel } from '../../../lib/backends/emulated.ts';
import { emulationOf } from '../../../lib/backends/emulation.ts';
import { loadNative } from '../../../lib/backends/native.ts';
import type { KvmCalls } from '../../../lib/calls/kvm-calls.ts';
import { ERRNO } from '../../../lib/uapi/errno.ts';
import { IOEVENTFD } from '../../../lib/uapi/flags.ts';
import { whyNoKvm } from '../../scenarios/real-host.ts';

// Limits that take so many calls to reach that a recording of them would say nothing to a reader.

const loaded = loadNative();
const missing = whyNoKvm(loaded);
const real = missing === undefined && 'calls' in loaded && loaded.calls.arch === 'x86_64' ? loaded.calls : undefined;
const kernels: [string, KvmCalls][] = [
  ['the emulated kernel', new EmulatedKernel(real === undefined ? { arch: 'x86_64' } : emulationOf(real))],
];
if (real !== undefined) kernels.push(['the real kernel', real]);

if (real === undefined) it('the real kernel', (test) => test.skip(missing ?? 'this is about x86_64'));

describe.each(kernels)('limits of the buses on %s', (_name, calls) => {
  const fds: number[] = [];
  const opened = (fd: number): number => {
    fds.push(fd);
    return fd;
  };
  afterEach(() => {
    for (const fd of fds.splice(0).reverse()) calls.close(fd);
  });
  const newVm = (): number => opened(calls.createVm(opened(calls.openKvm()), 0));

  it('takes a thousand coalesced zones on each bus, and then no ioeventfd either', () => {
    const vm = newVm();
    const zones = Array.from({ length: 1001 }, (_, i) => calls.registerCoalescedMmio(vm, 0x1000 * (i + 1), 0x100, 0));
    expect(zones.slice(0, 1000).every((result) => result === 0)).toBe(true);
    expect(zones[1000]).toBe(-ERRNO.ENOSPC);
    const eventfd = opened(calls.eventfd(0));
    expect(calls.ioeventfd(vm, 0x8, 4, eventfd, 0, 0)).toBe(-ERRNO.ENOSPC);
    expect(calls.registerCoalescedMmio(vm, 0x10, 0x10, 1)).toBe(0);
    expect(calls.ioeventfd(vm, 0x8, 4, eventfd, IOEVENTFD.PIO, 0)).toBe(0);
  });

  it('makes an interrupt controller only before the vCPUs', () => {
    const vm = newVm();
    opened(calls.createVcpu(vm, 0));
    expect(calls.createIrqchip(vm)).toBe(-ERRNO.EINVAL);
  });
});
