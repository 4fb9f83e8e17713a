import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Kvm, type Vcpu, type VcpuExit, type Vm } from '../../../lib/index.ts';
import { load, spin, store } from '../../../lib/raw.ts';
import { backends, emulatedBackends, UNIT } from './backends.ts';
import { loadGuest, runsGuests } from './guests.ts';

const MMIO = 8 * UNIT;

/** Answers a load. */
function answer(exit: VcpuExit, value: number): void {
  if (exit.reason !== 'MMIO') throw new Error(`${exit.reason} instead of MMIO`);
  exit.data[0] = value;
}

describe.each(backends.filter(runsGuests))('a pause on $name', ({ options }) => {
  let kvm: Kvm;
  let vm: Vm;
  let vcpu: Vcpu;
  beforeEach(() => {
    kvm = Kvm.open(options);
    vm = kvm.createVm();
    vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
    vcpu = vm.createVcpu();
  });
  afterEach(() => {
    vm.close();
    kvm.close();
  });

  it.each([false, true])('has the kernel take the answer to an exit, immediateExit being %s before', async (before) => {
    loadGuest(kvm, vm, vcpu, [{ load: MMIO, storedAt: 0x3000 }]);
    const exit = vcpu.runSync();
    answer(exit, 0x77);
    vcpu.kvmRun.immediateExit = before;
    expect(await vcpu.pause()).toEqual({ reason: 'INTR' });
    expect(vcpu.kvmRun.immediateExit).toBe(before);
    if (kvm.emulated === undefined) expect(vcpu.x86_64.getRegs().rax & 0xffn).toBe(0x77n);
    // What is put there now is too late.
    answer(exit, 0x11);
    vcpu.kvmRun.immediateExit = false;
    expect(vcpu.runSync().reason).toBe('HLT');
    expect(vm.memory.readU8(0x3000)).toBe(0x77);
  });

  /** The guest does nothing, for ever. */
  function loadSpinning(): void {
    loadGuest(kvm, vm, vcpu, [{ load: 0x2000 }]);
    if (kvm.emulated === undefined) vm.memory.writeExact(0x1000, Uint8Array.of(0xeb, 0xfe));
    else {
      kvm.emulated.loadGuest(
        vcpu.fd,
        (function* () {
          for (;;) yield spin;
        })(),
      );
    }
  }

  /** Long enough for the guest to be out, and nobody hears of it. */
  function busy(): void {
    for (const end = performance.now() + 5; performance.now() < end; );
  }

  it.each(['kick', 'pause', 'abort'] as const)(
    'leaves no kick where the guest was out already by %s',
    async (first) => {
      loadSpinning();
      const controller = new AbortController();
      const running = vcpu.run({ signal: controller.signal }).then(
        ({ reason }) => reason,
        (error: Error) => error.name,
      );
      await sleep(5);
      const paused = first === 'pause' ? vcpu.pause() : undefined;
      if (first === 'kick') vcpu.kick();
      else if (first === 'abort') controller.abort();
      busy();
      expect(await vcpu.pause()).toEqual({ reason: 'INTR' });
      await paused;
      expect(await running).toBe(first === 'abort' ? 'AbortError' : 'INTR');
      expect(vcpu.kvmRun.immediateExit).toBe(false);
      const again = vcpu.run();
      await sleep(10);
      expect(vcpu.running).toBe(true);
      vcpu.kick();
      expect(await again).toEqual({ reason: 'INTR' });
    },
  );

  it('does not make a resolved run of one that was aborted', async () => {
    loadSpinning();
    const controller = new AbortController();
    const running = vcpu.run({ signal: controller.signal });
    const refused = expect(running).rejects.toThrow('no longer');
    await sleep(5);
    controller.abort(new Error('no longer'));
    expect(await vcpu.pause()).toEqual({ reason: 'INTR' });
    await refused;
  });

  it('ends a run under way, which comes back first, and leaves no kick', async () => {
    loadSpinning();
    const order: string[] = [];
    const running = vcpu.run().then(({ reason }) => order.push(`run ${reason}`));
    await sleep(5);
    const paused = vcpu.pause().then(({ reason }) => order.push(`pause ${reason}`));
    await Promise.all([running, paused]);
    expect(order.sort()).toEqual(['pause INTR', 'run INTR']);
    expect([vcpu.running, vcpu.kvmRun.immediateExit]).toEqual([false, false]);
    expect(await vcpu.pause()).toEqual({ reason: 'INTR' });
  });

  it('gives back the exit that a run came to by itself, and finishes it when it is answered', async () => {
    loadGuest(kvm, vm, vcpu, [{ load: MMIO, storedAt: 0x3000 }]);
    const running = vcpu.run();
    // The guest is out already; nobody has been told yet.
    for (const end = performance.now() + 20; performance.now() < end; );
    const exit = await vcpu.pause();
    expect(exit).toMatchObject({ reason: 'MMIO', gpa: MMIO });
    expect(await running).toMatchObject({ reason: 'MMIO', gpa: MMIO });
    answer(exit, 0x55);
    expect(await vcpu.pause()).toEqual({ reason: 'INTR' });
    expect(vcpu.runSync().reason).toBe('HLT');
    expect(vm.memory.readU8(0x3000)).toBe(0x55);
  });

  it('is of all vCPUs of a VM', async () => {
    loadGuest(kvm, vm, vcpu, [{ load: MMIO, storedAt: 0x3000 }]);
    answer(vcpu.runSync(), 0x66);
    const second = vm.createVcpu();
    vm.createVcpu().close();
    expect(await vm.pause()).toEqual([{ reason: 'INTR' }, { reason: 'INTR' }]);
    expect(second.running).toBe(false);
    expect(vcpu.runSync().reason).toBe('HLT');
    expect(vm.memory.readU8(0x3000)).toBe(0x66);
  });

  it('cannot be made by a handler, nor of a closed vCPU', async () => {
    let inside: Promise<unknown> | undefined;
    vm.memory.addMmio(MMIO, 16, {
      read: () => {
        inside ??= vcpu.pause().catch((error: { code: string }) => error.code);
        return 1;
      },
    });
    loadGuest(kvm, vm, vcpu, [{ load: MMIO }]);
    expect(vcpu.runSync().reason).toBe('HLT');
    expect(await inside).toBe('EBUSY');
    vcpu.close();
    await expect(vcpu.pause()).rejects.toMatchObject({ code: 'EBADF' });
    await expect(vm.pause()).resolves.toEqual([]);
  });
});

