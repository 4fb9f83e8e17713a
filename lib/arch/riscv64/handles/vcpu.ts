import { checkRegisters, registersOf, type SomeRegisters } from '../../../base/registers.ts';
import type { U64 } from '../../../base/u64.ts';
import { ONE_REG } from '../../../uapi/flags.ts';

/** In the order of `struct kvm_riscv_core`: the program counter, x1 to x31 by their ABI names, the mode. */
const NAMES = [
  'pc',
  'ra',
  'sp',
  'gp',
  'tp',
  't0',
  't1',
  't2',
  's0',
  's1',
  'a0',
  'a1',
  'a2',
  'a3',
  'a4',
  'a5',
  'a6',
  'a7',
  's2',
  's3',
  's4',
  's5',
  's6',
  's7',
  's8',
  's9',
  's10',
  's11',
  't3',
  't4',
  't5',
  't6',
  'mode',
] as const;

export type Riscv64RegName = (typeof NAMES)[number];

/** The core registers of a riscv64 vCPU; `mode` is 1 in supervisor mode and 0 in user mode. */
export type Riscv64Regs = Record<Riscv64RegName, bigint>;

const idOf = (name: Riscv64RegName): bigint => ONE_REG.RISCV_CORE + BigInt(NAMES.indexOf(name));

/** The vCPU, whose registers are got and set one by one. */
export interface Riscv64VcpuOwner {
  getOneReg(id: bigint): bigint;
  setOneReg(id: bigint, value: U64): void;
}

/** What only a vCPU of riscv64 has: `vcpu.riscv64`. */
export class VcpuRiscv64 {
  readonly #vcpu: Riscv64VcpuOwner;

  /** Made by the vCPU. */
  constructor(vcpu: Riscv64VcpuOwner) {
    this.#vcpu = vcpu;
  }

  /** The core registers, by KVM_GET_ONE_REG. @throws KvmError EBUSY while it runs */
  getRegs(): Riscv64Regs {
    return registersOf(NAMES, (name) => this.#vcpu.getOneReg(idOf(name)));
  }

  /** KVM_SET_ONE_REG of each register that is named. @throws KvmError EBUSY while it runs */
  setRegs(regs: SomeRegisters<Riscv64RegName>): void {
    for (const [name, value] of checkRegisters(regs, NAMES)) this.#vcpu.setOneReg(idOf(name), value);
  }
}
