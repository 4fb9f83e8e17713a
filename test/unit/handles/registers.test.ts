import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { encodeSegment } from '../../../lib/arch/ppc64/model/index.ts';
import { Kvm, type Vcpu, type Vm } from '../../../lib/index.ts';
import { KVM_RUN_S390X, ONE_REG, REGS_SIZE } from '../../../lib/raw.ts';
import { backends, UNIT } from './backends.ts';
import { runsGuests } from './guests.ts';

type Named = Record<string, bigint>;
interface Registers {
  getRegs(): Named;
  setRegs(regs: Record<string, number | bigint>): void;
}

const faceOf = (vcpu: Vcpu): Registers => vcpu[vcpu.calls.arch] as unknown as Registers;

/** Registers that the kernel has its own mind about. */
const KEPT: Readonly<Record<string, readonly string[]>> = {
  x86_64: ['rflags'],
  ppc64: ['msr', 'pid', 'pid'],
  aarch64: ['pstate', 'spsrEl1', 'spsrAbt', 'spsrUnd', 'spsrIrq', 'spsrFiq'],
  riscv64: ['mode'],
  s390x: ['prefix'],
};

describe.each(backends)('registers by name on $name', (backend) => {
  let kvm: Kvm;
  let vm: Vm;
  let vcpu: Vcpu;
  let registers: Registers;
  beforeEach(() => {
    kvm = Kvm.open(backend.options);
    vm = kvm.createVm();
    vcpu = vm.createVcpu();
    if (kvm.arch === 'aarch64') vcpu.aarch64.init();
    registers = faceOf(vcpu);
  });
  afterEach(() => {
    vm.close();
    kvm.close();
  });

  it('each come back as they were set, and the others stay', () => {
    const before = registers.getRegs();
    const names = Object.keys(before).filter((name) => !KEPT[kvm.arch]!.includes(name));
    expect(names.length).toBeGreaterThan(15);
    const set: Named = {};
    for (const [n, name] of names.entries()) {
      const isWord = kvm.arch === 's390x' ? /^a\d/.test(name) : kvm.arch === 'ppc64' && name === 'cr';
      const value = (isWord ? 0x1_0000n : 0x1234_0000_0000n) + BigInt(n);
      registers.setRegs({ [name]: value });
      set[name] = value;
      expect(registers.getRegs()).toEqual({ ...before, ...set });
    }
    // All at once, as numbers.
    const zeros = Object.fromEntries(names.map((name) => [name, 0]));
    registers.setRegs(zeros);
    expect(registers.getRegs()).toEqual({ ...before, ...Object.fromEntries(names.map((name) => [name, 0n])) });
  });

  it('are refused with their names, before any is set', () => {
    const before = registers.getRegs();
    const [first, second] = Object.keys(before) as [string, string];
    const bad =
      (regs: object): (() => void) =>
      () =>
        registers.setRegs(regs as Record<string, bigint>);
    expect(bad({ [first]: 5n, [second]: -1n })).toThrow(
      expect.objectContaining({ code: 'ERR_OUT_OF_RANGE', message: expect.stringContaining(`"regs.${second}"`) }),
    );
    expect(bad({ [first]: 5n, pswmask: 1n })).toThrow(
      expect.objectContaining({ code: 'ERR_OUT_OF_RANGE', message: expect.stringContaining("'pswmask'") }),
    );
    expect(bad({ [first]: 2n ** 64n })).toThrow(RangeError);
    expect(bad({ [first]: '5' })).toThrow(TypeError);
    expect(registers.getRegs()).toEqual(before);
  });

  it('are another architecture’s, and say so', () => {
    for (const arch of ['x86_64', 's390x', 'ppc64', 'aarch64', 'riscv64'] as const) {
      if (arch === kvm.arch) continue;
      expect(() => vcpu[arch]).toThrow(
        expect.objectContaining({
          code: 'ENOTTY',
          explanation: `there is ${arch} on ${arch} only, and this is ${kvm.arch}`,
        }),
      );
    }
  });

  it('cannot be had while the vCPU runs, nor once it is closed', async () => {
    if (runsGuests(backend)) {
      vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
      vm.memory.writeExact(0x1000, Uint8Array.of(0xeb, 0xfe));
      const { cs } = vcpu.x86_64.getSregs();
      vcpu.x86_64.setSregs({ cs: { ...cs, base: 0n, selector: 0 } });
      registers.setRegs({ rip: 0x1000 });
      const running = vcpu.run();
      expect(() => registers.getRegs()).toThrow(expect.objectContaining({ code: 'EBUSY' }));
      expect(() => registers.setRegs({ rbx: 1 })).toThrow(expect.objectContaining({ code: 'EBUSY' }));
      vcpu.kick();
      await running;
    }
    const [some] = Object.keys(registers.getRegs()) as [string];
    vcpu.close();
    expect(() => registers.getRegs()).toThrow(expect.objectContaining({ code: 'EBADF' }));
    expect(() => registers.setRegs({ [some]: 1 })).toThrow(expect.objectContaining({ code: 'EBADF' }));
  });
});

