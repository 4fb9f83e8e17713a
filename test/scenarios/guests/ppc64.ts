import type { KvmCalls } from '../../../lib/calls/kvm-calls.ts';
import { CAP } from '../../../lib/uapi/capabilities.ts';
import { REGS_SIZE } from '../../../lib/uapi/structs.ts';
import type { GuestLoader } from '../scenario.ts';
import { assembleWords, orFail, UsedVcpus, type WordMachine, words, writeCode } from './machine-code.ts';

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

/** lis, ori, sldi 32, oris, ori. */
function set(code: number[], register: number, value: bigint): void {
  const part = (shift: bigint): number => Number((value >> shift) & 0xffffn);
  const both = (register << 21) | (register << 16);
  code.push(0x3c00_0000 | (register << 21) | part(48n));
  code.push(0x6000_0000 | both | part(32n));
  code.push(0x7800_07c6 | both);
  code.push(0x6400_0000 | both | part(16n));
  code.push(0x6000_0000 | both | part(0n));
}

/** std of registers, to where r14 points. */
function keep(code: number[], to: number, registers: readonly number[]): void {
  set(code, 14, BigInt(to));
  for (const [i, register] of registers.entries()) code.push(0xf80e_0000 | (register << 21) | (8 * i));
}

/** 64-bit little-endian code: r3 holds values, r4 addresses. */
const PPC64: WordMachine = {
  name: 'ppc64',
  setValue: (code, value) => set(code, 3, BigInt(value)),
  setAddress: (code, address) => set(code, 4, BigInt(address)),
  store: { 1: 0x9864_0000, 2: 0xb064_0000, 4: 0x9064_0000 },
  load: { 1: 0x8864_0000, 2: 0xa064_0000, 4: 0x8064_0000 },
  spin: 0x4800_0000,
  own(code, op) {
    switch (op.op) {
      case 'hypercall':
        set(code, 3, BigInt(op.nr));
        for (const [i, value] of op.args.entries()) set(code, 4 + i, value);
        code.push(0x4400_0022); // sc 1
        keep(
          code,
          op.to,
          Array.from({ length: op.results }, (_, i) => 3 + i),
        );
        return true;
      case 'execute':
        for (const [register, value] of Object.entries(op.gprs)) set(code, Number(register), value);
        for (const register of [9, 10, 11]) code.push(0x3800_0000 | (register << 21)); // li
        set(code, 12, BigInt(op.at));
        code.push(0x7d89_03a6, 0x4e80_0421); // mtctr r12; bctrl
        keep(code, op.to, [9, 10, 11, 3, 4, 5, 6, 7, 8]);
        return true;
      default:
        return false;
    }
  },
};

/** Loads machine code into a real ppc64 vCPU, to be run in real mode. */
export function ppc64GuestLoader(calls: KvmCalls): GuestLoader {
  const used = new UsedVcpus(calls);
  return {
    created(_vm, vcpu) {
      orFail(calls.enableCap(vcpu, CAP.PPC_PAPR, 0, []), 'KVM_ENABLE_CAP(PPC_PAPR)');
      used.created(vcpu);
    },
    load(_vm, vcpu, codeHva, codeGpa, ops) {
      used.beforeLoading(vcpu);
      writeCode(calls, codeHva, assembleWords(PPC64, ops));
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
