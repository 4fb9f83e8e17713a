/** Loads and stores of a guest's own code, each as Power ISA 3.0 has it; a little-endian guest. */

import { describe, expect, it } from 'vitest';
import { execute, GuestFault, instruction } from '../../../../../lib/emulated/guest.ts';
import { ERRNO } from '../../../../../lib/uapi/errno.ts';
import { EXIT, PROT } from '../../../../../lib/uapi/flags.ts';
import { KVM_RUN } from '../../../../../lib/uapi/structs.ts';
import { TestVm, vrma } from './vm.ts';

const [CODE, DATA, DEVICE] = [0x1000, 0x5000, 0x4000_0000];
/** Eight bytes from DATA + 0x10 on, of which each is negative, and the sixteen as two doublewords. */
const BYTES = Uint8Array.from({ length: 16 }, (_, i) => 0x81 + i);
const [LOW, HIGH] = [0x8887_8685_8483_8281n, 0x908f_8e8d_8c8b_8a89n];
const [RT, RA, RB] = [6, 4, 5];

type Form = (rt: number, ra: number) => number;
/** With a displacement of 0x10, and with an index register that has it. */
const d =
  (opcode: number, low = 0): Form =>
  (rt, ra) =>
    ((opcode << 26) | (rt << 21) | (ra << 16) | 0x10 | low) >>> 0;
const x =
  (extended: number): Form =>
  (rt, ra) =>
    ((31 << 26) | (rt << 21) | (ra << 16) | (RB << 11) | (extended << 1)) >>> 0;

/** A VM whose guest has code, data and a device, all in real mode. */
function machine(): TestVm {
  const vm = new TestVm({ order: 18 });
  for (const [ea, place] of [
    [CODE, 0],
    [DATA, 0],
    [DEVICE, 1],
  ] as const) {
    const [slot, entry] = vrma(18, BigInt(ea), 0x10n, place);
    vm.ok(vm.write(slot, [entry]));
  }
  return vm;
}

/** Executes one instruction with the address in RA, the rest of it in RB, and values in RT and the register behind it. */
function executed(vm: TestVm, form: Form, { base = DATA, rt = RT, ra = RA, value = 0n } = {}) {
  const word = new Uint8Array(4);
  new DataView(word.buffer).setUint32(0, form(rt, ra), true);
  vm.ok(vm.kernel.writeMemory(vm.hva + CODE, word));
  vm.ok(vm.kernel.writeMemory(vm.hva + DATA + 0x10, BYTES));
  const li = (register: number, content: bigint) => instruction('li', BigInt(register), content);
  const results = vm.run(li(rt, value), li(rt + 1, ~value), li(ra, BigInt(base)), li(RB, 0x10n), execute(CODE));
  const registers = results[4] as readonly bigint[];
  const memory = new Uint8Array(32);
  vm.kernel.readMemory(vm.hva + DATA + 8, memory);
  return { registers, before: memory.subarray(0, 8), stored: memory.subarray(8, 24), after: memory.subarray(24) };
}

const signed = (value: bigint, bytes: number): bigint => BigInt.asUintN(64, BigInt.asIntN(8 * bytes, value));
const unsigned = (value: bigint, bytes: number): bigint => BigInt.asUintN(8 * bytes, value);
const reversed = (value: bigint, bytes: number): bigint =>
  BigInt(`0x${Buffer.from(value.toString(16).padStart(16, '0'), 'hex').reverse().subarray(0, bytes).toString('hex')}`);

