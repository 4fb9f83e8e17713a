import { describe, expect, it } from 'vitest';
import { MP_STATE, ONE_REG, PROT } from '../../../../../lib/uapi/flags.ts';
import { KVM_RUN_S390X, KVM_SYNC } from '../../../../../lib/uapi/structs.ts';
import { DAT64, INJECT, Machine, MIB, REAL64 } from './machine.ts';

const [EINTR, EFAULT, EINVAL, ENXIO] = [-4, -14, -22, -6];
const ADDRESSING = 5;
const PREFIX = 0x20_0000;

describe.each([
  ['6.12', EFAULT],
  ['7.0', ADDRESSING],
] as const)('KVM_RUN of %s wants both pages of the prefix area', (release, nowhere) => {
  it.each([
    ['that are memory', PREFIX, EINTR],
    ['of which the second is named', PREFIX + 0x1000, EINTR],
    ['that are the last of memory', 4 * MIB - 0x2000, EINTR],
    ['that are none', 0x7000_0000, nowhere],
  ])('%s', (_, prefix, expected) => {
    const machine = new Machine({ release }).addMemory();
    expect(machine.latch(REAL64, {}, prefix)).toBe(expected);
    expect(machine.run.getUint32(KVM_RUN_S390X.prefix)).toBe(prefix & 0x7fff_e000);
  });

  it.each([0, 1])('and that page %i can be written', (page) => {
    const machine = new Machine({ release }).addMemory();
    machine.kernel.mprotect(machine.hva + PREFIX + page * 4096, 4096, PROT.READ);
    expect(machine.latch(REAL64, {}, PREFIX)).toBe(EFAULT);
    machine.kernel.mprotect(machine.hva + PREFIX + page * 4096, 4096, PROT.READ | PROT.WRITE);
    expect(machine.latch(REAL64, {}, PREFIX)).toBe(EINTR);
  });

  it('makes them present: what is dirty in them is told', () => {
    const machine = new Machine({ release }).addMemory(1);
    machine.latch(REAL64, {}, PREFIX);
    expect(machine.setKeys(PREFIX / 4096, 0x10, 0x10, 0x10)).toBe(0);
    const dirty = machine.dirtyPages().filter((page) => page >= PREFIX / 4096);
    // Up to 6.19 the log looks at the whole segment.
    expect(dirty.slice(0, 3)).toEqual([0x200, 0x201, ...(release === '6.12' ? [0x202] : [])]);
  });
});

describe('an interruption that is pending', () => {
  it('exchanges the PSWs, at once or when there is a prefix area again, and only once', () => {
    const machine = new Machine().addMemory();
    const [NEW_MASK, NEW_ADDRESS] = [REAL64 | (1n << 52n), 0x1234_5678_9abc_def0n];
    machine.pokeDoubleword(PREFIX + 0x1d0, NEW_MASK);
    machine.pokeDoubleword(PREFIX + 0x1d8, NEW_ADDRESS);
    machine.run.setBigUint64(KVM_RUN_S390X.psw_addr, 0x8765_4321n);
    machine.latch(REAL64);
    expect(machine.read(0x5000_0000n, 8, { flags: INJECT })).toBe(ADDRESSING);
    expect(machine.latch(REAL64)).toBe(EFAULT);
    expect(machine.latch(REAL64, {}, PREFIX)).toBe(EINTR);
    const low = new DataView(machine.peek(PREFIX, 0x200).buffer);
    expect([low.getUint16(0x8e), low.getBigUint64(0x150), low.getBigUint64(0x158)]).toEqual([
      ADDRESSING,
      REAL64,
      0x8765_4321n,
    ]);
    const psw = (): bigint[] => [
      machine.run.getBigUint64(KVM_RUN_S390X.psw_mask),
      machine.run.getBigUint64(KVM_RUN_S390X.psw_addr),
    ];
    expect(psw()).toEqual([NEW_MASK, NEW_ADDRESS]);
    expect([machine.kernel.run(machine.vcpu, 0), ...psw()]).toEqual([EINTR, NEW_MASK, NEW_ADDRESS]);
  });
});

