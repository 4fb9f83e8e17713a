import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { decodeLoadStore } from '../../../../../lib/arch/ppc64/emulated/instruction.ts';
import {
  execute,
  GuestFault,
  type GuestOp,
  type GuestProgram,
  spin,
  store,
} from '../../../../../lib/emulated/guest.ts';
import type { Kvm, Vcpu, Vm } from '../../../../../lib/index.ts';
import { REGS_SIZE } from '../../../../../lib/uapi/structs.ts';
import { chunkOf, hptVm, identity, PAGE_SIZES } from '../handles/emulated-hpt.ts';

const CODE = 0x1000;
const DATA = 0x2000;
const DEVICE = 0x4000_0000;
const OTHER_DEVICE = 0x4000_0100;

/** Of r3 (r5 where it says so) at what r4 points to (r6). */
const STW = 0x9064_0000;
const STB_R5 = 0x98a4_0000;
const STW_AT_R6 = 0x9066_0000;
const LWZ = 0x8064_0000;
const LHZ_R5 = 0xa0a4_0000;
const STD_8 = 0xf864_0008;
const LD_8 = 0xe864_0008;
const STWU_AT_R6 = 0x9466_0008;
const NOP = 0x6000_0000;
/** The first word of an instruction of ISA 3.1 that has two. */
const PREFIX = 0x0600_0000;

