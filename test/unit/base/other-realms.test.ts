import { createContext, runInContext, runInThisContext } from 'node:vm';
import { describe, expect, it, vi } from 'vitest';
import { checkCpu, cpuState } from '../../../lib/arch/s390x/model/cpu-state.ts';
import { memoryOfFrames } from '../../../lib/arch/s390x/model/index.ts';
import { checkSignal } from '../../../lib/base/arguments.ts';
import type { Names } from '../../../lib/calls/names.ts';
import { CALL_GROUPS, type ParameterKind, signaturesOf } from '../../../lib/calls/signatures.ts';
import { traceValue } from '../../../lib/calls/trace-file.ts';
import { recorded } from '../../../lib/calls/trace-recorder.ts';
import {
  HandlerError,
  Kvm,
  KvmError,
  SharedDirtyLog,
  UnixConnection,
  Vcpu,
  type VcpuToken,
} from '../../../lib/index.ts';
import { EmulatedKernel, traced } from '../../../lib/raw.ts';
import { requestNumber } from '../../../lib/uapi/index.ts';
import { REGS_SIZE } from '../../../lib/uapi/structs.ts';
import { backends, UNIT } from '../handles/backends.ts';
import { hostCalls } from '../sharing/host.ts';

const realm = createContext({});

/** A value of another realm, whose classes are not those of this one. */
const other = (code: string) => runInContext(code, realm);

/** What each kind of parameter that is an array is called, and how long one may be. */
const ARRAYS: Readonly<Partial<Record<ParameterKind, string>>> = {
  u64s: 'Array.of()',
  in: 'new Uint8Array(8)',
  out: 'new Uint8Array(8)',
  inout: 'new Uint8Array(8)',
  inout64: 'new BigUint64Array(4)',
  hvas: 'new Float64Array(1)',
  u32s: 'new Uint32Array(1)',
  view: 'new Uint8Array(8)',
  fds: 'new Int32Array(1)',
  outfds: 'new Int32Array(2)',
  arg: 'new Uint8Array(8)',
};

/** A value of each other kind that reaches nothing: no descriptor, no address. */
const plainOf = (kind: ParameterKind): unknown => (kind === 'text' ? '' : kind === 'fd' || kind === 'i32' ? -1 : 0);

type Method = (...args: readonly unknown[]) => unknown;

it('a promise of another realm is waited for by those who note calls', async () => {
  const kernel = new EmulatedKernel({ arch: 'x86_64' });
  const vcpu = kernel.createVcpu(kernel.createVm(kernel.openKvm(), 0), 0);
  vi.spyOn(kernel, 'runAsync').mockImplementation(() => other('Promise.resolve(-4)'));
  const lines: string[] = [];
  await traced(kernel, (line) => lines.push(line)).runAsync(vcpu);
  expect(lines).toEqual([expect.stringMatching(/^runAsync\(.*\) = -EINTR$/)]);
  lines.length = 0;
  await recorded(kernel, (line) => lines.push(line), {}).runAsync(vcpu);
  expect(lines.slice(1).map((line) => JSON.parse(line))).toMatchObject([{ begins: 1 }, { ends: 1, result: '-EINTR' }]);
});

it('the values are of another realm', () => {
  expect(other('new Uint8Array(8)')).not.toBeInstanceOf(Uint8Array);
});

