import { runInThisContext } from 'node:vm';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Kvm, type Vcpu, type Vm } from '../../../lib/index.ts';
import {
  EmulatedKernel,
  ERRNO,
  EXIT,
  hypercall,
  KVM_RUN,
  ONE_REG,
  requestNumber,
  requestSize,
  spin,
} from '../../../lib/raw.ts';
import { backends, UNIT } from './backends.ts';
import { loadGuest, type Step } from './guests.ts';

const MMIO = 0xd000_0000;
const x86_64 = backends.filter(({ options }) => options.backend === 'native' || options.arch === 'x86_64');

describe.each(x86_64)('a vCPU on $name', ({ options }) => {
  let kvm: Kvm;
  let vm: Vm;
  let vcpu: Vcpu;
  const load = (...steps: Step[]): void => loadGuest(kvm, vm, vcpu, steps);

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

  it('runs again after V8 took the thread from a run, as Ctrl-C at a prompt does', async () => {
    load();
    // jmp to itself
    if (kvm.emulated === undefined) {
      const { rip } = vcpu.x86_64.getRegs();
      vm.memory.writeExact(vcpu.x86_64.getSregs().cs.base + rip, Uint8Array.of(0xeb, 0xfe));
    }
    // In slices: between them V8 sees that it is to end.
    const slices = (): void => {
      for (;;) vcpu.runSync({ timeoutMs: 20 });
    };
    Object.assign(globalThis, { slices });
    for (let i = 0; i < 5; i++) {
      expect(() => runInThisContext('slices()', { timeout: 60 })).toThrow(/timed out/);
      await Promise.resolve();
      expect(vcpu.running).toBe(false);
      expect(['INTR', 'HLT']).toContain(vcpu.runSync({ timeoutMs: 10 }).reason);
    }
    Reflect.deleteProperty(globalThis, 'slices');
  });

  it('hands accesses without a handler to the caller, who answers loads through the data', async () => {
    load({ store: MMIO + 4, value: 0x41 }, { load: MMIO, storedAt: 0x3000 });
    expect(await vcpu.run()).toMatchObject({
      reason: 'MMIO',
      gpa: MMIO + 4,
      size: 1,
      isWrite: true,
      data: Uint8Array.of(0x41),
    });
    const exit = await vcpu.run();
    expect(exit).toMatchObject({ reason: 'MMIO', gpa: MMIO, size: 1, isWrite: false });
    if (exit.reason === 'MMIO') exit.data[0] = 0x77;
    expect(await vcpu.run()).toEqual({ reason: 'HLT' });
    expect(vm.memory.readU8(0x3000)).toBe(0x77);
  });

  it('answers from the handlers of the bus without coming back', async () => {
    const seen: unknown[] = [];
    vm.memory.addMmio(MMIO, 8, {
      read: (offset, size) => {
        seen.push(['read', offset, size]);
        return 0x99;
      },
      write: (offset, value, size) => seen.push(['write', offset, value, size]),
    });
    vm.io.ports.add(0x10, 2, { read: () => 0x66, write: (offset, value) => seen.push(['out', offset, value]) });
    load(
      { store: MMIO + 4, value: 0x41 },
      { load: MMIO + 1, storedAt: 0x3000 },
      { out: 0x11, value: 5 },
      { in: 0x10, storedAt: 0x3001 },
    );
    expect(vcpu.runSync({ timeoutMs: 5000 })).toEqual({ reason: 'HLT' });
    expect(seen).toEqual([
      ['write', 4, 0x41, 1],
      ['read', 1, 1],
      ['out', 1, 5],
    ]);
    expect([vm.memory.readU8(0x3000), vm.memory.readU8(0x3001)]).toEqual([0x99, 0x66]);
  });

  it('reports port accesses that nobody handles', async () => {
    vm.io.ports.add(0x20, 1, { read: () => 1 });
    load({ out: 0x20, value: 3 }, { in: 0x21, storedAt: 0x3000 });
    const out = vcpu.runSync({ timeoutMs: 5000 });
    expect(out).toMatchObject({
      reason: 'IO',
      direction: 'out',
      port: 0x20,
      size: 1,
      count: 1,
      data: Uint8Array.of(3),
    });
    const input = vcpu.runSync({ timeoutMs: 5000 });
    expect(input).toMatchObject({ reason: 'IO', direction: 'in', port: 0x21 });
    if (input.reason === 'IO') input.data[0] = 9;
    expect(vcpu.runSync({ timeoutMs: 5000 }).reason).toBe('HLT');
    expect(vm.memory.readU8(0x3000)).toBe(9);
  });

  it('yields exits one after another', async () => {
    load({ store: MMIO, value: 1 }, { out: 0x10, value: 2 });
    const reasons: string[] = [];
    for await (const exit of vcpu.exits()) {
      reasons.push(exit.reason);
      if (exit.reason === 'HLT') break;
    }
    expect(reasons).toEqual(['MMIO', 'IO', 'HLT']);
  });

  const spinForever = (): void => {
    if (kvm.emulated !== undefined) {
      kvm.emulated.loadGuest(
        vcpu.fd,
        (function* () {
          yield spin;
        })(),
      );
      return;
    }
    load();
    vm.memory.writeExact(0x1000, Uint8Array.of(0xeb, 0xfe));
  };

  it('is got out of the guest by an AbortSignal, and can run again', async () => {
    spinForever();
    await expect(vcpu.run({ signal: AbortSignal.timeout(50) })).rejects.toMatchObject({ name: 'TimeoutError' });
    const aborted = AbortSignal.abort(new Error('not today'));
    await expect(vcpu.run({ signal: aborted })).rejects.toThrow('not today');
    const controller = new AbortController();
    const run = vcpu.run({ signal: controller.signal });
    expect(vcpu.running).toBe(true);
    await expect(vcpu.run()).rejects.toMatchObject({ code: 'EBUSY' });
    controller.abort();
    await expect(run).rejects.toMatchObject({ name: 'AbortError' });
    expect(vcpu.running).toBe(false);
  });

  it('is got out of the guest by a kick, also one that came before the run', async () => {
    spinForever();
    setTimeout(() => vcpu.kick(), 20);
    expect(await vcpu.run()).toEqual({ reason: 'INTR' });
    vcpu.kick();
    expect(await vcpu.run()).toEqual({ reason: 'INTR' });
  });

  it('does not see the abort of a run that was over in the next one', async () => {
    const controller = new AbortController();
    vm.memory.addMmio(MMIO, 8, { write: () => controller.abort() });
    load({ store: MMIO, value: 1 }, { out: 0x10, value: 1 });
    await expect(vcpu.run({ signal: controller.signal })).rejects.toMatchObject({ name: 'AbortError' });
    expect(await vcpu.run()).toMatchObject({ reason: 'IO', port: 0x10 });
  });

  it('comes back from a synchronous run when its time is over', () => {
    spinForever();
    expect(vcpu.runSync({ timeoutMs: 50 })).toEqual({ reason: 'INTR' });
  });

  it.for(['run', 'runSync'] as const)('refuses a run from within a handler of %s, and loses no exit', async (how) => {
    const answers: unknown[] = [];
    const attempt = (run: () => unknown): void => {
      try {
        answers.push(run());
      } catch (error) {
        answers.push((error as { code: string }).code);
      }
    };
    let later: Promise<unknown> | undefined;
    vm.memory.addMmio(MMIO, 8, {
      write: () => {
        answers.push(vcpu.running);
        attempt(() => vcpu.runSync());
        later = vcpu.run().catch((error: { code: string }) => error.code);
      },
    });
    load({ store: MMIO, value: 1 }, { out: 0x10, value: 1 });
    const exit = how === 'run' ? await vcpu.run() : vcpu.runSync({ timeoutMs: 5000 });
    expect(exit).toMatchObject({ reason: 'IO', port: 0x10 });
    expect(answers).toEqual([true, 'EBUSY']);
    expect(await later).toBe('EBUSY');
    expect(vcpu.running).toBe(false);
    expect(await vcpu.run()).toEqual({ reason: 'HLT' });
  });

  it('rejects the run under way with EBADF when it is closed', async () => {
    spinForever();
    const run = vcpu.run();
    setTimeout(() => vcpu.close(), 20);
    await expect(run).rejects.toMatchObject({ code: 'EBADF', explanation: 'vCPU 0 is closed' });
    vcpu.close();
    await expect(vcpu.run()).rejects.toMatchObject({ code: 'EBADF' });
    expect(() => vcpu.kick()).toThrow(expect.objectContaining({ code: 'EBADF' }));
  });

  it('sees stores put aside by coalesced MMIO before the next exit, in their order', async () => {
    if (kvm.checkExtension('COALESCED_MMIO') === 0) return;
    const seen: unknown[] = [];
    vm.memory.addMmio(MMIO, 4, { write: (offset, value) => seen.push([offset, value]) });
    const zone = vm.io.registerCoalescedMmio(MMIO, 16);
    load({ store: MMIO + 1, value: 1 }, { store: MMIO + 8, value: 2 }, { store: MMIO + 2, value: 3 });
    expect((await vcpu.run()).reason).toBe('HLT');
    expect(seen).toEqual([
      [1, 1],
      [2, 3],
    ]);
    expect(vm.io.takeCoalescedWrites()).toEqual([{ pio: false, gpa: MMIO + 8, data: Uint8Array.of(2) }]);
    zone.close();
    zone.close();
    load({ store: MMIO + 8, value: 2 });
    expect((await vcpu.run()).reason).toBe('MMIO');
  });

  it.each(['run', 'runSync', 'pause'] as const)(
    'answers an exit in %s where a store that was put aside threw before',
    async (how) => {
      if (kvm.checkExtension('COALESCED_MMIO') === 0) return;
      let isBroken = true;
      vm.memory.addMmio(MMIO, 4, {
        write: () => {
          if (isBroken) throw new Error('broken');
        },
      });
      vm.memory.addMmio(MMIO + 0x1000, 4, { read: () => 0x42 });
      vm.io.registerCoalescedMmio(MMIO, 4);
      load({ store: MMIO, value: 1 }, { load: MMIO + 0x1000, storedAt: 0x3000 });
      await expect(vcpu.run()).rejects.toThrow('broken');
      isBroken = false;
      if (how === 'pause') expect(await vcpu.pause()).toEqual({ reason: 'INTR' });
      expect(how === 'runSync' ? vcpu.runSync() : await vcpu.run()).toEqual({ reason: 'HLT' });
      expect(vm.memory.readU8(0x3000)).toBe(0x42);
    },
  );

  it('goes on coalescing in zones around and beside one that is closed', async () => {
    const zone = (at: number, size: number) => vm.io.registerCoalescedMmio(MMIO + at, size);
    const taken = (): unknown[] => vm.io.takeCoalescedWrites().map(({ data }) => data[0]);
    const outer = zone(0, 0x1000);
    const beside = zone(0x2000, 8);
    zone(0x100, 8).close();
    load({ store: MMIO + 0x200, value: 1 }, { store: MMIO + 0x104, value: 2 }, { store: MMIO + 0x2004, value: 3 });
    expect(await vcpu.run()).toEqual({ reason: 'HLT' });
    expect(taken()).toEqual([1, 2, 3]);
    const twin = zone(0, 0x1000);
    outer.close();
    load({ store: MMIO + 0x104, value: 4 }, { store: MMIO + 0x2004, value: 5 });
    expect(await vcpu.run()).toEqual({ reason: 'HLT' });
    expect(taken()).toEqual([4, 5]);
    twin.close();
    load({ store: MMIO + 0x2004, value: 6 }, { store: MMIO + 0x104, value: 7 });
    expect(await vcpu.run()).toMatchObject({ reason: 'MMIO', gpa: MMIO + 0x104 });
    expect(taken()).toEqual([6]);
    beside.close();
  });

  it('signals an ioeventfd instead of coming back', async () => {
    const eventfd = kvm.createEventFd();
    const event = vm.io.ioeventfd({ addr: MMIO, len: 1, eventfd, datamatch: 0x41 });
    expect(() => vm.io.ioeventfd({ addr: MMIO, len: 1, eventfd, datamatch: 0x41 })).toThrow(
      expect.objectContaining({ code: 'EEXIST', gpa: MMIO }),
    );
    expect(() => vm.io.ioeventfd({ addr: MMIO, len: 3, eventfd })).toThrow(/len 3 is none of/);
    load({ store: MMIO, value: 0x41 }, { store: MMIO, value: 0x42 });
    expect(await vcpu.run()).toMatchObject({ reason: 'MMIO', data: Uint8Array.of(0x42) });
    expect(eventfd.read()).toBe(1n);
    expect(eventfd.read()).toBe(0n);
    event.close();
    event.close();
    load({ store: MMIO, value: 0x41 });
    expect(await vcpu.run()).toMatchObject({ reason: 'MMIO', data: Uint8Array.of(0x41) });
    eventfd.close();
    expect(() => vm.io.ioeventfd({ addr: MMIO, len: 1, eventfd })).toThrow(
      expect.objectContaining({ code: 'EBADF', explanation: 'the eventfd is closed' }),
    );
    expect(() => eventfd.read()).toThrow(expect.objectContaining({ code: 'EBADF' }));
  });

  it('an eventfd that is closed first is there for its registration until that is taken back', async () => {
    const first = kvm.createEventFd();
    const event = vm.io.ioeventfd({ addr: MMIO, len: 1, eventfd: first });
    first.close();
    expect(first.closed).toBe(true);
    expect(() => first.read()).toThrow(expect.objectContaining({ code: 'EBADF' }));
    event.close();
    const second = kvm.createEventFd();
    vm.io.ioeventfd({ addr: MMIO, len: 1, eventfd: second });
    load({ store: MMIO, value: 1 });
    expect((await vcpu.run()).reason).toBe('HLT');
    expect(second.read()).toBe(1n);
  });

  it('reads and sets registers by name', () => {
    vcpu.x86_64.setRegs({ rax: 0xffff_ffff_ffff_fffen, rbx: 5, rip: 0x1234 });
    expect(vcpu.x86_64.getRegs()).toMatchObject({ rax: 0xffff_ffff_ffff_fffen, rbx: 5n, rip: 0x1234n });
    const sregs = vcpu.x86_64.getSregs();
    vcpu.x86_64.setSregs({
      ds: { ...sregs.ds, base: 0x4_0000n, selector: 0x4000 },
      idt: { base: 0x5000n, limit: 0xfff },
    });
    const after = vcpu.x86_64.getSregs();
    expect(after.ds).toEqual({ ...sregs.ds, base: 0x4_0000n, selector: 0x4000 });
    expect(after.idt).toEqual({ base: 0x5000n, limit: 0xfff });
    expect(after.cs).toEqual(sregs.cs);
    expect(() => vcpu.x86_64.setRegs({ rax: -1 })).toThrow(expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' }));
  });

  it('refuses ids that are taken or too large', () => {
    expect(vm.createVcpu().id).toBe(1);
    expect(() => vm.createVcpu(1)).toThrow(
      expect.objectContaining({ code: 'EEXIST', explanation: expect.any(String) }),
    );
    expect(() => vm.createVcpu(2 ** 31)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
    expect(() => vm.createVcpu(-1)).toThrow(expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' }));
  });

  it('moves handlers to another address between two accesses', async () => {
    const seen: string[] = [];
    const bar = vm.memory.addMmio(
      MMIO,
      8,
      { write: (offset, value) => seen.push(`bar ${offset} ${value}`) },
      { name: 'bar' },
    );
    vm.memory.addMmio(MMIO + 0x100, 4, { write: () => bar.move(MMIO + 0x1000) });
    load(
      { store: MMIO + 4, value: 1 },
      { store: MMIO + 0x100, value: 0 },
      { store: MMIO + 0x1004, value: 2 },
      { store: MMIO + 4, value: 3 },
    );
    expect(await vcpu.run()).toMatchObject({ reason: 'MMIO', gpa: MMIO + 4, data: Uint8Array.of(3) });
    expect(seen).toEqual(['bar 4 1', 'bar 4 2']);
    expect(bar.gpa).toBe(MMIO + 0x1000);
  });

  it('with an open bus loads read all ones, and stores go nowhere', async () => {
    vm.memory.mmio.openBus = true;
    vm.io.ports.openBus = true;
    vm.memory.addMmio(MMIO, 4, { write: () => {} });
    load(
      { load: MMIO + 0x100, storedAt: 0x3000 },
      { load: MMIO, storedAt: 0x3001 },
      { store: MMIO + 0x100, value: 1 },
      { in: 0x21, storedAt: 0x3002 },
      { out: 0x21, value: 1 },
    );
    expect(await vcpu.run()).toEqual({ reason: 'HLT' });
    expect([...vm.memory.readExact(0x3000, 4)]).toEqual([0xff, 0xff, 0xff, 0]);
  });

  it('gives stores to a read-only region to its handler, and none while it is writable', async () => {
    const seen: unknown[] = [];
    const onStore = (offset: number, value: number | bigint, size: number): void =>
      void seen.push([offset, value, size]);
    const flash = vm.memory.addRam(UNIT, kvm.mapAnonymous(UNIT), { readOnly: true, onStore });
    load({ store: UNIT + 0x5555, value: 0xaa }, { load: UNIT + 0x5555, storedAt: 0x3000 });
    expect(await vcpu.run()).toEqual({ reason: 'HLT' });
    expect(seen).toEqual([[0x5555, 0xaa, 1]]);
    expect(vm.memory.readU8(0x3000)).toBe(0);
    // To the last byte.
    load({ store: 2 * UNIT - 1, value: 0xbb });
    expect(await vcpu.run()).toEqual({ reason: 'HLT' });
    expect(seen.splice(1)).toEqual([[UNIT - 1, 0xbb, 1]]);
    flash.setReadOnly(false);
    load({ store: UNIT + 0x5555, value: 0xaa });
    expect(await vcpu.run()).toEqual({ reason: 'HLT' });
    expect(seen).toHaveLength(1);
    expect(vm.memory.readU8(UNIT + 0x5555)).toBe(0xaa);
  });

  it('stores to a read-only region as MMIO, leaving the memory as it is', async () => {
    vm.memory.addRam(UNIT, kvm.mapAnonymous(UNIT), { readOnly: true });
    vm.memory.writeU8(UNIT, 7);
    load({ store: UNIT, value: 0x41 }, { load: UNIT, storedAt: 0x3000 });
    expect(await vcpu.run()).toMatchObject({ reason: 'MMIO', gpa: UNIT, isWrite: true, data: Uint8Array.of(0x41) });
    expect((await vcpu.run()).reason).toBe('HLT');
    expect(vm.memory.readU8(0x3000)).toBe(7);
  });
});

it('answers PAPR hypercalls on ppc64', async () => {
  using kvm = Kvm.open({ backend: 'emulated', arch: 'ppc64' });
  using vm = kvm.createVm();
  const vcpu = vm.createVcpu();
  vcpu.enableCap(68);
  let answer: unknown;
  kvm.emulated!.loadGuest(
    vcpu.fd,
    (function* () {
      answer = yield hypercall(0xf000, 11n, 22n);
    })(),
  );
  const exit = await vcpu.run();
  expect(exit).toMatchObject({ reason: 'PAPR_HCALL', nr: 0xf000 });
  if (exit.reason !== 'PAPR_HCALL') return;
  expect(exit.args.slice(0, 2)).toEqual([11n, 22n]);
  exit.setReturn(-2n, 33n);
  await expect(vcpu.run({ signal: AbortSignal.timeout(20) })).rejects.toMatchObject({ name: 'TimeoutError' });
  // r3, r4, r5 of the guest.
  expect((answer as bigint[]).slice(0, 3)).toEqual([BigInt.asUintN(64, -2n), 33n, 22n]);
});

it('gets and sets single registers as integers or bytes, and no larger one as an integer', () => {
  using kvm = Kvm.open({ backend: 'emulated', arch: 'ppc64' });
  using vm = kvm.createVm();
  const vcpu = vm.createVcpu();
  const amr = 0x1030_0000_0000_000en;
  vcpu.setOneReg(amr, 0x1234_5678_9abc_def0n);
  expect(vcpu.getOneReg(amr)).toBe(0x1234_5678_9abc_def0n);
  expect([...vcpu.getOneRegBytes(amr)]).toEqual([0xf0, 0xde, 0xbc, 0x9a, 0x78, 0x56, 0x34, 0x12]);
  vcpu.setOneReg(amr, new Uint8Array(8));
  expect(vcpu.getOneReg(amr)).toBe(0n);
  expect(() => vcpu.getOneReg(0x1030_0000_0000_ffffn)).toThrow(
    expect.objectContaining({ syscall: 'ioctl(KVM_GET_ONE_REG)' }),
  );
  const vector = 0x1040_0000_0000_0020n;
  for (const call of [() => vcpu.getOneReg(vector), () => vcpu.setOneReg(vector, 1)]) {
    expect(call).toThrow(expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' }));
  }
});

it.each(['x86_64', 's390x', 'ppc64', 'aarch64'] as const)('has only its own architecture’s doors: %s', (arch) => {
  using kvm = Kvm.open({ backend: 'emulated', arch });
  using vm = kvm.createVm();
  const vcpu = vm.createVcpu();
  for (const door of ['x86_64', 's390x', 'ppc64'] as const) {
    for (const handle of [vm, vcpu]) {
      if (door === arch) expect(handle[door]).toBe(handle[door]);
      else {
        const error = { code: 'ENOTTY', explanation: `there is ${door} on ${door} only, and this is ${arch}` };
        expect(() => handle[door]).toThrow(expect.objectContaining(error));
      }
    }
  }
});

it.each(['6.12', '6.1'])('says that the host cannot give a page of a memslot, on %s', async (release) => {
  using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64', release });
  using vm = kvm.createVm();
  const ram = kvm.mapAnonymous(2 * UNIT);
  vm.memory.addRam(0, ram);
  const vcpu = vm.createVcpu();
  ram.unmapPart(UNIT, UNIT);
  loadGuest(kvm, vm, vcpu, [{ load: UNIT }]);
  const explanation = expect.stringContaining('memslot promises');
  await expect(vcpu.run()).rejects.toMatchObject({ code: 'EFAULT', syscall: 'ioctl(KVM_RUN)', explanation });
});

it('has no registers on aarch64 and does not run before KVM_ARM_VCPU_INIT, and says so', () => {
  using kvm = Kvm.open({ backend: 'emulated', arch: 'aarch64' });
  const vm = kvm.createVm();
  const vcpu = vm.createVcpu();
  const why = expect.objectContaining({ code: 'ENOEXEC', explanation: expect.stringContaining('KVM_ARM_VCPU_INIT') });
  const pc = ONE_REG.ARM64_CORE + 0x40n;
  expect(() => vcpu.getOneReg(pc)).toThrow(why);
  expect(() => vcpu.runSync()).toThrow(why);
  const init = new Uint8Array(requestSize('KVM_ARM_VCPU_INIT'));
  vm.ioctl(requestNumber('KVM_ARM_PREFERRED_TARGET', 'aarch64'), init);
  vcpu.ioctl(requestNumber('KVM_ARM_VCPU_INIT', 'aarch64'), init);
  expect(vcpu.getOneReg(pc)).toBe(0n);
  vm.close();
});

it.each(['x86_64', 'ppc64'] as const)('says who has the signal mask of a run, on %s', (arch) => {
  using kvm = Kvm.open({ backend: 'emulated', arch });
  using vm = kvm.createVm();
  const set = () => vm.createVcpu().ioctl(requestNumber('KVM_SET_SIGNAL_MASK', arch), new Uint8Array(12));
  const explanation = expect.stringContaining('each run sets the signal mask');
  expect(set).toThrow(expect.objectContaining({ code: 'EPERM', explanation }));
});

it('takes an EFAULT that the kernel describes for an exit', async () => {
  let area = 0;
  const kernel = new EmulatedKernel({ arch: 'x86_64' });
  const described = (): number => {
    const words = new DataView(new ArrayBuffer(24));
    words.setBigUint64(0, 8n, true);
    words.setBigUint64(8, 0x5000n, true);
    words.setBigUint64(16, 0x1000n, true);
    kernel.writeMemory(area + KVM_RUN.exit_reason, Uint8Array.of(EXIT.MEMORY_FAULT, 0, 0, 0));
    kernel.writeMemory(area + KVM_RUN.memory_fault.flags, new Uint8Array(words.buffer));
    return -ERRNO.EFAULT;
  };
  const calls = new Proxy(kernel, {
    get: (target, key) => {
      if (key === 'runAsync') return async () => described();
      const value = Reflect.get(target, key);
      if (typeof value !== 'function') return value;
      return (...args: unknown[]) => {
        const result: unknown = value.apply(target, args);
        if (key === 'mmap') area = result as number;
        return result;
      };
    },
  });
  using kvm = Kvm.open({ calls });
  using vm = kvm.createVm();
  const exit = { reason: 'MEMORY_FAULT', gpa: 0x5000, size: 0x1000, flags: 8 };
  expect(await vm.createVcpu().run()).toMatchObject(exit);
});

it('closes the descriptors that registrations held when the VM goes', () => {
  const open = new Set<string>();
  const trace = (line: string): void => {
    const made = /= (eventfd#\d+)$/.exec(line)?.[1];
    const gone = /^close\((eventfd#\d+)\)/.exec(line)?.[1];
    if (made !== undefined) open.add(made);
    if (gone !== undefined) open.delete(gone);
  };
  using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64', trace });
  const vm = kvm.createVm();
  const eventfd = kvm.createEventFd();
  const event = vm.io.ioeventfd({ addr: MMIO, len: 1, eventfd });
  eventfd.close();
  expect(open.size).toBe(1);
  vm.close();
  expect(open.size).toBe(0);
  event.close();
  eventfd.close();
});