describe.each(PAGE_SIZES)('guest code on a host with pages of %i bytes', (pageSize) => {
  let kvm: Kvm;
  let vm: Vm;
  let vcpu: Vcpu;
  let other: Vcpu;
  let faults: GuestFault[];
  /** Those that have done all they were loaded with. */
  let idle: Set<Vcpu>;

  beforeEach(() => {
    ({ kvm, vm } = hptVm(pageSize));
    for (const ea of [CODE, DATA, DEVICE]) {
      const { slot, entry } = identity(ea);
      vm.hpt.write(chunkOf({ slot: slot + (ea === DEVICE ? 1 : 0), entry }));
    }
    [vcpu, other] = [vm.createVcpu(), vm.createVcpu()];
    for (const each of [vcpu, other]) each.ppc64.enablePapr();
    faults = [];
    idle = new Set();
  });
  afterEach(() => {
    vm.close();
    kvm.close();
  });

  function load(on: Vcpu, ...ops: readonly GuestOp[]): void {
    idle.delete(on);
    kvm.emulated!.loadGuest(
      on.fd,
      (function* (): GuestProgram {
        try {
          for (const op of ops) yield op;
        } catch (fault) {
          if (!(fault instanceof GuestFault)) throw fault;
          faults.push(fault);
        }
        idle.add(on);
        yield spin;
      })(),
    );
  }

  const isIdle = (on: Vcpu) => expect.poll(() => idle.has(on), { interval: 1, timeout: 10_000 }).toBe(true);

  function setGprs(values: Readonly<Record<number, bigint>>): void {
    const regs = vcpu.getRegsBytes(REGS_SIZE.ppc64.regs ?? 0);
    for (const [number, value] of Object.entries(values)) {
      new DataView(regs.buffer).setBigUint64(136 + 8 * Number(number), value, true);
    }
    vcpu.setRegsBytes(regs);
  }

  const gpr = (number: number): bigint =>
    new DataView(vcpu.getRegsBytes(REGS_SIZE.ppc64.regs ?? 0).buffer).getBigUint64(136 + 8 * number, true);

  /** vCPU 0 executes one instruction, and vCPU 1 puts another in its place when it has faulted. */
  async function replaceAfterFault(word: number, by: number, code = CODE) {
    vm.memory.writeU32(code, word);
    load(vcpu, execute(code));
    load(other, store(code, 4, BigInt(by)));
    const running = vcpu.run();
    const changing = other.run();
    const exit = await running;
    other.kick();
    await changing;
    return exit;
  }

  test('loads and stores memory', () => {
    setGprs({ 3: 0x1122_3344_5566_7788n, 4: BigInt(DATA) });
    vm.memory.writeU32(CODE, STD_8);
    vm.memory.writeU32(CODE + 4, LHZ_R5);
    vm.memory.writeU16(DATA, 0xbeef);
    load(vcpu, execute(CODE), execute(CODE + 4));
    vcpu.runSync();
    expect([vm.memory.readU64(DATA + 8), gpr(5)]).toEqual([0x1122_3344_5566_7788n, 0xbeefn]);
  });

  test('stores and loads without memory are MMIO', async () => {
    setGprs({ 3: 0x1122_3344n, 4: BigInt(DEVICE) });
    vm.memory.writeU32(CODE, STW);
    vm.memory.writeU32(CODE + 4, LD_8);
    load(vcpu, execute(CODE), execute(CODE + 4));
    expect(await vcpu.run()).toMatchObject({ gpa: DEVICE, isWrite: true, data: Uint8Array.of(0x44, 0x33, 0x22, 0x11) });
    const exit = await vcpu.run();
    expect(exit).toMatchObject({ gpa: DEVICE + 8, isWrite: false, size: 8 });
    if (exit.reason === 'MMIO') exit.data.set([1, 2, 3, 4, 5, 6, 7, 8]);
    vcpu.runSync();
    expect(gpr(3)).toBe(0x0807_0605_0403_0201n);
  });

  test('a store that has become a load is left to the guest, which executes the load', async () => {
    setGprs({ 3: 0x1122_3344n, 4: BigInt(DEVICE) });
    expect(await replaceAfterFault(STW, LWZ)).toMatchObject({ reason: 'MMIO', gpa: DEVICE, isWrite: false, size: 4 });
  });

  test('a load that has become a store of memory makes no exit at all', async () => {
    setGprs({ 3: 0x55n, 4: BigInt(DEVICE), 6: BigInt(DATA) });
    vm.memory.writeU32(CODE, LWZ);
    load(vcpu, execute(CODE));
    load(other, store(CODE, 4, BigInt(STW_AT_R6)));
    const running = vcpu.run();
    const changing = other.run();
    await isIdle(vcpu);
    vcpu.kick();
    other.kick();
    expect([(await running).reason, (await changing).reason]).toEqual(['INTR', 'INTR']);
    expect(vm.memory.readU32(DATA)).toBe(0x55);
  });

  test('another store is emulated at the address that faulted, with its own register and size', async () => {
    setGprs({ 3: 0x1122_3344n, 4: BigInt(DEVICE), 5: 0x99n });
    expect(await replaceAfterFault(STW, STB_R5)).toMatchObject({ gpa: DEVICE, size: 1, data: Uint8Array.of(0x99) });
    setGprs({ 6: BigInt(OTHER_DEVICE) });
    vcpu.kick();
    await vcpu.run();
    expect(await replaceAfterFault(STW, STW_AT_R6)).toMatchObject({ gpa: DEVICE, size: 4 });
  });

  test('a device may be at address 0', async () => {
    for (const region of [...vm.memory.regions()]) region.remove();
    const [code, memory] = [0x1_1000, 0x1_0000];
    vm.memory.addRam(memory, kvm.mapAnonymous(0x1_0000));
    for (const ea of [0, code]) vm.hpt.write(chunkOf(identity(ea)));
    setGprs({ 3: 0x1122_3344n, 4: 0n, 5: 0x99n });
    expect(await replaceAfterFault(STW, STB_R5, code)).toMatchObject({ gpa: 0, size: 1, data: Uint8Array.of(0x99) });
  });

  test('an update form that replaces a store moves its base register to the address that faulted', async () => {
    setGprs({ 3: 0x55n, 4: BigInt(DEVICE), 6: BigInt(DATA) });
    expect(await replaceAfterFault(STW, STWU_AT_R6)).toMatchObject({ gpa: DEVICE, isWrite: true, size: 4 });
    expect(gpr(6)).toBe(BigInt(DEVICE));
  });

  test('what is no load but has the bit of one makes a data storage interrupt', async () => {
    setGprs({ 4: BigInt(DEVICE) });
    const replaced = replaceAfterFault(LWZ, NOP);
    await isIdle(vcpu);
    for (const each of [vcpu, other]) each.kick();
    await replaced;
    expect(faults.map(({ code }) => code)).toEqual([0x300]);
  });

  // kvmppc_emulate_loadstore: nothing is done for it. Its bit is that of loads or that of stores.
  test.each([
    ['dcbst', LWZ, 54],
    ['dcbf', LWZ, 86],
    ['dcbt', LWZ, 278],
    ['dcbtst', STW, 246],
    ['icbi', STW, 982],
    ['dcbz', STW, 1014],
  ] as const)('a cache operation is passed over: %s', async (_, word, extended) => {
    setGprs({ 3: 0x55n, 4: BigInt(DEVICE) });
    const replaced = replaceAfterFault(word, ((31 << 26) | (4 << 11) | (extended << 1)) >>> 0);
    await isIdle(vcpu);
    for (const each of [vcpu, other]) each.kick();
    expect([(await replaced).reason, faults, gpr(3)]).toEqual(['INTR', [], 0x55n]);
  });

  test('a longer instruction is left to the guest, whose processor does not know it', async () => {
    setGprs({ 4: BigInt(DEVICE) });
    const replaced = replaceAfterFault(LWZ, PREFIX);
    await isIdle(vcpu);
    for (const each of [vcpu, other]) each.kick();
    await replaced;
    expect(faults.map(({ code }) => code)).toEqual([0x700]);
  });

  test.each([
    ['a store', STW],
    ['a load', LWZ],
  ])('code that has gone is left to the guest, which then cannot fetch it: %s', async (_, word) => {
    setGprs({ 4: BigInt(DEVICE) });
    vm.memory.writeU32(CODE, word);
    load(vcpu, execute(CODE));
    const running = vcpu.run();
    for (const region of [...vm.memory.regions()]) region.remove();
    await isIdle(vcpu);
    vcpu.kick();
    await running;
    expect(faults.map(({ code }) => code)).toEqual([0x400]);
  });

  test('what is no load or store is not executed', () => {
    vm.memory.writeU32(CODE, NOP);
    load(vcpu, execute(CODE));
    vcpu.runSync();
    expect(faults).toHaveLength(1);
  });
});

