import type { KvmCalls } from '../../../lib/calls/kvm-calls.ts';
import type { GuestLoader } from '../scenario.ts';
import { assembleWords, orFail, UsedVcpus, type WordMachine, writeCode } from './machine-code.ts';

const KVM_ARM_VCPU_INIT = 0x4020_aeae;
const KVM_ARM_PREFERRED_TARGET = 0x8020_aeaf;
const VCPU_INIT_BYTES = 32;
/** ONE_REG id of the program counter: KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE | offset in words. */
const CORE_PC = 0x6030_0000_0010_0040n;

/** movz and movk of 16 bits each; `wide` is the bit of the 64-bit forms. */
function set(code: number[], register: number, value: number, wide: number): void {
  code.push((0x5280_0000 | wide | ((value & 0xffff) << 5) | register) >>> 0);
  code.push((0x72a0_0000 | wide | ((value >>> 16) << 5) | register) >>> 0);
}

/** EL1 code with the MMU off: x1 holds addresses, w0 values. */
const AARCH64: WordMachine = {
  name: 'aarch64',
  setValue: (code, value) => set(code, 0, value, 0),
  setAddress: (code, address) => set(code, 1, address, 0x8000_0000),
  store: { 1: 0x3900_0020, 2: 0x7900_0020, 4: 0xb900_0020 },
  load: { 1: 0x3940_0020, 2: 0x7940_0020, 4: 0xb940_0020 },
  spin: 0x1400_0000,
};

/** Loads machine code into a real aarch64 vCPU, which is initialised when it is created. */
export function aarch64GuestLoader(calls: KvmCalls): GuestLoader {
  const used = new UsedVcpus(calls);
  return {
    created(vm, vcpu) {
      const init = new Uint8Array(VCPU_INIT_BYTES);
      orFail(calls.ioctlUnchecked(vm, KVM_ARM_PREFERRED_TARGET, init), 'KVM_ARM_PREFERRED_TARGET');
      orFail(calls.ioctlUnchecked(vcpu, KVM_ARM_VCPU_INIT, init), 'KVM_ARM_VCPU_INIT');
      used.created(vcpu);
    },
    load(_vm, vcpu, codeHva, codeGpa, ops) {
      used.beforeLoading(vcpu);
      writeCode(calls, codeHva, assembleWords(AARCH64, ops));
      const pc = new Uint8Array(BigUint64Array.of(BigInt(codeGpa)).buffer);
      orFail(calls.setOneReg(vcpu, CORE_PC, pc), 'KVM_SET_ONE_REG');
    },
  };
}
