import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { execute, type GuestProgram, halt, ins, outs, spin, store, update } from '../../../lib/emulated/guest.ts';
import { Kvm, type Vcpu, type Vm } from '../../../lib/index.ts';
import { ERRNO } from '../../../lib/uapi/errno.ts';
import { REGS_SIZE } from '../../../lib/uapi/structs.ts';
import { chunkOf, hptVm, identity } from '../arch/ppc64/handles/emulated-hpt.ts';

const MMIO = 0xd000_0000;

let kvm: Kvm;
let vm: Vm;
let vcpu: Vcpu;

beforeEach(() => {
  kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
  vm = kvm.createVm();
  vcpu = vm.createVcpu();
});
afterEach(() => {
  vm.close();
  kvm.close();
});

/** Gives the vCPU these operations, the last of them for ever. */
function load(...ops: ReturnType<typeof store>[]): void {
  kvm.emulated!.loadGuest(
    vcpu.fd,
    (function* (): GuestProgram {
      for (const op of ops) yield op;
      for (;;) yield ops.at(-1)!;
    })(),
  );
}

it('a run under way keeps the process alive, as on the real kernel', async () => {
  const timers = () => process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length;
  load(spin);
  const run = vcpu.run();
  // The event loop has turned: the guest spins.
  await new Promise((turn) => setImmediate(turn));
  await new Promise((turn) => setImmediate(turn));
  const whileRunning = timers();
  vcpu.kick();
  expect((await run).reason).toBe('INTR');
  expect(whileRunning - timers()).toBe(1);
});

describe('a guest that exits in a loop', () => {
  beforeEach(() => load(store(MMIO, 1, 1n)));

  it('lets timers fire between any two runs', async () => {
    let fired = false;
    setTimeout(() => {
      fired = true;
    }, 1);
    const start = performance.now();
    let runs = 0;
    while (!fired && performance.now() - start < 5000) {
      expect((await vcpu.run()).reason).toBe('MMIO');
      runs++;
    }
    expect(fired).toBe(true);
    expect(runs).toBeGreaterThan(0);
  });

  it('is stopped by a signal though handlers answer all of its exits', async () => {
    let stores = 0;
    vm.memory.addMmio(MMIO, 8, {
      write: () => {
        // A guest that cannot be stopped would never end.
        if (++stores === 1_000_000) throw new Error('starved');
      },
    });
    await expect(vcpu.run({ signal: AbortSignal.timeout(50) })).rejects.toMatchObject({ name: 'TimeoutError' });
    expect(stores).toBeGreaterThan(0);
  });
});

describe('immediateExit', () => {
  it.each([
    ['spins', [spin]],
    ['is halted, with an interrupt controller in the kernel', [halt]],
  ])('ends a run of a guest that %s already', async (what, ops) => {
    if (what.startsWith('is halted')) {
      vm.close();
      vm = kvm.createVm();
      kvm.calls.createIrqchip(vm.fd);
      vcpu = vm.createVcpu();
    }
    load(...ops);
    expect(vcpu.runSync().reason).toBe('INTR');
    vcpu.kvmRun.immediateExit = true;
    const outcome = await Promise.race([vcpu.run(), sleep(5000, 'never')]);
    expect(outcome).toEqual({ reason: 'INTR' });
    // And goes on once it is off again.
    vcpu.kvmRun.immediateExit = false;
    const running = vcpu.run();
    expect(await Promise.race([running, sleep(20, 'running')])).toBe('running');
    vcpu.kick();
    expect((await running).reason).toBe('INTR');
  });
});

it.each([2 ** 53, 2 ** 60, -1, 0.5])(
  'an address that is no exact one is refused, and the vCPU stays usable: %d',
  async (address) => {
    // As a program makes it that does not ask `store`, which refuses it itself.
    const wrong = { op: 'store', address, size: 1, value: 1n } as const;
    load(wrong);
    const refused = expect.objectContaining({
      code: 'ERR_OUT_OF_RANGE',
      message: expect.stringContaining('"address"'),
    });
    expect(() => store(address, 1, 1n)).toThrow(refused);
    expect(() => vcpu.runSync()).toThrow(refused);
    load(wrong);
    await expect(vcpu.run()).rejects.toEqual(refused);
    load(store(2 ** 52, 1, 1n));
    expect(vcpu.runSync()).toMatchObject({ reason: 'MMIO', gpa: 2 ** 52 });
  },
);

