import { inspect } from 'node:util';
import { afterEach, describe, expect, it } from 'vitest';
import { Kvm } from '../../../lib/index.ts';
import * as raw from '../../../lib/raw.ts';
import { UNIT } from './backends.ts';

describe('opening', () => {
  const addon = process.env.KVM_BRIDGE_ADDON;
  afterEach(() => {
    if (addon === undefined) delete process.env.KVM_BRIDGE_ADDON;
    else process.env.KVM_BRIDGE_ADDON = addon;
  });

  it('falls back to the emulated kernel without the addon, saying why, unless the real one is insisted on', () => {
    process.env.KVM_BRIDGE_ADDON = '/nonexistent/kvm_bridge.node';
    using kvm = Kvm.open();
    expect(kvm.backend).toBe('emulated');
    expect(kvm.fallbackReason).toContain('addon');
    expect(() => Kvm.open({ backend: 'native' })).toThrow(expect.objectContaining({ code: 'ENOSYS' }));
  });

  it('takes another architecture for a wish for the emulated kernel', () => {
    for (const arch of ['s390x', 'ppc64'] as const) {
      using kvm = Kvm.open({ arch });
      expect([kvm.arch, kvm.backend, kvm.emulated?.arch]).toEqual([arch, 'emulated', arch]);
    }
  });

  it('explains why /dev/kvm cannot be opened', () => {
    const calls = new Proxy(new raw.EmulatedKernel({ arch: 'x86_64' }), {
      get: (target, key) => (key === 'openKvm' ? () => -raw.ERRNO.EACCES : Reflect.get(target, key)),
    });
    expect(() => Kvm.open({ calls })).toThrow(
      expect.objectContaining({
        code: 'EACCES',
        syscall: 'open(/dev/kvm)',
        explanation: expect.stringContaining('usermod'),
      }),
    );
  });

  it.each([
    ['6.12.107+deb13-s390x', 'native', true],
    ['7.2.12+deb14-s390x', 'native', false],
    ['6.12', 'emulated', false],
    ['of no known form', 'native', true],
  ] as const)('asks for vm.allocate_pgste where there is such a thing: %s, %s', (release, backend, asks) => {
    const answers = { release, backend, createVm: () => -raw.ERRNO.EINVAL };
    const calls: raw.KvmCalls = Object.assign(new raw.EmulatedKernel({ arch: 's390x' }), answers);
    using kvm = Kvm.open({ calls });
    expect(kvm.release).toBe(release);
    expect(() => kvm.createVm()).toThrow(
      expect.objectContaining({
        explanation: asks ? expect.stringContaining('allocate_pgste') : expect.not.stringContaining('allocate_pgste'),
      }),
    );
  });

  it('traces every call as one line', () => {
    const lines: string[] = [];
    using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64', trace: (line) => lines.push(line) });
    kvm.checkExtension('NR_MEMSLOTS');
    expect(lines).toEqual(['openKvm() = kvm#1', 'checkExtension(kvm#1, NR_MEMSLOTS) = 32764']);
    expect(kvm.emulated).toBeInstanceOf(raw.EmulatedKernel);
  });
});

it('prints handles as tables with hexadecimal addresses', () => {
  using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
  using vm = kvm.createVm();
  vm.memory.addRam(UNIT, kvm.mapAnonymous(2 * UNIT), { name: 'main', readOnly: true });
  vm.memory.addMmio(0xd000_0000, 8, {}, { name: 'uart' });
  vm.io.ports.add(0x3f8, 8, {}, 'com1');
  const text = inspect(vm);
  expect(text).toMatch(/\[0x100000, 0x300000\) +2 MiB +ram +anonymous 0x[0-9a-f]+ +read-only +main/);
  expect(text).toMatch(/\[0xd0000000, 0xd0000008\) +8 bytes +mmio +uart/);
  expect(text).toMatch(/0 +\[0x100000, 0x300000\) +2 MiB +0x[0-9a-f]+ +READONLY/);
  expect(inspect(vm.io.ports)).toMatch(/\[0x3f8, 0x400\) +com1/);
  expect(inspect(kvm)).toContain('x86_64');
  expect(inspect(vm.createVcpu())).toMatch(/^Vcpu 0 fd \d+/);
  expect(inspect(vm.dirtyPages.start())).toContain('DirtyPages (log)');
  const eventfd = kvm.createEventFd();
  const doorbell = vm.io.ioeventfd({ addr: 0xd000_1000, len: 4, eventfd, datamatch: 5 });
  expect(inspect(doorbell)).toBe('Registration of an ioeventfd, stores to [0xd0001000, 0xd0001004), of 0x5');
  doorbell.close();
  expect(inspect(doorbell)).toMatch(/\(closed\)$/);
  const coalesced = vm.io.registerCoalescedMmio(0x70, 2, { pio: true });
  expect(inspect(coalesced)).toBe('Registration of coalesced ports [0x70, 0x72)');
  vm.close();
  expect(inspect(vm)).toBe('Vm (closed)');
});

it('gives the raw layer whole', () => {
  const calls = raw.checked(raw.openCalls({ backend: 'emulated', arch: 'ppc64', pageSize: 65536 }).calls);
  const vm = calls.createVm(calls.openKvm(), 0);
  expect(calls.setUserMemoryRegion(vm, 0, 0, 1, 65536, 0)).toBe(-raw.ERRNO.EINVAL);
  expect(() => calls.createVm('x' as unknown as number, 0)).toThrow(TypeError);
  expect(raw.requestNumber('KVM_RUN', calls.arch)).toBe(0x2000_ae80);
  expect(raw.SIGNATURES.run.syscall).toBe('ioctl(KVM_RUN)');
  expect(calls.ppc64?.allocateHtab(vm, 18)).toBe(0);
  expect(calls.s390x).toBeUndefined();
});

it('opens an emulated x86_64 that is built as wanted', () => {
  const types = (swProtectedVm: boolean): number => {
    using kvm = Kvm.open({ arch: 'x86_64', backend: 'emulated', x86_64: { swProtectedVm } });
    return kvm.checkExtension('VM_TYPES');
  };
  expect([types(false), types(true)]).toEqual([1, 3]);
  using kvm = Kvm.open({ x86_64: { guestPhysicalBits: 40 }, arch: 'x86_64' });
  expect(kvm.backend).toBe('emulated');
});
