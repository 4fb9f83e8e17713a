import type { SomeRegisters } from '../../../base/registers.ts';
import {
  decodeRegs,
  decodeSregs,
  encodeRegs,
  encodeSregs,
  X86_64_REGS_BYTES,
  X86_64_SREGS_BYTES,
  type X86_64RegName,
  type X86_64Regs,
  type X86_64Sregs,
} from '../model/registers.ts';

/** The vCPU, whose registers are structures of bytes. */
export interface X86_64RegistersVcpu {
  getRegsBytes(size: number): Uint8Array;
  setRegsBytes(bytes: Uint8Array): void;
  getSregsBytes(size: number): Uint8Array;
  setSregsBytes(bytes: Uint8Array): void;
}

/** What only a vCPU of x86_64 has: `vcpu.x86_64`. */
export class VcpuX86_64 {
  readonly #vcpu: X86_64RegistersVcpu;

  /** Made by the vCPU. */
  constructor(vcpu: X86_64RegistersVcpu) {
    this.#vcpu = vcpu;
  }

  /** KVM_GET_REGS. @throws KvmError EBUSY while it runs */
  getRegs(): X86_64Regs {
    return decodeRegs(this.#vcpu.getRegsBytes(X86_64_REGS_BYTES));
  }

  /** KVM_SET_REGS; registers that are not named keep their values. @example vcpu.x86_64.setRegs({ rip: 0x1000, rflags: 2 }) */
  setRegs(regs: SomeRegisters<X86_64RegName>): void {
    const bytes = this.#vcpu.getRegsBytes(X86_64_REGS_BYTES);
    encodeRegs(bytes, regs);
    this.#vcpu.setRegsBytes(bytes);
  }

  /** KVM_GET_SREGS. @throws KvmError EBUSY while it runs */
  getSregs(): X86_64Sregs {
    return decodeSregs(this.#vcpu.getSregsBytes(X86_64_SREGS_BYTES));
  }

  /** KVM_SET_SREGS; registers that are not named keep their values. */
  setSregs(sregs: Partial<X86_64Sregs>): void {
    const bytes = this.#vcpu.getSregsBytes(X86_64_SREGS_BYTES);
    encodeSregs(bytes, sregs);
    this.#vcpu.setSregsBytes(bytes);
  }
}