it('what is no fault of the guest’s ends the run, and never reaches its program', () => {
  const caught: unknown[] = [];
  kvm.emulated!.loadGuest(
    vcpu.fd,
    (function* (): GuestProgram {
      try {
        yield { op: 'store', address: -1, size: 1, value: 1n };
      } catch (error) {
        caught.push(error);
      }
    })(),
  );
  expect(() => vcpu.runSync()).toThrow(expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' }));
  expect(caught).toEqual([]);
});

it('a run without a program ends as one on this thread does', async () => {
  const here = vcpu.runSync();
  expect(here).toEqual({ reason: 'INTR' });
  expect(await Promise.race([vcpu.run(), sleep(5000, 'never')])).toEqual(here);
});

describe('one instruction', () => {
  const guestOf = (guest: () => GuestProgram, code?: { gpa: number; size: number }): void =>
    kvm.emulated!.loadGuest(vcpu.fd, guest(), code);
  const ram = (): void => void vm.memory.addRam(0, kvm.mapAnonymous(0x4000));

  it('moves many units between memory and a port', async () => {
    ram();
    const put: number[] = [];
    let next = 0x10;
    vm.io.ports.add(0x1f0, 8, { read: () => next++, write: (_offset, value) => void put.push(Number(value)) });
    vm.memory.write(0x100, Uint8Array.of(1, 2, 3, 4));
    guestOf(function* () {
      yield outs(0x1f0, 1, 0x100, 4);
      yield ins(0x1f0, 2, 0xffe, 3);
      yield halt;
    });
    expect((await vcpu.run()).reason).toBe('HLT');
    expect(put).toEqual([1, 2, 3, 4]);
    expect([...vm.memory.read(0xffe, 6)]).toEqual([0x10, 0, 0x11, 0, 0x12, 0]);
  });

  it('moves as many units as nobody could nest calls for', async () => {
    ram();
    using doorbell = kvm.createEventFd();
    vm.io.ioeventfd({ addr: 0x1f0, len: 1, eventfd: doorbell, pio: true });
    guestOf(function* () {
      yield outs(0x1f0, 1, 0, 0x4000);
      yield halt;
    });
    expect((await vcpu.run()).reason).toBe('HLT');
    expect(doorbell.read()).toBe(0x4000n);
  });

  it('changes memory, and what is a device', async () => {
    ram();
    const stored: (number | bigint)[] = [];
    vm.memory.addMmio(MMIO, 8, { read: () => 0x40, write: (_offset, value) => void stored.push(value) });
    vm.memory.writeU32(0x100, 7);
    const olds: unknown[] = [];
    guestOf(function* () {
      olds.push(yield update(0x100, 4, (old) => old | 0x100n));
      olds.push(yield update(MMIO, 2, (old) => old + 1n));
      yield halt;
    });
    expect((await vcpu.run()).reason).toBe('HLT');
    expect([olds, stored, vm.memory.readU32(0x100)]).toEqual([[7n, 0x40n], [0x41], 0x107]);
  });

  it('is fetched from where the guest has its code', async () => {
    ram();
    const code = vm.memory.addRam(0x8000, kvm.mapAnonymous(0x1000));
    const caught: unknown[] = [];
    guestOf(
      function* () {
        try {
          for (;;) yield store(MMIO, 1, 1n);
        } catch (fault) {
          caught.push(fault);
        }
        yield store(0x100, 1, 0x5an);
      },
      { gpa: 0x8000, size: 0x1000 },
    );
    expect((await vcpu.run()).reason).toBe('MMIO');
    code.remove();
    expect(await vcpu.run()).toEqual({ reason: 'INTERNAL_ERROR', suberror: 1 });
    expect(await vcpu.run()).toEqual({ reason: 'INTERNAL_ERROR', suberror: 1 });
    // The exception that KVM has pending since then.
    vm.memory.addRam(0x8000, kvm.mapAnonymous(0x1000));
    expect((await vcpu.run()).reason).toBe('HLT');
    expect(caught).toMatchObject([{ name: 'GuestFault', code: 6, message: 'there was no memory to fetch from' }]);
    expect(vm.memory.readU8(0x100)).toBe(0x5a);
  });
});

describe('a run on this thread', () => {
  const programOf = (guest: () => GuestProgram): void => kvm.emulated!.loadGuest(vcpu.fd, guest());

  it('goes on for as many operations as the guest has', () => {
    vm.memory.addRam(0, kvm.mapAnonymous(0x1000));
    let count = 0;
    programOf(function* () {
      while (count < 5000) {
        yield store(8, 4, 1n);
        count++;
      }
    });
    expect(vcpu.runSync().reason).toBe('HLT');
    expect(count).toBe(5000);
  });

  it('ends in time, whatever the guest does', () => {
    vm.memory.addRam(0, kvm.mapAnonymous(0x1000));
    const start = performance.now();
    programOf(function* () {
      // One that nobody stops stops itself: it must not come to that.
      while (performance.now() - start < 3000) yield store(8, 4, 1n);
    });
    expect(vcpu.runSync({ timeoutMs: 20 }).reason).toBe('INTR');
  });

  it('ends when its time is over, and no later', () => {
    vm.memory.addRam(0, kvm.mapAnonymous(0x1000));
    let count = 0;
    programOf(function* () {
      for (;;) {
        yield store(8, 4, 1n);
        count++;
      }
    });
    const times = [100, 119.9, 120];
    const clock = vi.spyOn(performance, 'now').mockImplementation(() => times.shift() ?? 1000);
    onTestFinished(() => clock.mockRestore());
    expect(kvm.calls.run(vcpu.fd, 20)).toBe(-ERRNO.EINTR);
    // A thousand operations at a time.
    expect([times, Math.ceil(count / 1000)]).toEqual([[], 2]);
  });

  it('asks for so many units of a string at once as KVM’s buffer of 1024 bytes holds', () => {
    vm.memory.addRam(0, kvm.mapAnonymous(0x4000));
    for (const [size, most] of [
      [1, 1024],
      [2, 512],
      [4, 256],
    ] as const) {
      programOf(function* () {
        yield ins(0x1f0, size, 0x1000, 1025);
      });
      const counts: unknown[] = [];
      for (let exit = vcpu.runSync(); exit.reason !== 'HLT'; exit = vcpu.runSync()) {
        if (exit.reason !== 'IO') throw new Error(exit.reason);
        counts.push(exit.count);
      }
      const whole = Math.floor(1025 / most);
      expect(counts).toEqual([...Array(whole).fill(most), 1025 % most]);
    }
  });

  it('asks for no more units of a string at once than the page has bytes left', () => {
    vm.memory.addRam(0, kvm.mapAnonymous(0x4000));
    programOf(function* () {
      yield ins(0x1f0, 2, 0x1ff8, 20);
    });
    const counts: unknown[] = [];
    for (let exit = vcpu.runSync(); exit.reason !== 'HLT'; exit = vcpu.runSync()) {
      if (exit.reason === 'IO') counts.push(exit.count);
    }
    // Sixteen bytes behind the eight units is the next page.
    expect(counts).toEqual([8, 12]);
  });

  it('leaves for each eight bytes that go to a device', () => {
    const gpas: unknown[] = [];
    programOf(function* () {
      yield ins(0x1f0, 4, MMIO, 5);
    });
    for (let exit = vcpu.runSync(); exit.reason !== 'HLT'; exit = vcpu.runSync()) {
      if (exit.reason === 'MMIO') gpas.push([exit.gpa, exit.data.length]);
    }
    expect(gpas).toEqual([
      [MMIO, 8],
      [MMIO + 8, 8],
      [MMIO + 16, 4],
    ]);
  });
});

it('an instruction that found a device when it was executed is emulated once, and the guest goes on behind it', () => {
  const { kvm: ppc, vm: machine } = hptVm(4096);
  try {
    const [code, device] = [0x1000, 0x4000_0000];
    for (const [i, ea] of [code, device].entries()) {
      const { slot, entry } = identity(ea);
      machine.hpt.write(chunkOf({ slot: slot + i, entry }));
    }
    const cpu = machine.createVcpu();
    cpu.ppc64.enablePapr();
    // stw r3, 0(r4)
    machine.memory.writeU32(code, 0x9064_0000, true);
    const regs = cpu.getRegsBytes(REGS_SIZE.ppc64.regs ?? 0);
    const gpr = (number: number, value: bigint) =>
      new DataView(regs.buffer).setBigUint64(136 + 8 * number, value, true);
    gpr(3, 0x1234n);
    gpr(4, BigInt(device));
    cpu.setRegsBytes(regs);
    const stored: unknown[] = [];
    machine.memory.addMmio(device, 8, { write: (offset, value) => void stored.push([offset, value]) });
    let ended = false;
    ppc.emulated!.loadGuest(
      cpu.fd,
      (function* (): GuestProgram {
        yield execute(code);
        ended = true;
        yield spin;
      })(),
    );
    expect(cpu.runSync({ timeoutMs: 5000 }).reason).toBe('INTR');
    expect([ended, stored]).toEqual([true, [[0, 0x1234]]]);
  } finally {
    machine.close();
    ppc.close();
  }
});

it('a vCPU that has its registers keeps them when a guest is loaded', () => {
  const arm = Kvm.open({ backend: 'emulated', arch: 'aarch64' });
  try {
    const cpu = arm.createVm().createVcpu();
    const program = () =>
      (function* (): GuestProgram {
        yield spin;
      })();
    arm.emulated!.loadGuest(cpu.fd, program());
    // x3 of the core registers.
    const x3 = 0x6030_0000_0010_0006n;
    cpu.setOneReg(x3, 0x1234_5678_9abcn);
    arm.emulated!.loadGuest(cpu.fd, program());
    expect(cpu.getOneReg(x3)).toBe(0x1234_5678_9abcn);
  } finally {
    arm.close();
  }
});