type Loaded = readonly [name: string, form: Form, bytes: number, value: (value: bigint, bytes: number) => bigint];
const LOADS: readonly Loaded[] = [
  ['lbz', d(34), 1, unsigned],
  ['lhz', d(40), 2, unsigned],
  ['lha', d(42), 2, signed],
  ['lwz', d(32), 4, unsigned],
  ['lwa', d(58, 2), 4, signed],
  ['ld', d(58), 8, unsigned],
  ['lbzx', x(87), 1, unsigned],
  ['lhzx', x(279), 2, unsigned],
  ['lhax', x(343), 2, signed],
  ['lwzx', x(23), 4, unsigned],
  ['lwax', x(341), 4, signed],
  ['ldx', x(21), 8, unsigned],
  ['lhbrx', x(790), 2, reversed],
  ['lwbrx', x(534), 4, reversed],
  ['ldbrx', x(532), 8, reversed],
  ['lbarx', x(52), 1, unsigned],
  ['lharx', x(116), 2, unsigned],
  ['lwarx', x(20), 4, unsigned],
  ['ldarx', x(84), 8, unsigned],
];
const LOADS_WITH_UPDATE: readonly Loaded[] = [
  ['lbzu', d(35), 1, unsigned],
  ['lhzu', d(41), 2, unsigned],
  ['lhau', d(43), 2, signed],
  ['lwzu', d(33), 4, unsigned],
  ['ldu', d(58, 1), 8, unsigned],
  ['lbzux', x(119), 1, unsigned],
  ['lhzux', x(311), 2, unsigned],
  ['lhaux', x(375), 2, signed],
  ['lwzux', x(55), 4, unsigned],
  ['lwaux', x(373), 4, signed],
  ['ldux', x(53), 8, unsigned],
];
type Stored = readonly [name: string, form: Form, bytes: number, isReversed?: boolean];
const STORES: readonly Stored[] = [
  ['stb', d(38), 1],
  ['sth', d(44), 2],
  ['stw', d(36), 4],
  ['std', d(62), 8],
  ['stbx', x(215), 1],
  ['sthx', x(407), 2],
  ['stwx', x(151), 4],
  ['stdx', x(149), 8],
  ['sthbrx', x(918), 2, true],
  ['stwbrx', x(662), 4, true],
  ['stdbrx', x(660), 8, true],
];
const STORES_WITH_UPDATE: readonly Stored[] = [
  ['stbu', d(39), 1],
  ['sthu', d(45), 2],
  ['stwu', d(37), 4],
  ['stdu', d(62, 1), 8],
  ['stbux', x(247), 1],
  ['sthux', x(439), 2],
  ['stwux', x(183), 4],
  ['stdux', x(181), 8],
];
const VALUE = 0x1122_3344_5566_7788n;
const bytesOf = (value: bigint, bytes: number, isReversed = false): number[] => {
  const all = [...Buffer.from(value.toString(16).padStart(16, '0'), 'hex').reverse()].slice(0, bytes);
  return isReversed ? all.reverse() : all;
};

it('loads put what is there into the register, and leave the base register', () => {
  const vm = machine();
  for (const [name, form, bytes, value] of LOADS) {
    const { registers } = executed(vm, form);
    expect([name, registers[RT], registers[RT + 1], registers[RA]]).toEqual([
      name,
      value(LOW, bytes),
      2n ** 64n - 1n,
      BigInt(DATA),
    ]);
    expect(registers).toHaveLength(32);
  }
});

it('those with update put the address into it', () => {
  const vm = machine();
  for (const [name, form, bytes, value] of LOADS_WITH_UPDATE) {
    const { registers } = executed(vm, form);
    expect([name, registers[RT], registers[RA]]).toEqual([name, value(LOW, bytes), BigInt(DATA + 0x10)]);
  }
});

it('stores put the register’s lowest bytes there, and nothing beside them', () => {
  const vm = machine();
  for (const [name, form, bytes, isReversed] of STORES) {
    const { registers, before, stored, after } = executed(vm, form, { value: VALUE });
    const expected = [...bytesOf(VALUE, bytes, isReversed), ...BYTES.subarray(bytes)];
    expect([name, ...stored]).toEqual([name, ...expected]);
    expect([...before, ...after]).toEqual(Array(16).fill(0));
    expect([registers[RT], registers[RA]]).toEqual([VALUE, BigInt(DATA)]);
  }
});

it('those with update put the address into the base register', () => {
  const vm = machine();
  for (const [name, form, bytes] of STORES_WITH_UPDATE) {
    const { registers, stored } = executed(vm, form, { value: VALUE });
    expect([name, ...stored.subarray(0, bytes)]).toEqual([name, ...bytesOf(VALUE, bytes)]);
    expect(registers[RA]).toBe(BigInt(DATA + 0x10));
  }
});

