import type { KvmCalls } from '../../../lib/calls/kvm-calls.ts';
import type { GuestLoader } from '../scenario.ts';
import { assembleWords, orFail, UsedVcpus, type WordMachine, writeCode } from './machine-code.ts';

/** KVM_REG_RISCV | KVM_REG_SIZE_U64 | KVM_REG_RISCV_CORE, and where the program counter is: first. */
const CORE_PC = 0x8030_0000_0200_0000n;
const MP_STATE_RUNNABLE = 0;

const A0 = 10;
const A1 = 11;

/** lui and addiw, whose immediate is signed: the register gets 32 bits, sign-extended. */
function set(code: number[], register: number, value: number): void {
  const upper = (value + 0x800) >>> 12;
  code.push(((upper << 12) | (register << 7) | 0x37) >>> 0);
  code.push((((value & 0xfff) << 20) | (register << 15) | (register << 7) | 0x1b) >>> 0);
}

/** slli and srli by 32: what was sign-extended isn't any more. */
function zeroExtend(code: number[], register: number): void {
  const shift = (32 << 20) | (register << 15) | (register << 7) | 0x13;
  code.push(shift | 0x1000, shift | 0x5000);
}

/** Supervisor code without translation: a1 holds addresses, a0 values. */
const RISCV64: WordMachine = {
  name: 'riscv64',
  setValue: (code, value) => set(code, A0, value),
  setAddress(code, address) {
    set(code, A1, address);
    zeroExtend(code, A1);
  },
  store: { 1: 0x00a5_8023, 2: 0x00a5_9023, 4: 0x00a5_a023 },
  load: { 1: 0x0005_c503, 2: 0x0005_d503, 4: 0x0005_e503 },
  spin: 0x0000_006f,
};

/** Loads machine code into a real riscv64 vCPU; those with another id than 0 are stopped when they are made. */
export function riscv64GuestLoader(calls: KvmCalls): GuestLoader {
  const used = new UsedVcpus(calls);
  return {
    created(_vm, vcpu) {
      orFail(calls.setMpState(vcpu, MP_STATE_RUNNABLE), 'KVM_SET_MP_STATE');
      used.created(vcpu);
    },
    load(_vm, vcpu, codeHva, codeGpa, ops) {
      used.beforeLoading(vcpu);
      writeCode(calls, codeHva, assembleWords(RISCV64, ops));
      const pc = new Uint8Array(BigUint64Array.of(BigInt(codeGpa)).buffer);
      orFail(calls.setOneReg(vcpu, CORE_PC, pc), 'KVM_SET_ONE_REG');
    },
  };
}
