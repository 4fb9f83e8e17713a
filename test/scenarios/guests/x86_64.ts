import type { KvmCalls } from '../../../lib/calls/kvm-calls.ts';
import { REGS_SIZE, X86_64_REGS, X86_64_SEGMENTS } from '../../../lib/uapi/structs.ts';
import { type GuestLoader, PAUSE_PORT, type ScriptOp } from '../scenario.ts';
import { orFail, writeCode } from './machine-code.ts';

const SEGMENT_BYTES = 24;
const RFLAGS_RESERVED = 2n;

/** Real-mode code, with segments that reach all of the first 4 GiB ("unreal mode"), so that no page tables are needed. */
function assembleX86_64(ops: readonly ScriptOp[]): Uint8Array {
  const code: number[] = [];
  const imm = (value: number, size: number): void => {
    for (let i = 0; i < size; i++) code.push((value >>> (8 * i)) & 0xff);
  };
  const operandSize = (size: number): number[] => (size === 4 ? [0x66] : []);
  // mov [disp32], al/ax/eax and back, with a 32-bit address.
  const toMemory = (address: number, size: number): void => {
    code.push(...operandSize(size), 0x67, size === 1 ? 0x88 : 0x89, 0x05);
    imm(address, 4);
  };
  const fromMemory = (address: number, size: number): void => {
    code.push(...operandSize(size), 0x67, size === 1 ? 0x8a : 0x8b, 0x05);
    imm(address, 4);
  };
  const setA = (value: number, size: number): void => {
    code.push(...operandSize(size), size === 1 ? 0xb0 : 0xb8);
    imm(value, size);
  };
  const setDx = (port: number): void => {
    code.push(0xba);
    imm(port, 2);
  };
  // mov ecx, count; mov esi or edi, address.
  const stringPort = (port: number, count: number, register: number, address: number): void => {
    setDx(port);
    code.push(0x66, 0xb9);
    imm(count, 4);
    code.push(0x66, register);
    imm(address, 4);
  };
  for (const op of ops) {
    switch (op.op) {
      case 'store':
        setA(op.value, op.size);
        toMemory(op.address, op.size);
        break;
      case 'copy':
        fromMemory(op.from, op.size);
        toMemory(op.to, op.size);
        break;
      case 'out':
        setDx(op.port);
        setA(op.value, op.size);
        code.push(...operandSize(op.size), op.size === 1 ? 0xee : 0xef);
        break;
      case 'in':
        setDx(op.port);
        code.push(...operandSize(op.size), op.size === 1 ? 0xec : 0xed);
        toMemory(op.to, op.size);
        break;
      case 'outs':
        stringPort(op.port, op.count, 0xbe, op.from);
        code.push(...operandSize(op.size), 0x67, 0xf3, op.size === 1 ? 0x6e : 0x6f);
        break;
      case 'ins':
        stringPort(op.port, op.count, 0xbf, op.to);
        code.push(...operandSize(op.size), 0x67, 0xf3, op.size === 1 ? 0x6c : 0x6d);
        break;
      case 'add':
        setA(op.value, op.size);
        code.push(...operandSize(op.size), 0x67, op.size === 1 ? 0x00 : 0x01, 0x05);
        imm(op.address, 4);
        break;
      case 'pause':
        setDx(PAUSE_PORT);
        code.push(0xee);
        break;
      case 'done':
        code.push(0xf4);
        break;
      case 'spin':
        code.push(0xeb, 0xfe);
        break;
    }
  }
  return Uint8Array.from(code);
}

/** Loads machine code into a real x86_64 vCPU. */
export const x86_64GuestLoader = (calls: KvmCalls): GuestLoader => ({
  load(_vm, vcpu, codeHva, codeGpa, ops) {
    writeCode(calls, codeHva, assembleX86_64(ops));
    const sizes = REGS_SIZE.x86_64;
    const sregs = new Uint8Array(sizes.sregs!);
    orFail(calls.getSregs(vcpu, sregs), 'KVM_GET_SREGS');
    const view = new DataView(sregs.buffer);
    for (let i = 0; i < X86_64_SEGMENTS.indexOf('ss') + 1; i++) {
      const segment = i * SEGMENT_BYTES;
      view.setBigUint64(segment, 0n, true);
      view.setUint32(segment + 8, 0xffff_ffff, true);
      view.setUint16(segment + 12, 0, true);
      // Granularity: the limit counts pages.
      view.setUint8(segment + 20, 1);
    }
    orFail(calls.setSregs(vcpu, sregs), 'KVM_SET_SREGS');
    const regs = new BigUint64Array(sizes.regs! / 8);
    regs[X86_64_REGS.indexOf('rip')] = BigInt(codeGpa);
    regs[X86_64_REGS.indexOf('rflags')] = RFLAGS_RESERVED;
    orFail(calls.setRegs(vcpu, new Uint8Array(regs.buffer)), 'KVM_SET_REGS');
  },
});