describe('a quadword', () => {
  it('is a pair of registers, of which the second has the lower half', () => {
    const vm = machine();
    const { registers } = executed(vm, d(56));
    expect([registers[RT], registers[RT + 1]]).toEqual([HIGH, LOW]);
    const { stored } = executed(vm, d(62, 2), { value: VALUE });
    const second = BigInt.asUintN(64, ~VALUE);
    expect([...stored]).toEqual([...bytesOf(second, 8), ...bytesOf(VALUE, 8)]);
  });

  it('is at a multiple of 16 from its base where it is loaded, of 4 where it is stored', () => {
    const vm = machine();
    const lq: Form = (rt, ra) => ((56 << 26) | (rt << 21) | (ra << 16) | 0x2c) >>> 0;
    expect(executed(vm, lq, { base: DATA - 0x10 }).registers[RT + 1]).toBe(LOW);
    const stq: Form = (rt, ra) => ((62 << 26) | (rt << 21) | (ra << 16) | 0x2e) >>> 0;
    const { stored, before } = executed(vm, stq, { base: DATA - 0x1c, value: VALUE });
    expect([...stored]).toEqual([...bytesOf(BigInt.asUintN(64, ~VALUE), 8), ...bytesOf(VALUE, 8)]);
    expect([...before]).toEqual(Array(8).fill(0));
  });

  it.each([
    ['lq', d(56)],
    ['stq', d(62, 2)],
  ])('%s of a pair that begins with an odd register is no instruction', (_, form) => {
    expect(() => executed(machine(), form, { rt: RT + 1 })).toThrow(GuestFault);
  });
});

it('register 0 as a base is none', () => {
  const vm = machine();
  expect(() => executed(vm, x(23), { ra: 0, rt: RT })).toThrow(/no page table entry for 0x10$/);
  const [slot, entry] = vrma(18, 0n, 0x10n);
  vm.ok(vm.write(slot, [entry]));
  vm.ok(vm.kernel.writeMemory(vm.hva + 0x10, Uint8Array.of(0x77)));
  expect(executed(vm, x(23), { ra: 0, rt: RT }).registers[RT]).toBe(0x77n);
  expect(executed(vm, d(32), { ra: 0, rt: RT }).registers[RT]).toBe(0x77n);
});

it('a displacement is signed', () => {
  const vm = machine();
  const back: Form = (rt, ra) => ((32 << 26) | (rt << 21) | (ra << 16) | 0xfff0) >>> 0;
  expect(executed(vm, back, { base: DATA + 0x20 }).registers[RT]).toBe(unsigned(LOW, 4));
});

it.each([
  ['a load with update of the base register itself', d(33), { rt: RA, ra: RA }],
  ['a load with update of no base register', d(33), { ra: 0 }],
  ['a store with update of no base register', d(37), { ra: 0 }],
  ['58 with 3 in the lowest bits', d(58, 3), {}],
  ['62 with 3 in the lowest bits', d(62, 3), {}],
  ['an extended opcode of no load', x(266), {}],
  ['another opcode', d(14), {}],
])('%s is none', (_, form, options) => {
  expect(() => executed(machine(), form, options)).toThrow(GuestFault);
});

it('a store with update may store the base register: it is stored as it was', () => {
  const { stored, registers } = executed(machine(), d(37), { rt: RA, ra: RA });
  expect([...stored.subarray(0, 4)]).toEqual(bytesOf(BigInt(DATA), 4));
  expect(registers[RA]).toBe(BigInt(DATA + 0x10));
});

describe('where the host has no page', () => {
  const missing = (form: Form, value = 0n) => {
    const vm = machine();
    const word = new Uint8Array(4);
    new DataView(word.buffer).setUint32(0, form(RT, RA), true);
    vm.ok(vm.kernel.writeMemory(vm.hva + CODE, word));
    vm.ok(vm.kernel.writeMemory(vm.hva + DATA + 0x10, BYTES));
    const protect = (prot: number) => vm.ok(vm.kernel.mprotect(vm.hva + DATA, 4096, prot));
    protect(PROT.NONE);
    const li = (register: number, content: bigint) => instruction('li', BigInt(register), content);
    const results = vm.run(li(RT, value), li(RA, BigInt(DATA)), execute(CODE));
    expect([vm.exit, results.length]).toEqual([-ERRNO.EFAULT, 2]);
    const base = (): bigint => {
      const regs = Buffer.alloc(392);
      vm.ok(vm.kernel.getRegs(vm.vcpu, regs));
      return regs.readBigUInt64LE(136 + 8 * RA);
    };
    const before = base();
    protect(PROT.READ | PROT.WRITE);
    expect(vm.kernel.run(vm.vcpu, 0)).toBe(-ERRNO.EINTR);
    return { vm, before, after: base(), registers: results[2] as readonly bigint[] };
  };

  it('a load has what is there once it is, and its base register is updated then', () => {
    const { before, after, registers } = missing(d(33));
    expect([before, after]).toEqual([BigInt(DATA), BigInt(DATA + 0x10)]);
    expect([registers[RT], registers[RA]]).toEqual([LOW & 0xffff_ffffn, after]);
  });

  it('a store is made once it is, and its base register is updated then', () => {
    const { vm, before, after } = missing(d(37), VALUE);
    expect([before, after]).toEqual([BigInt(DATA), BigInt(DATA + 0x10)]);
    const stored = new Uint8Array(4);
    vm.kernel.readMemory(vm.hva + DATA + 0x10, stored);
    expect([...stored]).toEqual(bytesOf(VALUE, 4));
  });
});

