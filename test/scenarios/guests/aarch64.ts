import type { KvmCalls } from '../../../lib/calls/kvm-calls.ts';
import { DONE_ADDRESS, type GuestLoader, PAUSE_ADDRESS, type ScriptOp } from '../scenario.ts';

const KVM_ARM_VCPU_INIT = 0x4020_aeae;
const KVM_ARM_PREFERRED_TARGET = 0x8020_aeaf;
const VCPU_INIT_BYTES = 32;
/** ONE_REG id of the program counter: KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE | offset in words. */
const CORE_PC = 0x6030_0000_0010_0040n;

/** EL1 code with the MMU off: x1 holds addresses, w0 values. */
export function assembleAarch64(ops: readonly ScriptOp[]): Uint8Array {
  const code: number[] = [];
  // movz and movk of 16 bits each; `wide` is the 64-bit form's bit.
  const set = (register: number, value: number, wide: number): void => {
    code.push((0x5280_0000 | wide | ((value & 0xffff) << 5) | register) >>> 0);
    code.push((0x72a0_0000 | wide | ((value >>> 16) << 5) | register) >>> 0);
  };
  const toMemory: Record<1 | 2 | 4, number> = { 1: 0x3900_0020, 2: 0x7900_0020, 4: 0xb900_0020 };
  const fromMemory: Record<1 | 2 | 4, number> = { 1: 0x3940_0020, 2: 0x7940_0020, 4: 0xb940_0020 };
  const WIDE = 0x8000_0000;
  const store = (address: number, size: 1 | 2 | 4, value: number): void => {
    set(1, address, WIDE);
    set(0, value, 0);
    code.push(toMemory[size]);
  };
  const spin = (): number => code.push(0x1400_0000);
  for (const op of ops) {
    switch (op.op) {
      case 'store':
        store(op.address, op.size, op.value);
        break;
      case 'copy':
        set(1, op.from, WIDE);
        code.push(fromMemory[op.size]);
        set(1, op.to, WIDE);
        code.push(toMemory[op.size]);
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
        throw new Error('aarch64 has no ports');
    }
  }
  const bytes = new DataView(new ArrayBuffer(code.length * 4));
  for (const [i, word] of code.entries()) bytes.setUint32(i * 4, word, true);
  return new Uint8Array(bytes.buffer);
}

/** Loads machine code into a real aarch64 vCPU, initialising it when it is loaded for the first time. */
export function aarch64GuestLoader(calls: KvmCalls): GuestLoader {
  const initialised = new Set<number>();
  const orFail = (result: number, what: string): void => {
    if (result < 0) throw new Error(`The guest could not be loaded: ${what} gave ${result}`);
  };
  return {
    created(vm, vcpu) {
      const init = new Uint8Array(VCPU_INIT_BYTES);
      orFail(calls.ioctlUnchecked(vm, KVM_ARM_PREFERRED_TARGET, init), 'KVM_ARM_PREFERRED_TARGET');
      orFail(calls.ioctlUnchecked(vcpu, KVM_ARM_VCPU_INIT, init), 'KVM_ARM_VCPU_INIT');
      initialised.delete(vcpu);
    },
    load(_vm, vcpu, codeHva, codeGpa, ops) {
      // An access that led to an exit is completed by the next KVM_RUN, which would move the program counter.
      if (initialised.has(vcpu)) {
        calls.kick(vcpu);
        calls.run(vcpu, 0);
      }
      initialised.add(vcpu);
      const code = assembleAarch64(ops);
      const written = calls.writeMemory(codeHva, code);
      if (written !== code.length)
        throw new Error(`The guest's ${code.length} bytes of code don't fit: ${written} written`);
      const pc = new Uint8Array(BigUint64Array.of(BigInt(codeGpa)).buffer);
      orFail(calls.setOneReg(vcpu, CORE_PC, pc), 'KVM_SET_ONE_REG');
    },
  };
}
