import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { EmulatedKernel } from '../../../lib/backends/emulated.ts';
import type { KvmCalls } from '../../../lib/calls/kvm-calls.ts';
import { type TraceOptions, traced } from '../../../lib/calls/recorder.ts';
import { Kvm, type OpenOptions } from '../../../lib/index.ts';
import type { Arch } from '../../../lib/uapi/arch.ts';
import { CAP } from '../../../lib/uapi/capabilities.ts';
import { GUEST_MEMFD_FLAG, MADV, MEM, MEMORY_ATTRIBUTE_PRIVATE } from '../../../lib/uapi/flags.ts';
import { requestNumber } from '../../../lib/uapi/requests.ts';

/** The lines of some calls on an emulated kernel. */
function lines(arch: Arch, options: TraceOptions, run: (calls: KvmCalls, kernel: EmulatedKernel) => void): string[] {
  const noted: string[] = [];
  const kernel = new EmulatedKernel({ arch });
  run(
    traced(kernel, (line) => noted.push(line), options),
    kernel,
  );
  return noted;
}

const some = (calls: KvmCalls): void => {
  const kvm = calls.openKvm();
  calls.checkExtension(kvm, CAP.S390_HPAGE_2G);
  calls.checkExtension(kvm, 4711);
  const vm = calls.createVm(kvm, 0);
  calls.setUserMemoryRegion(vm, 0, MEM.LOG_DIRTY_PAGES | MEM.READONLY | 0x80, 0, 1, 0);
  calls.createGuestMemfd(vm, 1, GUEST_MEMFD_FLAG.MMAP | GUEST_MEMFD_FLAG.INIT_SHARED);
  calls.setMemoryAttributes(vm, 0, 1, MEMORY_ATTRIBUTE_PRIVATE, 0);
  calls.ioctlUnchecked(vm, requestNumber('KVM_PPC_GET_COMPAT_CAPS', calls.arch), 0);
  calls.ioctlUnchecked(vm, requestNumber('UFFDIO_RWPROTECT', calls.arch), 0);
  calls.ioctlUnchecked(vm, 0x1234, 0);
  const hva = calls.mmap(4096, 3, 0x22, -1, 0, 0, 0);
  calls.mprotect(hva, 4096, 0);
  calls.madvise(hva, 4096, MADV.DONTNEED);
};