describe('an instruction word', () => {
  type Registers = readonly [target: number, base: number];
  const dForm = (opcode: number, [target, base]: Registers, displacement = 0): number =>
    ((opcode << 26) | (target << 21) | (base << 16) | (displacement & 0xffff)) >>> 0;
  const xForm = (extended: number, [target, base]: Registers, index = 0): number =>
    dForm(31, [target, base], (index << 11) | (extended << 1));
  /** What it is where register n has 0x1000 × n. */
  const decode = (word: number) => decodeLoadStore(word, (number) => BigInt(number) * 0x1000n);
  const address = (word: number): bigint | undefined => decode(word)?.address;

  test('has a base register, or none where that is 0, and a displacement or an index', () => {
    const [LWZ_, LD, STQ, LQ, LWZX] = [32, 58, 62, 56, 23];
    expect([address(dForm(LWZ_, [3, 4], 0x7fff)), address(dForm(LWZ_, [3, 4], -1))]).toEqual([0xbfffn, 0x3fffn]);
    expect([address(dForm(LWZ_, [3, 0], 8)), address(dForm(LWZ_, [3, 0], -8))]).toEqual([8n, 0xffff_ffff_ffff_fff8n]);
    expect([address(xForm(LWZX, [3, 4], 5)), address(xForm(LWZX, [3, 0], 5)), address(xForm(LWZX, [3, 4], 0))]).toEqual(
      [0x9000n, 0x5000n, 0x4000n],
    );
    // The lowest two bits tell which instruction it is, and four are no part of lq's displacement.
    expect([
      address(dForm(LD, [3, 4], 0x1e)),
      address(dForm(STQ, [4, 6], 0x1e)),
      address(dForm(LQ, [4, 6], 0x1c)),
    ]).toEqual([0x401cn, 0x601cn, 0x6010n]);
    // The sum is one of 64 bits.
    const top = decodeLoadStore(dForm(LWZ_, [3, 4], 0x10), () => 0xffff_ffff_ffff_fff8n);
    expect(top?.address).toBe(8n);
  });

  test('that updates has a base register, which is not the one it loads', () => {
    const [LWZU, STWU, LDUX, STDUX] = [33, 37, 53, 181];
    for (const [word, target, base] of [
      [dForm(LWZU, [3, 4]), 3, 4],
      [dForm(STWU, [4, 4]), 4, 4],
      [xForm(LDUX, [3, 4], 3), 3, 4],
      [xForm(STDUX, [4, 4], 5), 4, 4],
    ] as const)
      expect(decode(word)).toMatchObject({ target, base, update: true });
    for (const invalid of [
      dForm(LWZU, [3, 0]),
      dForm(LWZU, [4, 4]),
      dForm(STWU, [3, 0]),
      xForm(LDUX, [3, 0], 5),
      xForm(LDUX, [4, 4], 5),
      xForm(STDUX, [3, 0], 5),
    ])
      expect(decode(invalid), invalid.toString(16)).toBeUndefined();
    // What does not update may load its base register.
    expect(decode(dForm(32, [4, 4]))).toMatchObject({ target: 4, base: 4, update: false });
  });

  test('of 16 bytes names an even register', () => {
    const [LQ, STQ] = [56, 62];
    const stq = (target: number): number => dForm(STQ, [target, 6], 2);
    expect([decode(dForm(LQ, [4, 6])), decode(stq(4))]).toMatchObject([
      { size: 16, write: false },
      { size: 16, write: true },
    ]);
    expect([decode(dForm(LQ, [5, 6])), decode(stq(5))]).toEqual([undefined, undefined]);
    expect(decode(dForm(32, [5, 6]))).toMatchObject({ size: 4, write: false });
  });

  test('is no load or store where its opcodes are none’s', () => {
    for (const opcode of [0, 31, 46, 57, 60, 63]) expect(decode(dForm(opcode, [3, 4])), String(opcode)).toBeUndefined();
    // ld, ldu and lwa have 0, 1 and 2 in the lowest bits; std, stdu and stq as well.
    for (const opcode of [58, 62]) {
      const found = [0, 1, 2, 3].map((low) => decode(dForm(opcode, [4, 6], low)) !== undefined);
      expect(found).toEqual([true, true, true, false]);
    }
    // add.
    expect(decode(xForm(266, [3, 4], 5))).toBeUndefined();
  });
});