describe('register sets', () => {
  it('that there are may be named, and others are refused', () => {
    const machine = new Machine().addMemory();
    const { kvm_valid_regs, kvm_dirty_regs } = KVM_RUN_S390X;
    const known = Object.values<number>(KVM_SYNC).reduce((all, bit) => all | bit);
    machine.latch(REAL64, {}, PREFIX);
    for (const at of [kvm_valid_regs, kvm_dirty_regs]) {
      for (let bit = 0n; bit < 64n; bit++) {
        machine.run.setBigUint64(at, 1n << bit);
        const expected = bit < 31n && (known & Number(1n << bit)) !== 0 ? EINTR : EINVAL;
        expect([bit, machine.kernel.run(machine.vcpu, 0)]).toEqual([bit, expected]);
      }
      machine.run.setBigUint64(at, 0n);
    }
  });

  it('count where they are named dirty, and are no longer so then', () => {
    const machine = new Machine().addMemory();
    machine.latch(REAL64, { 1: 0x1111n }, PREFIX);
    const { run, kernel, vcpu } = machine;
    const [CR1, PSW] = [KVM_RUN_S390X.crs + 8, KVM_RUN_S390X.psw_mask];
    expect(run.getBigUint64(KVM_RUN_S390X.kvm_dirty_regs)).toBe(0n);
    run.setBigUint64(CR1, 0x2222n);
    run.setUint32(KVM_RUN_S390X.prefix, 0);
    // The PSW always counts.
    run.setBigUint64(PSW, DAT64);
    expect(kernel.run(vcpu, 0)).toBe(EINTR);
    expect([run.getBigUint64(CR1), run.getUint32(KVM_RUN_S390X.prefix), run.getBigUint64(PSW)]).toEqual([
      0x1111n,
      PREFIX,
      DAT64,
    ]);
    run.setBigUint64(CR1, 0x3333n);
    run.setUint32(KVM_RUN_S390X.prefix, 0);
    run.setBigUint64(KVM_RUN_S390X.kvm_dirty_regs, BigInt(KVM_SYNC.CRS));
    kernel.run(vcpu, 0);
    expect([run.getBigUint64(CR1), run.getUint32(KVM_RUN_S390X.prefix)]).toEqual([0x3333n, PREFIX]);
  });
});

describe('whether a vCPU is stopped', () => {
  const { STOPPED, OPERATING } = MP_STATE;

  it('is the kernel’s affair until user space says something of it', () => {
    const machine = new Machine().addMemory();
    const { kernel, s390x, vcpu } = machine;
    const state = (): number => kernel.getMpState(vcpu);
    expect(state()).toBe(STOPPED);
    machine.latch(REAL64, {}, PREFIX);
    expect(state()).toBe(OPERATING);
    s390x.normalReset(vcpu);
    expect(state()).toBe(STOPPED);
    expect([kernel.setMpState(vcpu, OPERATING), state()]).toEqual([0, OPERATING]);
    s390x.initialReset(vcpu);
    expect(state()).toBe(OPERATING);
    expect([kernel.setMpState(vcpu, STOPPED), machine.latch(REAL64, {}, PREFIX), state()]).toEqual([
      0,
      EINVAL,
      STOPPED,
    ]);
  });

  it('is so even by a state that there is not', () => {
    const machine = new Machine().addMemory();
    expect(machine.kernel.setMpState(machine.vcpu, 0)).toBe(ENXIO);
    expect(machine.latch(REAL64, {}, PREFIX)).toBe(EINVAL);
  });
});

describe('resets', () => {
  const IDS = [ONE_REG.S390_CLOCK_COMP, ONE_REG.S390_PFTOKEN, ONE_REG.S390_PP, ONE_REG.S390_GBEA];

  it('leave what they do not name', () => {
    const machine = new Machine().addMemory();
    const { kernel, s390x, vcpu, run } = machine;
    const one = (id: bigint): bigint => {
      const value = new Uint8Array(8);
      expect(kernel.getOneReg(vcpu, id, value)).toBe(0);
      return new DataView(value.buffer).getBigUint64(0);
    };
    const ones = (): bigint[] => IDS.map(one);
    const general = (): bigint[] => [
      run.getBigUint64(KVM_RUN_S390X.gprs + 8 * 15),
      run.getBigUint64(KVM_RUN_S390X.acrs + 8 * 7),
    ];
    const RI = 0x80_0000_0000n;
    machine.latch(REAL64 | RI, { 0: 0xffn, 13: 5n, 15: 7n }, PREFIX);
    for (const at of [KVM_RUN_S390X.gprs + 8 * 15, KVM_RUN_S390X.acrs + 8 * 7]) run.setBigUint64(at, 0x99n);
    for (const id of IDS) kernel.setOneReg(vcpu, id, new Uint8Array(8).fill(1));
    const ALL_ONES = 0x0101_0101_0101_0101n;
    const control = (n: number): bigint => {
      const sregs = new Uint8Array(192);
      kernel.getSregs(vcpu, sregs);
      return new DataView(sregs.buffer).getBigUint64(64 + 8 * n);
    };

    expect(s390x.normalReset(vcpu)).toBe(0);
    expect([control(0), control(15), ...ones(), ...general()]).toEqual([
      0xffn,
      7n,
      ...Array(4).fill(ALL_ONES),
      0x99n,
      0x99n,
    ]);

    expect(s390x.initialReset(vcpu)).toBe(0);
    expect([0, 13, 14, 15].map(control)).toEqual([0xe0n, 0n, 0xc200_0000n, 0n]);
    expect(ones()).toEqual([0n, 2n ** 64n - 1n, 0n, 1n]);
    expect(general()).toEqual([0x99n, 0x99n]);
    expect(run.getBigUint64(KVM_RUN_S390X.crs)).toBe(0xe0n);
    expect(run.getBigUint64(KVM_RUN_S390X.crs + 8 * 14)).toBe(0xc200_0000n);
    expect([run.getBigUint64(KVM_RUN_S390X.psw_mask), run.getBigUint64(KVM_RUN_S390X.psw_addr)]).toEqual([0n, 0n]);

    expect(s390x.clearReset(vcpu)).toBe(0);
    expect(general()).toEqual([0n, 0n]);
  });
});