describe('a trace with symbols', () => {
  it('has names where there are some, and numbers for the rest', () => {
    expect(lines('ppc64', { symbols: true }, some).slice(1)).toEqual([
      'checkExtension(kvm#1, S390_HPAGE_2G) = 0',
      'checkExtension(kvm#1, 4711) = 0',
      'createVm(kvm#1, 0) = vm#1',
      'setUserMemoryRegion(vm#1, 0, LOG_DIRTY_PAGES|READONLY|0x80, 0x0, 0x1, 0x0) = -EINVAL',
      'createGuestMemfd(vm#1, 0x1, MMAP|INIT_SHARED) = -ENOTTY',
      'setMemoryAttributes(vm#1, 0x0, 0x1, PRIVATE, 0x0) = -ENOTTY',
      'ioctlUnchecked(vm#1, KVM_PPC_GET_COMPAT_CAPS, 0x0) = -ENOTTY',
      'ioctlUnchecked(vm#1, UFFDIO_RWPROTECT, 0x0) = -ENOTTY',
      'ioctlUnchecked(vm#1, 0x1234, 0x0) = -ENOTTY',
      'mmap(0x1000, READ|WRITE, PRIVATE|ANONYMOUS, -1, 0x0, 0x0, 0x0) = map#1',
      'mprotect(map#1, 0x1000, NONE) = 0',
      'madvise(map#1, 0x1000, DONTNEED) = 0',
    ]);
  });

  it('is a recording without them: numbers', () => {
    const recorded = lines('ppc64', {}, some);
    expect(recorded[1]).toBe('checkExtension(kvm#1, 249) = 0');
    expect(recorded[4]).toBe('setUserMemoryRegion(vm#1, 0, 0x83, 0x0, 0x1, 0x0) = -EINVAL');
  });

  it('says what a run ended with, for as long as its kvm_run is mapped', () => {
    const run = (calls: KvmCalls, kernel: EmulatedKernel): void => {
      const kvm = calls.openKvm();
      const vcpu = calls.createVcpu(calls.createVm(kvm, 0), 0);
      kernel.loadGuest(
        vcpu,
        (function* () {
          yield { op: 'store', address: 0x1000, size: 4, value: 1n };
          yield { op: 'out', port: 0x10, size: 1, value: 0n };
          yield { op: 'out', port: 0x10, size: 1, value: 0n };
        })(),
      );
      calls.run(vcpu, 0);
      const area = calls.mmap(calls.getVcpuMmapSize(kvm, 0), 3, 1, vcpu, 0, 0, 0);
      calls.run(vcpu, 0);
      calls.munmap(area, calls.getVcpuMmapSize(kvm, 0));
      calls.run(vcpu, 0);
    };
    const runs = (options: TraceOptions) => lines('x86_64', options, run).filter((line) => line.startsWith('run('));
    expect(runs({ symbols: true })).toEqual([
      'run(vcpu#1, 0) = 0',
      'run(vcpu#1, 0) = 0 -> exit IO port 0x10 size 0x1 count 0x1 out',
      'run(vcpu#1, 0) = 0',
    ]);
    expect(runs({})).toEqual(Array.from({ length: 3 }, () => 'run(vcpu#1, 0) = 0'));
  });
});

describe('a sink that throws', () => {
  const full = (): void => {
    throw new Error('ENOSPC');
  };

  /** What is thrown later, and would end the process here. */
  function thrownLater(): string[] {
    const thrown: string[] = [];
    const spy = vi.spyOn(globalThis, 'queueMicrotask').mockImplementation((task) => {
      expect(task).toThrow('ENOSPC');
      thrown.push('ENOSPC');
    });
    onTestFinished(() => spy.mockRestore());
    return thrown;
  }

  /** A record's head comes before any call: there it may refuse. */
  const sink = (line: string): void => {
    if (!line.includes('kvm-bridge-trace')) full();
  };

  it.each<[string, Pick<OpenOptions, 'trace' | 'record'>]>([
    ['trace', { trace: sink }],
    ['record', { record: sink }],
    ['both', { trace: sink, record: sink }],
  ])('loses nothing that the kernel gave, and is heard later: %s', async (_, options) => {
    const thrown = thrownLater();
    using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64', ...options });
    using vm = kvm.createVm();
    vm.memory.addRam(0, kvm.mapAnonymous(0x10_000));
    vm.memory.writeU32(0x1000, 0xcafe);
    expect(vm.memory.readU32(0x1000)).toBe(0xcafe);
    const vcpu = vm.createVcpu(0);
    kvm.emulated!.loadGuest(
      vcpu.fd,
      (function* () {
        for (;;) yield { op: 'out', port: 0x10, size: 1, value: 0n };
      })(),
    );
    expect(await vcpu.run()).toMatchObject({ reason: 'IO' });
    expect(vcpu.running).toBe(false);
    expect(vcpu.runSync()).toMatchObject({ reason: 'IO' });
    expect(thrown.length).toBeGreaterThan(10);
  });

  it('nor does an observer', () => {
    const thrown = thrownLater();
    const observer = { opened: full, closed: full, mapped: full, unmapped: full };
    const noted = lines('x86_64', { observer }, (calls) => {
      const kvm = calls.openKvm();
      calls.munmap(calls.mmap(4096, 3, 0x22, -1, 0, 0, 0), 4096);
      expect([kvm, calls.close(kvm)]).toEqual([expect.any(Number), 0]);
    });
    expect([noted.length, thrown.length]).toEqual([4, 4]);
  });
});