describe('where there is no memory', () => {
  it('a store leaves to user space', () => {
    const vm = machine();
    executed(vm, d(37), { base: DEVICE, value: VALUE });
    expect([vm.exit, vm.exitReason]).toEqual([0, EXIT.MMIO]);
    const { mmio } = KVM_RUN;
    expect(vm.runArea.getBigUint64(mmio.phys_addr, true)).toBe(BigInt(DEVICE + 0x10));
    expect(vm.runArea.getUint32(mmio.len, true)).toBe(4);
    expect(vm.runArea.getUint32(mmio.data, true)).toBe(0x5566_7788);
  });

  it('a displacement does not make a cache operation of a load', () => {
    const vm = machine();
    const lwz: Form = (rt, ra) => ((32 << 26) | (rt << 21) | (ra << 16) | (54 << 1)) >>> 0;
    executed(vm, lwz, { base: DEVICE });
    expect([vm.exit, vm.exitReason]).toEqual([0, EXIT.MMIO]);
    expect(vm.runArea.getBigUint64(KVM_RUN.mmio.phys_addr, true)).toBe(BigInt(DEVICE + 108));
    expect(vm.runArea.getUint32(KVM_RUN.mmio.len, true)).toBe(4);
  });

  it.each([
    ['lq', d(56), 0x0400_0000n],
    ['stq', d(62, 2), 0x0600_0000n],
    ['lwarx', x(20), 0x0400_0000n],
    ['ldarx', x(84), 0x0400_0000n],
    ['lbarx', x(52), 0x0400_0000n],
    ['lharx', x(116), 0x0400_0000n],
  ])('%s is not emulated by KVM, which makes a data storage interrupt', (_, form, dsisr) => {
    const vm = machine();
    let fault: unknown;
    try {
      executed(vm, form, { base: DEVICE });
    } catch (caught) {
      fault = caught;
    }
    expect(fault).toBeInstanceOf(GuestFault);
    expect(fault).toMatchObject({ code: 0x300, message: "KVM doesn't emulate the instruction at 0x1000" });
    expect(vm.run(instruction('mfspr', 18n), instruction('mfspr', 19n))).toEqual([dsisr, BigInt(DEVICE + 0x10)]);
  });
});

it('code is at any address that is memory, and nowhere else', () => {
  const vm = machine();
  const faultAt = (address: number): unknown => {
    try {
      vm.run(execute(address));
    } catch (fault) {
      return fault;
    }
    return undefined;
  };
  vm.ok(vm.kernel.writeMemory(vm.hva + CODE, Uint8Array.of(0, 0, 0, 4)));
  expect(faultAt(CODE)).toMatchObject({ code: 0x700, message: 'illegal instruction at 0x1000' });
  expect(faultAt(DEVICE)).toMatchObject({ code: 0x400, message: 'no code can be fetched from 0x40000000' });
  vm.ok(vm.kernel.mprotect(vm.hva + CODE, 4096, PROT.NONE));
  expect(faultAt(CODE)).toMatchObject({ code: 0x400, message: 'no code can be fetched from 0x1000' });
  const [slot, entry] = vrma(18, 0n, 0x10n);
  vm.ok(vm.write(slot, [entry]));
  vm.ok(vm.kernel.writeMemory(vm.hva, Uint8Array.of(0, 0, 0x64, 0x80)));
  const [, registers] = vm.run(instruction('li', 4n, BigInt(DATA)), execute(0));
  expect((registers as bigint[])[3]).toBe(0n);
});

it('what scripted guests do with registers is li and mfspr of DSISR and DAR', () => {
  const vm = machine();
  for (const [name, ...operands] of [
    ['mtspr', 18n, 1n],
    ['mfspr', 17n],
    ['mtspr', 19n],
    ['addi', 3n],
  ] as const) {
    let fault: unknown;
    try {
      vm.run(instruction(name, ...operands));
    } catch (caught) {
      fault = caught;
    }
    expect(fault).toBeInstanceOf(GuestFault);
    expect(fault).toMatchObject({ code: 0x700, message: `${name} ${operands.join(', ')} is not emulated` });
  }
});