describe('on s390x', () => {
  const NO_MEMORY = 0x7f00_0000;
  let kvm: Kvm;
  let vm: Vm;
  let vcpu: Vcpu;
  beforeEach(() => {
    kvm = Kvm.open({ backend: 'emulated', arch: 's390x' });
    vm = kvm.createVm();
    vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
    vcpu = vm.createVcpu();
  });
  afterEach(() => {
    vm.close();
    kvm.close();
  });

  it('PSW and prefix are where the next KVM_RUN takes them', () => {
    const { view } = vcpu.kvmRun;
    vcpu.s390x.setRegs({ pswMask: 0x1_8000_0000n, pswAddress: 0x1234, prefix: NO_MEMORY, a3: 7, cr13: 9n, r15: 2 });
    expect(view.getBigUint64(KVM_RUN_S390X.psw_mask)).toBe(0x1_8000_0000n);
    expect(view.getBigUint64(KVM_RUN_S390X.psw_addr)).toBe(0x1234n);
    expect(view.getUint32(KVM_RUN_S390X.acrs + 12)).toBe(7);
    expect(view.getBigUint64(KVM_RUN_S390X.gprs + 120)).toBe(2n);
    expect(vcpu.s390x.cpuState().cr[27]).toBe(9);
    expect(() => vcpu.runSync({ timeoutMs: 5 })).toThrow(expect.objectContaining({ code: 'EFAULT' }));
    expect(vcpu.s390x.getRegs()).toMatchObject({ prefix: BigInt(NO_MEMORY), pswAddress: 0x1234n, cr13: 9n });
    expect(() => vcpu.s390x.setRegs({ prefix: 0x1000 })).toThrow('8 KiB');
    expect(() => vcpu.s390x.setRegs({ a0: 2 ** 32 })).toThrow('"regs.a0"');
  });

  it('control registers that somebody has put into kvm_run are those that count', () => {
    const { view } = vcpu.kvmRun;
    vcpu.s390x.setRegs({ cr1: 5 });
    view.setBigUint64(KVM_RUN_S390X.crs + 8, 6n);
    expect(vcpu.s390x.getRegs().cr1).toBe(5n);
    view.setBigUint64(KVM_RUN_S390X.kvm_dirty_regs, 8n);
    expect(vcpu.s390x.getRegs().cr1).toBe(6n);
    // And a register that is set afterwards is not undone by the next run.
    vcpu.s390x.setRegs({ cr1: 7 });
    expect(vcpu.runSync({ timeoutMs: 5 })).toEqual({ reason: 'INTR' });
    expect(vcpu.s390x.getRegs().cr1).toBe(7n);
  });

  it.each(['initialReset', 'clearReset'] as const)('%s leaves nothing to be taken from before', (reset) => {
    vcpu.s390x.setRegs({ pswMask: 0x1_8000_0000n, prefix: NO_MEMORY, cr1: 5 });
    vcpu.s390x[reset]();
    expect(vcpu.s390x.getRegs()).toMatchObject({ pswMask: 0n, prefix: 0n, cr1: 0n, cr0: 0xe0n });
    expect(vcpu.runSync({ timeoutMs: 5 })).toEqual({ reason: 'INTR' });
    expect(vcpu.s390x.getRegs()).toMatchObject({ pswMask: 0n, prefix: 0n });
  });

  it.each([
    ['setRegs', () => vcpu.s390x.setRegs({ pswMask: 0x0400_0001_8000_0000n })],
    ['setInitialPsw', () => vcpu.s390x.setInitialPsw(0x0400_0001_8000_0000n, 0)],
  ])('MEM_OP says once that the PSW of %s is not in force yet', (_, set) => {
    const warn = vi.spyOn(process, 'emitWarning').mockImplementation(() => {});
    try {
      vcpu.memOp.read(0x2000, 8, { key: 0 });
      expect(warn).not.toHaveBeenCalled();
      set();
      for (let i = 0; i < 2; i++) vcpu.memOp.read(0x2000, 8, { key: 0 });
      expect(warn.mock.calls.map(([, options]) => options)).toEqual([{ code: 'KVM_BRIDGE_PSW_WAITS' }]);
    } finally {
      warn.mockRestore();
    }
  });

  it('MEM_OP says nothing once a run has taken it', () => {
    const warn = vi.spyOn(process, 'emitWarning').mockImplementation(() => {});
    try {
      vcpu.s390x.setRegs({ pswMask: 0x1_8000_0000n });
      vcpu.runSync({ timeoutMs: 5 });
      vcpu.memOp.read(0x2000, 8, { key: 0 });
      expect(warn).not.toHaveBeenCalled();
    } finally {
      warn.mockRestore();
    }
  });
});

