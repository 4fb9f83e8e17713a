import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { describe, expect, it, type TestContext } from 'vitest';
import { Kvm, Vcpu, type VcpuToken } from '../../../lib/index.ts';
import { nativeMissing, UNIT } from '../handles/backends.ts';
import { CODE, loadGuest, type Step } from '../handles/guests.ts';
import { hostCalls, openDescriptors } from './host.ts';

const MMIO = 0xd000_0000;
const COUNTER = 0x3000;
/** loop: inc dword [COUNTER]; jmp loop */
const SPIN = [0xff, 0x05, 0x00, 0x30, 0x00, 0x00, 0xeb, 0xf8];
/** loop: inc dword [COUNTER]; mov [MMIO], eax; jmp loop */
const STORM = [0xff, 0x05, 0x00, 0x30, 0x00, 0x00, 0xa3, 0x00, 0x00, 0x00, 0xd0, 0xeb, 0xf3];

function newVm(test: TestContext) {
  if (nativeMissing !== undefined) test.skip(nativeMissing);
  if (process.arch !== 'x64') test.skip('the guest is machine code of x86_64');
  const kvm = Kvm.open({ backend: 'native' });
  const vm = kvm.createVm();
  const ram = kvm.mapMemfd(UNIT);
  vm.memory.addRam(0, ram);
  ram.close();
  vm.memory.share();
  const vcpu = vm.createVcpu();
  return {
    kvm,
    vm,
    vcpu,
    load: (code: readonly Step[] | readonly number[]) => {
      loadGuest(
        kvm,
        vm,
        vcpu,
        code.filter((step) => typeof step === 'object'),
      );
      if (typeof code[0] === 'number') vm.memory.writeExact(CODE, Uint8Array.from(code as number[]));
    },
    close: () => {
      vm.close();
      kvm.close();
    },
  };
}

interface Answer {
  readonly ended: string | undefined;
  readonly asked: readonly string[];
  readonly rip: bigint;
}

/** A worker that was given the vCPU. */
async function start(token: VcpuToken) {
  const worker = new Worker(fileURLToPath(new URL('children/vcpu.ts', import.meta.url)), {
    workerData: { token },
    execArgv: ['--import', new URL('../../typescript/register.mjs', import.meta.url).href],
  });
  // From the beginning: a worker that is gone before its last message was read tells of both at once.
  const exited = once(worker, 'exit');
  exited.catch(() => {});
  await once(worker, 'message');
  return {
    worker,
    exited,
    ask: async (message: object): Promise<Answer> => {
      worker.postMessage(message);
      return (await once(worker, 'message'))[0];
    },
  };
}

/** A worker takes seconds to start on a machine that has much to do. */
const PATIENCE = { timeout: 30_000 };

/** Descriptors that were of ended workers may still go. */
const nothingLeaks = (before: number) => expect.poll(openDescriptors, PATIENCE).toBeLessThanOrEqual(before);