describe.each(backends)('values of another realm on $name', ({ options }) => {
  it('are what those of this one are, for memory and registers', () => {
    using kvm = Kvm.open(options);
    using vm = kvm.createVm();
    vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
    vm.memory.writeExact(0, other('Uint8Array.of(1, 2, 3, 4)'));
    const into: Uint8Array = other('new Uint8Array(4)');
    vm.memory.readExact(0, into);
    expect([...into]).toEqual([1, 2, 3, 4]);
    vm.memory.gather(other('Float64Array.of(0, 2)'), 1, into);
    expect([...into]).toEqual([1, 3, 3, 4]);

    const dirty = vm.dirtyPages.start();
    vm.memory.writeU8(0, 1);
    dirty.collect();
    const numbers: Float64Array = other('new Float64Array(2)');
    expect(dirty.pagesInto(numbers)).toBe(1);
    expect(dirty.runsInto(numbers)).toBe(1);
    expect([...numbers]).toEqual([0, 1]);

    const vcpu = vm.createVcpu();
    const size = REGS_SIZE[kvm.arch].regs;
    if (size !== undefined) {
      const regs: Uint8Array = other(`new Uint8Array(${size})`);
      regs.set(vcpu.getRegsBytes(size));
      vcpu.setRegsBytes(regs);
    }
    // Register 0 of 8 bytes, which no architecture has: the kernel says so.
    expect(() => vcpu.setOneReg(0x0030_0000_0000_0000n, other('new Uint8Array(8)'))).toThrow(KvmError);
  });

  it('are what those of this one are, for a structure of an ioctl', () => {
    using kvm = Kvm.open(options);
    using vm = kvm.createVm();
    const request = requestNumber('KVM_SET_USER_MEMORY_REGION', kvm.arch);
    const codeOf = (arg: Uint8Array): unknown => {
      try {
        return vm.ioctl(request, arg);
      } catch (error) {
        return (error as KvmError).code;
      }
    };
    expect(codeOf(new Uint8Array(32))).toBe('EINVAL');
    expect(codeOf(other('new Uint8Array(32)'))).toBe('EINVAL');
  });

  it('are what those of this one are, for all flat calls', async () => {
    using kvm = Kvm.open(options);
    let tried = 0;
    for (const group of [undefined, ...CALL_GROUPS]) {
      const target = (group === undefined ? kvm.calls : kvm.calls[group]) as unknown as
        | Record<string, Method>
        | undefined;
      for (const [name, { parameters }] of Object.entries(target === undefined ? {} : signaturesOf(group))) {
        if (!parameters.some(([, kind]) => ARRAYS[kind] !== undefined)) continue;
        const call = (made: (code: string) => unknown) =>
          target![name]!(
            ...parameters.map(([, kind]) => (ARRAYS[kind] === undefined ? plainOf(kind) : made(ARRAYS[kind]))),
          );
        expect(await call(other), name).toBe(await call(runInThisContext));
        tried++;
      }
    }
    expect(tried).toBeGreaterThan(20);
  });

  it('an Error that a handler throws says what it says, without its stack', () => {
    using kvm = Kvm.open(options);
    using vm = kvm.createVm();
    vm.memory.addMmio(0xd000_0000, 0x1000, { read: other("() => { throw new Error('no such register'); }") });
    const read = () => vm.memory.mmio.read(0xd000_0000, new Uint8Array(4));
    expect(read).toThrow(HandlerError);
    expect(read).toThrow(/threw: no such register$/);
  });
});

it('a dirty log is over a buffer of whatever realm', () => {
  for (const kind of ['ArrayBuffer', 'SharedArrayBuffer']) {
    const buffer: ArrayBuffer = other(`new ${kind}(8)`);
    new SharedDirtyLog(buffer, 0, 8).mark(0, 4096);
    expect(new Uint8Array(buffer)[0]).toBe(1);
  }
  expect(() => new SharedDirtyLog(other('new Uint8Array(8)'), 0, 8)).toThrow('must be an ArrayBuffer');
});

it('a CPU and its storage are of arrays of whatever realm', () => {
  const cpu = { ...cpuState(), cr: other('new Uint32Array(32)'), ar: other('new Uint32Array(16)') };
  expect(checkCpu(cpu)).toBe(cpu);
  const memory = memoryOfFrames(() => other('new Uint8Array(4096).fill(3)'));
  expect(memory.readDoubleword(0, 8)).toBe(0);
  expect(memory.lo).toBe(0x0303_0303);
});

it('a trace has the bytes of an ioctl of whatever realm', () => {
  expect(traceValue('arg', other('Uint8Array.of(1, 2)'), {} as Names)).toBe(
    traceValue('arg', Uint8Array.of(1, 2), {} as Names),
  );
});

it('a signal is what has all of one, whoever made it', () => {
  const code = `({ aborted: false, throwIfAborted() {}, addEventListener() {}, removeEventListener() {} })`;
  const signal: AbortSignal = other(code);
  expect(checkSignal(signal, 'signal')).toBe(signal);
  for (const wrong of [null, 7, {}, { ...signal, aborted: undefined }, { ...signal, removeEventListener: 1 }])
    expect(() => checkSignal(wrong as AbortSignal, 'signal')).toThrow('must be an instance of AbortSignal');
});

it('a socket puts descriptors into an array of whatever realm', async (test) => {
  const [one, two] = UnixConnection.pair(hostCalls(test));
  await one.send(Uint8Array.of(7), [one.fd]);
  const into: Uint8Array = other('new Uint8Array(1)');
  const descriptors = other('[]');
  expect(await two.receive(into, descriptors)).toBe(1);
  expect([into[0], descriptors.length]).toEqual([7, 1]);
  for (const handle of [one, two, ...descriptors]) handle.close();
});

it('the token of a vCPU has come from whatever realm', async (test) => {
  const calls = hostCalls(test);
  const space = { type: 'kvm-bridge.AddressSpace', pid: process.pid, fd: 0, inode: 0n } as const;
  const token = { type: 'kvm-bridge.Vcpu', pid: process.pid, fd: 0, id: 0, runSize: 4096, space } as const;
  const attach = (there: unknown) => Vcpu.attach(calls, { ...token, there } as VcpuToken);
  await expect(attach(other('new SharedArrayBuffer(4)'))).rejects.toMatchObject({ code: 'ESTALE' });
  await expect(attach(other('new ArrayBuffer(4)'))).rejects.toMatchObject({ code: 'ERR_INVALID_ARG_TYPE' });
});
