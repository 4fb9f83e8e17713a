import type { KvmCalls } from '../../../lib/calls/kvm-calls.ts';
import { ONE_REG } from '../../../lib/uapi/flags.ts';
import { requestNumber, requestSize } from '../../../lib/uapi/requests.ts';
import type { GuestLoader } from '../scenario.ts';
import { assembleWords, orFail, UsedVcpus, type WordMachine, writeCode } from './machine-code.ts';

/** The program counter, in words of the structure. */
const CORE_PC = ONE_REG.ARM64_CORE + 0x40n;

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

/** What a vCPU needs before anything else: a processor, the one that the host prefers. */
export function initialiseAarch64(calls: KvmCalls, vm: number, vcpu: number): void {
  const init = new Uint8Array(requestSize('KVM_ARM_VCPU_INIT'));
  for (const [fd, name] of [
    [vm, 'KVM_ARM_PREFERRED_TARGET'],
    [vcpu, 'KVM_ARM_VCPU_INIT'],
  ] as const) {
    orFail(calls.ioctlUnchecked(fd, requestNumber(name, 'aarch64'), init), name);
  }
}

/** Loads machine code into a real aarch64 vCPU, which is initialised when it is created. */
export function aarch64GuestLoader(calls: KvmCalls): GuestLoader {
  const used = new UsedVcpus(calls);
  return {
    created(vm, vcpu) {
      initialiseAarch64(calls, vm, vcpu);
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