describe('a vCPU in a worker', { timeout: 90_000 }, () => {
  it.for(['runSync', 'run'])(
    'runs there (%s), with the handlers of that thread, and is the first one’s again',
    async (how, test) => {
      const { vm, vcpu, load, close } = newVm(test);
      const before = openDescriptors();
      load([
        { load: MMIO + 8, storedAt: 0x2000 },
        { out: 0x80, value: 7 },
        { store: MMIO + 4, value: 9 },
      ]);
      vm.dirtyPages.start();
      const { exited, ask } = await start(vcpu.token);
      expect(() => vcpu.x86_64.getRegs()).toThrow(expect.objectContaining({ code: 'EBUSY' }));
      expect(() => vcpu.runSync()).toThrow(expect.objectContaining({ code: 'EBUSY' }));
      await expect(vcpu.run()).rejects.toMatchObject({ code: 'EBUSY' });
      await expect(Vcpu.attach(hostCalls(test), vcpu.token)).rejects.toMatchObject({
        code: 'EBUSY',
        message: expect.stringContaining('another thread has it'),
      });
      const { ended, asked, rip } = await ask({ how, store: 5 * 0x1000, close: true });
      expect(ended).toBe('HLT');
      expect(asked).toEqual(['read 8, 1', 'out 0, 7', 'write 4, 9']);
      expect(rip).toBe(0n);
      await exited;
      expect(vm.memory.readU8(0x2000)).toBe(0x5a);
      expect(vm.memory.readU32(0x5000)).toBe(0xbeef);
      expect([...vm.dirtyPages.collect().pages()]).toEqual(expect.arrayContaining([2, 5]));
      load([{ store: 0x2000, value: 3 }]);
      expect(vcpu.runSync().reason).toBe('HLT');
      await nothingLeaks(before);
      close();
    },
  );

  it.for(['runSync', 'run'])(
    'is kicked from the other thread, and ends when that closes it (%s)',
    async (how, test) => {
      const { vm, vcpu, load, close } = newVm(test);
      load(SPIN);
      const { exited, ask } = await start(vcpu.token);
      for (let i = 0; i < 2; i++) {
        const running = ask({ how });
        await expect.poll(() => vm.memory.readU32(COUNTER), PATIENCE).toBeGreaterThan(0);
        vcpu.kick();
        expect((await running).ended).toBe('INTR');
        vm.memory.writeU32(COUNTER, 0);
      }
      const running = ask({ how });
      await expect.poll(() => vm.memory.readU32(COUNTER), PATIENCE).toBeGreaterThan(0);
      vcpu.close();
      expect(['INTR', 'EBADF']).toContain((await running).ended);
      expect((await ask({ how })).ended).toBe('EBADF');
      expect((await ask({ how, close: true })).ended).toBe('EBADF');
      await exited;
      close();
    },
  );

  it.for(['runSync', 'run'])(
    'is free again when the worker is terminated at any instant, and nothing leaks (%s)',
    async (how, test) => {
      const { vm, vcpu, load, close } = newVm(test);
      await start(vcpu.token).then(({ worker }) => worker.terminate());
      const before = openDescriptors();
      for (let round = 0; round < 3; round++) {
        load(round % 2 === 0 ? SPIN : STORM);
        vm.memory.writeU32(COUNTER, 0);
        const { worker } = await start(vcpu.token);
        worker.postMessage({ how });
        if (round > 0) await expect.poll(() => vm.memory.readU32(COUNTER), PATIENCE).toBeGreaterThan(0);
        await delay(3 * round);
        await worker.terminate();
        const stopped = vm.memory.readU32(COUNTER);
        expect(vcpu.x86_64.getRegs().rip).toBeGreaterThanOrEqual(BigInt(CODE));
        load([{ store: 0x2000, value: round }]);
        expect((await vcpu.run()).reason).toBe('HLT');
        expect(vm.memory.readU8(0x2000)).toBe(round);
        expect(vm.memory.readU32(COUNTER)).toBe(stopped);
        await nothingLeaks(before);
      }
      close();
    },
  );

  it('is not mistaken for the one that has its descriptor by now, nor given while it is parked', async (test) => {
    const { kvm, vm, vcpu, close } = newVm(test);
    const calls = hostCalls(test);
    const { token } = vcpu;
    const stale = { code: 'ESTALE', explanation: expect.stringContaining('was closed') };
    vcpu.close();
    await expect(Vcpu.attach(calls, token)).rejects.toMatchObject(stale);
    expect(vm.createVcpu(0).runSync({ timeoutMs: 1 }).reason).not.toBe('EBUSY');
    using other = kvm.createVm();
    vm.close();
    // The next descriptor gets the lowest number that is free.
    const fillers = [kvm.createEventFd()];
    while (fillers.at(-1)!.fd < token.fd) fillers.push(kvm.createEventFd());
    fillers.pop()!.close();
    expect(other.createVcpu(0).fd).toBe(token.fd);
    await expect(Vcpu.attach(calls, token)).rejects.toMatchObject({ code: 'ESTALE' });
    for (const filler of fillers) filler.close();
    other.close();
    close();
  });

  it('is refused when its token is stale or forged, and when its memory is not shared', async (test) => {
    const { kvm, vm, vcpu, close } = newVm(test);
    const calls = hostCalls(test);
    const { token } = vcpu;
    const attach = (other: object) => Vcpu.attach(calls, { ...token, ...other } as VcpuToken);
    const before = openDescriptors();
    await expect(attach({ type: 'kvm-bridge.AddressSpace' })).rejects.toMatchObject({ code: 'ERR_INVALID_ARG_TYPE' });
    await expect(attach({ fd: -1 })).rejects.toMatchObject({ code: 'ERR_OUT_OF_RANGE' });
    await expect(attach({ space: undefined })).rejects.toMatchObject({ code: 'ERR_INVALID_ARG_TYPE' });
    for (const forged of [{ fd: vm.fd }, { fd: 0x7fff_fff0 }, { id: 7 }, { space: { ...token.space, inode: 1n } }]) {
      await expect(attach(forged)).rejects.toMatchObject({ code: 'ESTALE' });
    }
    expect(vm.memory.consumers).toEqual([]);
    await nothingLeaks(before);
    const regs = { ...vcpu.x86_64.getRegs(), rbx: 0x1234_5678n };
    vcpu.x86_64.setRegs(regs);
    const running = vcpu.run();
    await expect(attach({})).rejects.toMatchObject({ code: 'EBUSY' });
    vcpu.kick();
    await running;
    using attached = await attach({});
    expect(attached.x86_64.getRegs().rbx).toBe(regs.rbx);
    attached.x86_64.setRegs({ ...attached.x86_64.getRegs(), rbx: 0x9abcn });
    expect(() => attached.token).toThrow(expect.objectContaining({ code: 'EBUSY' }));
    attached.close();
    const { memory, io } = attached.vm;
    const released = { code: 'EBADF', explanation: "the binding 'vCPU 0' was released" };
    expect(() => memory.addMmio(0xd000_0000, 8, {})).toThrow(expect.objectContaining(released));
    expect(() => io.ports.add(0x70, 1, {})).toThrow(expect.objectContaining(released));
    expect(vcpu.x86_64.getRegs().rbx).toBe(0x9abcn);
    vcpu.close();
    expect(() => vcpu.token).toThrow(expect.objectContaining({ code: 'EBADF' }));
    close();
    const other = kvm.closed ? Kvm.open({ backend: 'native' }) : kvm;
    const unshared = other.createVm();
    expect(() => unshared.createVcpu().token).toThrow(expect.objectContaining({ code: 'EBADF' }));
    unshared.close();
    other.close();
  });

  it('of an emulated kernel stays in its thread', async () => {
    using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
    await expect(Vcpu.attach(kvm.calls, {} as VcpuToken)).rejects.toMatchObject({ code: 'ENOSYS' });
  });
});