describe.each(emulatedBackends)('a pause on $name', ({ options }) => {
  it('is possible before the guest has ever run', async () => {
    using kvm = Kvm.open(options);
    using vm = kvm.createVm();
    vm.createVcpu();
    vm.createVcpu();
    expect(await vm.pause()).toEqual([{ reason: 'INTR' }, { reason: 'INTR' }]);
  });
});

it('coalesced stores have reached their handlers when a pause comes back', async () => {
  using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
  using vm = kvm.createVm();
  const seen: number[] = [];
  vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
  vm.memory.addMmio(MMIO, 16, { write: (offset) => seen.push(offset) });
  vm.io.registerCoalescedMmio(MMIO, 16);
  const vcpu = vm.createVcpu();
  kvm.emulated!.loadGuest(
    vcpu.fd,
    (function* () {
      yield store(MMIO + 3, 1, 1n);
      yield spin;
    })(),
  );
  // Past the typed layer, which delivers after each run.
  kvm.calls.run(vcpu.fd, 5);
  expect(seen).toEqual([]);
  await vm.pause();
  expect(seen).toEqual([3]);
});

it('handlers take the exits that come of the rest of an access', async () => {
  using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
  using vm = kvm.createVm();
  vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
  const vcpu = vm.createVcpu();
  let loaded: unknown;
  kvm.emulated!.loadGuest(
    vcpu.fd,
    (function* () {
      // Across two pages: two exits.
      loaded = yield load(MMIO + 0xffe, 4);
    })(),
  );
  vm.memory.addMmio(MMIO + 0x1000, 16, { read: () => 0x4433 });
  const exit = vcpu.runSync();
  if (exit.reason !== 'MMIO') throw new Error(exit.reason);
  exit.data.set([0x11, 0x22]);
  expect(await vcpu.pause()).toEqual({ reason: 'INTR' });
  expect(vcpu.runSync().reason).toBe('HLT');
  expect(loaded).toBe(0x4433_2211n);
});
