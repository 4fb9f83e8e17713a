import { readdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Kvm, type KvmError, type Vcpu, type Vm } from '../../../lib/index.ts';
import { MP_STATE, spin, store } from '../../../lib/raw.ts';
import { backends, emulatedBackends, UNIT } from './backends.ts';
import { loadGuest, loadStores, runsGuests } from './guests.ts';

/** A register of each architecture that a new vCPU has as 0, or its MP state; and how to give it another value. */
function mark(vcpu: Vcpu): () => unknown {
  switch (vcpu.calls.arch) {
    case 'x86_64':
      vcpu.x86_64.setRegs({ rbx: 0x1234_5678_9abcn });
      return () => vcpu.x86_64.getRegs().rbx;
    case 'ppc64': {
      const regs = vcpu.getRegsBytes(392);
      regs[136] = 7;
      vcpu.setRegsBytes(regs);
      return () => vcpu.getRegsBytes(392)[136];
    }
    case 's390x': {
      const regs = vcpu.getRegsBytes(128);
      regs[9] = 7;
      vcpu.setRegsBytes(regs);
      return () => vcpu.getRegsBytes(128)[9];
    }
    default:
      vcpu.setMpState(MP_STATE.STOPPED);
      return () => vcpu.getMpState();
  }
}

describe.each(backends)('a vCPU that was closed, on $name', (backend) => {
  let kvm: Kvm;
  let vm: Vm;
  beforeEach(() => {
    kvm = Kvm.open(backend.options);
    vm = kvm.createVm();
  });
  afterEach(() => {
    vm.close();
    kvm.close();
  });

  it('has forgotten a kick that found no run, and so has one that was stopped', () => {
    vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
    const first = vm.createVcpu();
    const { immediateExit } = first.kvmRun;
    first.kick();
    expect(first.kvmRun.immediateExit).toBe(true);
    first.close();
    const again = vm.createVcpu(0);
    expect(again.kvmRun.immediateExit).toBe(immediateExit);
    again.kick();
    expect(kvm.calls.stop(again.fd)).toBe(0);
    expect(again.kvmRun.immediateExit).toBe(immediateExit);
    // A flag of the caller's own is left alone.
    again.kvmRun.immediateExit = true;
    expect(kvm.calls.stop(again.fd)).toBe(0);
    expect(again.kvmRun.immediateExit).toBe(true);
  });

  it('is not to be had by an id beyond all numbers, as by one beyond the limit', () => {
    for (const id of [2n ** 32n, 2n ** 53n + 1n, 2n ** 64n - 1n]) {
      expect(() => vm.createVcpu(id)).toThrow(
        expect.objectContaining({
          code: 'EINVAL',
          explanation: expect.stringContaining(`vCPU id ${id}: ids must be below`),
        }),
      );
    }
    expect(vm.createVcpu().id).toBe(0);
  });

  it('has a dirty ring of as many bytes as fit the kernel’s u32', (test) => {
    const cap = (['DIRTY_LOG_RING', 'DIRTY_LOG_RING_ACQ_REL'] as const).find((name) => kvm.checkExtension(name) > 0);
    if (cap === undefined) test.skip('this kernel has no dirty rings');
    else {
      expect(() => vm.enableDirtyRing(2 ** 32 + 4096)).toThrow(expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' }));
      expect(() => vm.enableCap(cap, [2 ** 32])).toThrow(expect.objectContaining({ code: 'EINVAL' }));
      vm.enableCap(cap, [2 ** 32 + 2 * kvm.pageSize]);
      const vcpu = vm.createVcpu();
      vcpu.close();
      expect(vm.createVcpu(0).closed).toBe(false);
    }
  });

  it('is handed out anew by its id, with its state', () => {
    vm.createVcpu();
    const first = vm.createVcpu();
    const marked = mark(first)();
    const area = first.kvmRun.bytes;
    const { fd } = first;
    first.close();
    expect([first.closed, first.fd, area.length, vm.vcpus.length]).toEqual([true, -1, 0, 1]);
    expect(() => first.getMpState()).toThrow(expect.objectContaining({ code: 'EBADF' }));
    const again = vm.createVcpu(1);
    expect([again.id, again.fd, vm.vcpus.includes(again)]).toEqual([1, fd, true]);
    expect(mark(again)()).toEqual(marked);
    expect(() => vm.createVcpu(1)).toThrow(expect.objectContaining({ explanation: 'there is a vCPU 1 already' }));
    expect(vm.createVcpu().id).toBe(2);
    // It is the new handle's alone.
    first.close();
    expect(again.closed).toBe(false);
    again.close();
    expect(vm.createVcpu(1n).fd).toBe(fd);
  });

  it('goes with its VM, and not before', () => {
    const numbers = (): number => readdirSync('/proc/self/fd').length;
    const before = numbers();
    const vcpu = vm.createVcpu();
    vcpu.close();
    if (backend.options.backend === 'native') expect(numbers()).toBe(before + 1);
    const next = kvm.calls.eventfd(0);
    vm.close();
    expect(numbers()).toBeLessThanOrEqual(before + 1);
    expect(kvm.calls.close(next)).toBe(0);
    expect(() => vm.createVcpu(0)).toThrow(expect.objectContaining({ code: 'EBADF' }));
  });

  it('whose descriptor somebody else closed is gone, and a refusal says so', () => {
    const vcpu = vm.createVcpu();
    kvm.calls.close(vcpu.fd);
    vcpu.close();
    expect(() => vm.createVcpu(0)).toThrow(
      expect.objectContaining({
        code: kvm.arch === 'ppc64' ? 'EINVAL' : 'EEXIST',
        explanation: expect.stringContaining('there was a vCPU 0 whose descriptor is closed'),
      }),
    );
  });

  if (!runsGuests(backend)) return;

  it('while it ran is out of the guest at once, and free once its run has come back', async () => {
    vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
    const vcpu = vm.createVcpu();
    if (kvm.emulated === undefined) {
      // jmp $
      vm.memory.writeExact(0x1000, Uint8Array.of(0xeb, 0xfe));
      const sregs = vcpu.x86_64.getSregs();
      vcpu.x86_64.setSregs({ cs: { ...sregs.cs, base: 0n, selector: 0 } });
      vcpu.x86_64.setRegs({ rip: 0x1000, rflags: 2 });
    } else {
      kvm.emulated.loadGuest(
        vcpu.fd,
        (function* () {
          yield spin;
        })(),
      );
    }
    const running = vcpu.run().catch((error: { code: string }) => error.code);
    await sleep(5);
    vcpu.close();
    const why = expect.objectContaining({ code: 'EBUSY', explanation: expect.stringContaining('closed while it ran') });
    expect(() => vm.createVcpu(0)).toThrow(why);
    expect(await running).toBe('EBADF');
    const again = vm.createVcpu(0);
    // The kick that got it out is used up.
    expect(again.kvmRun.immediateExit).toBe(false);
    expect(again.runSync({ timeoutMs: 5 })).toEqual({ reason: 'INTR' });
  });

  it('goes on where it was', async () => {
    vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
    const vcpu = vm.createVcpu();
    loadGuest(kvm, vm, vcpu, [{ load: 8 * UNIT, storedAt: 0x3000 }]);
    expect(vcpu.runSync()).toMatchObject({ reason: 'MMIO', gpa: 8 * UNIT });
    vcpu.close();
    const again = vm.createVcpu(0);
    const exit = again.kvmRun.exit();
    if (exit.reason !== 'MMIO') throw new Error(exit.reason);
    exit.data.set([0x77]);
    expect(again.runSync().reason).toBe('HLT');
    expect(vm.memory.readU8(0x3000)).toBe(0x77);
  });
});

const withRings = emulatedBackends.filter(({ options }) => {
  using kvm = Kvm.open(options);
  return kvm.checkExtension('DIRTY_LOG_RING_ACQ_REL') > 0;
});

describe.each(withRings)('the dirty ring of a vCPU that was closed, on $name', ({ options }) => {
  it('is read on where it was', () => {
    using kvm = Kvm.open(options);
    using vm = kvm.createVm();
    vm.enableDirtyRing(4096);
    vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
    vm.dirtyPages.start();
    let vcpu = vm.createVcpu();
    const told: number[] = [];
    const page = kvm.pageSize;
    for (let round = 1; round <= 40; round++) {
      const gfns = [2, 3, 5].map((gfn) => gfn + (round % 7));
      kvm.emulated!.loadGuest(
        vcpu.fd,
        (function* () {
          for (const gfn of gfns) yield store(gfn * page, 1, BigInt(round));
          yield spin;
        })(),
      );
      for (let run = 0; run < 100 && vm.memory.readU8(gfns[2]! * page) !== round; run++) vcpu.runSync({ timeoutMs: 2 });
      vcpu.close();
      told.push(...[...vm.dirtyPages.collect().pages()].filter((gfn) => gfns.includes(gfn)));
      vcpu = vm.createVcpu(0);
    }
    expect(told.length).toBe(120);
  });
});

describe('a closed vCPU of x86_64', () => {
  it('leaves nothing of itself in the list of those that store', () => {
    using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
    using vm = kvm.createVm();
    vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
    const seen: number[] = [];
    vm.memory.addMmio(8 * UNIT, 16, { write: (offset) => seen.push(offset) });
    vm.io.registerCoalescedMmio(8 * UNIT, 16);
    for (let round = 0; round < 3; round++) {
      const vcpu = vm.createVcpu(0);
      loadStores(kvm, vm, vcpu, [8 * UNIT + round]);
      expect(vcpu.runSync().reason).toBe('HLT');
      vcpu.close();
    }
    expect(seen).toEqual([0, 1, 2]);
  });
});

describe('a handler of coalesced stores that is called since a vCPU is closed', () => {
  function machine(write: () => void) {
    const kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
    const vm = kvm.createVm();
    vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
    vm.memory.addMmio(8 * UNIT, 16, { write });
    vm.io.registerCoalescedMmio(8 * UNIT, 16);
    const vcpu = vm.createVcpu();
    kvm.emulated!.loadGuest(
      vcpu.fd,
      (function* () {
        yield store(8 * UNIT, 1, 1n);
        for (;;) yield spin;
      })(),
    );
    return { kvm, vm, vcpu };
  }

  it('may close it as well: it can be made anew', async () => {
    const { kvm, vm, vcpu } = machine(() => vcpu.close());
    const ended = vcpu.run().catch(({ code }: KvmError) => code);
    await new Promise((turn) => setTimeout(turn, 20));
    vcpu.close();
    expect(await ended).toBe('EBADF');
    expect(vm.createVcpu(0).closed).toBe(false);
    kvm.close();
  });

  it.each([true, false])('may close the VM, or (%s) throw: it is closed all the same', async (throws) => {
    const { kvm, vm, vcpu } = machine(() => {
      if (throws) throw new Error('broken');
      vm.close();
    });
    const second = vm.createVcpu();
    const ended = vcpu.run().catch(({ code }: KvmError) => code);
    await new Promise((turn) => setTimeout(turn, 20));
    if (throws) expect(() => vm.close()).toThrow('broken');
    else vm.close();
    expect([vm.closed, vcpu.closed, second.closed, vm.fd]).toEqual([true, true, true, -1]);
    expect(await ended).toBe('EBADF');
    kvm.close();
  });
});

it('vCPUs that are closed are among those that a VM may have, and the refusal of one more says so', () => {
  using kvm = Kvm.open({ backend: 'emulated', arch: 's390x' });
  using vm = kvm.createVm();
  const most = vm.checkExtension('MAX_VCPUS');
  for (let id = 0; id < most; id++) vm.createVcpu().close();
  vm.createVcpu(3);
  expect(() => vm.createVcpu()).toThrow(
    `at most ${most} vCPUs (there are 1; KVM keeps ${most - 1} that are closed, too: createVcpu with the id of one gives it anew)`,
  );
  using other = kvm.createVm();
  expect(() => other.createVcpu(most)).toThrow(`at most ${most} vCPUs (there are 0)`);
});
