import type { KvmCalls } from '../../../lib/calls/kvm-calls.ts';
import { CAP } from '../../../lib/uapi/capabilities.ts';
import { REGS_SIZE } from '../../../lib/uapi/structs.ts';
import { DONE_ADDRESS, type GuestLoader, PAUSE_ADDRESS, type ScriptOp } from '../scenario.ts';

/** `struct kvm_regs`: pc, msr. */
const REGS_PC = 0;
const REGS_MSR = 40;
/** MSR of 64-bit little-endian code in real mode: SF, LE. */
const REAL_MODE = 0x8000_0000_0000_0001n;

/** Vectors of the interrupts that an instruction can end in. */
const VECTORS = [0x300, 0x380, 0x400, 0x600, 0x700, 0x800, 0xf20, 0xf40];
const BLR = 0x4e80_0020;
/** Each interrupt's handler, which is big-endian code: r9 = vector, r10 = DAR, r11 = DSISR, and back to what LR says. */
const handler = (vector: number): readonly number[] => [
  0x3920_0000 | vector, // li r9, vector
  0x7d53_02a6, // mfdar r10
  0x7d72_02a6, // mfdsisr r11
  0x7d88_02a6, // mflr r12
  0x7d9a_03a6, // mtsrr0 r12
  0x4c00_0024, // rfid
];

/** 64-bit little-endian code: r3 holds values, r4 addresses. */
export function assemblePpc64(ops: readonly ScriptOp[]): Uint8Array {
  const code: number[] = [];
  /** lis, ori, sldi 32, oris, ori. */
  const set = (register: number, value: bigint): void => {
    const part = (shift: bigint): number => Number((value >> shift) & 0xffffn);
    const both = (register << 21) | (register << 16);
    code.push(0x3c00_0000 | (register << 21) | part(48n));
    code.push(0x6000_0000 | both | part(32n));
    code.push(0x7800_07c6 | both);
    code.push(0x6400_0000 | both | part(16n));
    code.push(0x6000_0000 | both | part(0n));
  };
  const toMemory: Record<1 | 2 | 4, number> = { 1: 0x9864_0000, 2: 0xb064_0000, 4: 0x9064_0000 };
  const fromMemory: Record<1 | 2 | 4, number> = { 1: 0x8864_0000, 2: 0xa064_0000, 4: 0x8064_0000 };
  const store = (address: number, size: 1 | 2 | 4, value: number): void => {
    set(4, BigInt(address));
    set(3, BigInt(value));
    code.push(toMemory[size]);
  };
  const spin = (): number => code.push(0x4800_0000);
  for (const op of ops) {
    switch (op.op) {
      case 'store':
        store(op.address, op.size, op.value);
        break;
      case 'copy':
        set(4, BigInt(op.from));
        code.push(fromMemory[op.size]);
        set(4, BigInt(op.to));
        code.push(toMemory[op.size]);
        break;
      case 'hypercall':
        set(3, BigInt(op.nr));
        for (const [i, value] of op.args.entries()) set(4 + i, value);
        // sc 1, then std of r3 and what follows it.
        code.push(0x4400_0022);
        set(14, BigInt(op.to));
        for (let i = 0; i < op.results; i++) code.push(0xf80e_0000 | ((3 + i) << 21) | (8 * i));
        break;
      case 'execute':
        for (const [register, value] of Object.entries(op.gprs)) set(Number(register), value);
        for (const register of [9, 10, 11]) code.push(0x3800_0000 | (register << 21)); // li
        set(12, BigInt(op.at));
        code.push(0x7d89_03a6, 0x4e80_0421); // mtctr r12; bctrl
        set(14, BigInt(op.to));
        for (const [i, register] of [9, 10, 11, 3, 4, 5, 6, 7, 8].entries()) {
          code.push(0xf80e_0000 | (register << 21) | (8 * i)); // std
        }
        break;
      case 'pause':
        store(PAUSE_ADDRESS, 1, 0);
        break;
      case 'done':
        store(DONE_ADDRESS, 1, 0);
        spin();
        break;
      case 'spin':
        spin();
        break;
      case 'out':
      case 'in':
        throw new Error('ppc64 has no ports');
    }
  }
  return words(code, true);
}

function words(code: readonly number[], littleEndian: boolean): Uint8Array {
  const bytes = new DataView(new ArrayBuffer(code.length * 4));
  for (const [i, word] of code.entries()) bytes.setUint32(i * 4, word, littleEndian);
  return new Uint8Array(bytes.buffer);
}

/** Loads machine code into a real ppc64 vCPU, to be run in real mode. */
export function ppc64GuestLoader(calls: KvmCalls): GuestLoader {
  const loaded = new Set<number>();
  const orFail = (result: number, what: string): void => {
    if (result < 0) throw new Error(`The guest could not be loaded: ${what} gave ${result}`);
  };
  return {
    created(_vm, vcpu) {
      orFail(calls.enableCap(vcpu, CAP.PPC_PAPR, 0, []), 'KVM_ENABLE_CAP(PPC_PAPR)');
      loaded.delete(vcpu);
    },
    load(_vm, vcpu, codeHva, codeGpa, ops) {
      // An access that led to an exit is completed by the next KVM_RUN, which would overwrite registers.
      if (loaded.has(vcpu)) {
        calls.kick(vcpu);
        calls.run(vcpu, 0);
      }
      loaded.add(vcpu);
      const code = assemblePpc64(ops);
      const written = calls.writeMemory(codeHva, code);
      if (written !== code.length)
        throw new Error(`The guest's ${code.length} bytes of code don't fit: ${written} written`);
      const guestMemory = codeHva - codeGpa;
      const instructions = ops.filter((op) => op.op === 'execute');
      if (instructions.length > 0) {
        for (const vector of VECTORS) calls.writeMemory(guestMemory + vector, words(handler(vector), false));
      }
      for (const { at, word } of instructions) calls.writeMemory(guestMemory + at, words([word, BLR], true));
      const regs = new DataView(new ArrayBuffer(REGS_SIZE.ppc64.regs ?? 0));
      regs.setBigUint64(REGS_PC, BigInt(codeGpa), true);
      regs.setBigUint64(REGS_MSR, REAL_MODE, true);
      orFail(calls.setRegs(vcpu, new Uint8Array(regs.buffer)), 'KVM_SET_REGS');
    },
  };
}