it('ppc64 has segments and the registers of protection keys', () => {
  using kvm = Kvm.open({ backend: 'emulated', arch: 'ppc64' });
  using vm = kvm.createVm();
  const { ppc64, getSregsBytes } = (() => {
    const vcpu = vm.createVcpu();
    return { ppc64: vcpu.ppc64, getSregsBytes: () => vcpu.getSregsBytes(REGS_SIZE.ppc64.sregs!) };
  })();
  expect(ppc64.getSlb()).toEqual([]);
  const slb = [
    encodeSegment({ ea: 0x1000_0000, vsid: 0x1234, segmentSize: '256M', ks: true }),
    encodeSegment({ ea: 0x100_0000_0000, vsid: 0x77, segmentSize: '1T', baseShift: 16 }),
  ];
  const pvr = getSregsBytes().slice(0, 4);
  ppc64.setSlb(slb);
  expect(ppc64.getSlb().map(String)).toEqual(slb.map(String));
  expect(getSregsBytes().slice(0, 4)).toEqual(pvr);
  ppc64.setSlb(slb.slice(1));
  expect(ppc64.getSlb().map(String)).toEqual([String(slb[1])]);
  expect(() => ppc64.setSlb(Array(33).fill(slb[0]))).toThrow('"slb.length"');
  expect(() => ppc64.setSlb([{} as never])).toThrow('"slb[0]"');
  ppc64.setKeyRegs({ amr: 2n ** 63n });
  expect(ppc64.getKeyRegs()).toEqual({ amr: 2n ** 63n, uamor: 0n });
  ppc64.setRegs({ msr: 0x8000_0000_0000_0001n });
  // Machine checks can't be disabled.
  expect(ppc64.getRegs().msr).toBe(0x8000_0000_0000_1001n);
});

it('aarch64 takes features by their numbers', () => {
  using kvm = Kvm.open({ backend: 'emulated', arch: 'aarch64' });
  using vm = kvm.createVm();
  const vcpu = vm.createVcpu();
  expect(() => vcpu.aarch64.getRegs()).toThrow(expect.objectContaining({ code: 'ENOEXEC' }));
  const structs: Uint8Array[] = [];
  vi.spyOn(vcpu, 'ioctl').mockImplementation((_, struct) => structs.push(Uint8Array.from(struct as Uint8Array)));
  vcpu.aarch64.init([0, 2, 33]);
  expect([...structs[0]!.subarray(0, 12)]).toEqual([5, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0, 0]);
  vi.restoreAllMocks();
  expect(() => vcpu.aarch64.init([224])).toThrow('"features[0]"');
  vcpu.aarch64.init();
  vcpu.aarch64.setRegs({ x30: 3 });
  expect(vcpu.getOneReg(ONE_REG.ARM64_CORE + 60n)).toBe(3n);
  vcpu.aarch64.init();
  expect(vcpu.aarch64.getRegs()).toMatchObject({ x30: 0n, pstate: 0x3c5n });
});
