import { checkInstance } from '../../../base/arguments.ts';
import { invalidArgType } from '../../../base/errors.ts';
import { checkRegisters, registersOf, type SomeRegisters } from '../../../base/registers.ts';
import type { U64 } from '../../../base/u64.ts';
import { CAP } from '../../../uapi/capabilities.ts';
import { ONE_REG } from '../../../uapi/flags.ts';
import { REGS_SIZE } from '../../../uapi/structs.ts';
import { decodeRegs, encodeRegs, type Ppc64RegName, type Ppc64Regs } from '../model/registers.ts';
import { encodeSlb, Segment, slbOfSregs } from '../model/slb.ts';

const KEYS = { amr: ONE_REG.PPC_AMR, uamor: ONE_REG.PPC_UAMOR } as const;
const KEY_NAMES = ['amr', 'uamor'] as const;
export type Ppc64KeyRegName = (typeof KEY_NAMES)[number];

const REGS_BYTES = REGS_SIZE.ppc64.regs!;
const SREGS_BYTES = REGS_SIZE.ppc64.sregs!;

/** The vCPU, which takes capabilities, and whose registers are structures of bytes or have ids. */
export interface Ppc64VcpuOwner {
  enableCap(cap: number): void;
  getRegsBytes(size: number): Uint8Array;
  setRegsBytes(bytes: Uint8Array): void;
  getSregsBytes(size: number): Uint8Array;
  setSregsBytes(bytes: Uint8Array): void;
  getOneReg(id: bigint): bigint;
  setOneReg(id: bigint, value: U64): void;
}

/** What only a vCPU of ppc64 has: `vcpu.ppc64`. */
export class VcpuPpc64 {
  readonly #vcpu: Ppc64VcpuOwner;

  /** Made by the vCPU. */
  constructor(vcpu: Ppc64VcpuOwner) {
    this.#vcpu = vcpu;
  }

  /** Makes it a vCPU of a PAPR guest, the only kind that Book3S HV runs. @throws KvmError EINVAL where it isn't HV */
  enablePapr(): void {
    this.#vcpu.enableCap(CAP.PPC_PAPR);
  }

  /** KVM_GET_REGS: MSR, PC, the general registers r0 to r31 and more. @throws KvmError EBUSY while it runs */
  getRegs(): Ppc64Regs {
    return decodeRegs(this.#vcpu.getRegsBytes(REGS_BYTES));
  }

  /**
   * KVM_SET_REGS; registers that are not named keep their values. Bits of the MSR that a guest must have are the kernel's.
   * @example vcpu.ppc64.setRegs({ pc: 0x1000, msr: 0x8000_0000_0000_0001n })
   */
  setRegs(regs: SomeRegisters<Ppc64RegName>): void {
    const bytes = this.#vcpu.getRegsBytes(REGS_BYTES);
    encodeRegs(bytes, regs);
    this.#vcpu.setRegsBytes(bytes);
  }

  /** The valid entries of the segment lookaside buffer, of KVM_GET_SREGS. @throws KvmError EBUSY while it runs */
  getSlb(): readonly Segment[] {
    return slbOfSregs(this.#vcpu.getSregsBytes(SREGS_BYTES));
  }

  /**
   * KVM_SET_SREGS with these segments, and no others, in the segment lookaside buffer.
   * @throws RangeError for more than 32; KvmError EBUSY while it runs
   * @example vcpu.ppc64.setSlb([encodeSegment({ ea: 0x1000_0000, vsid: 0x1234, segmentSize: '256M' })])
   */
  setSlb(slb: readonly Segment[]): void {
    if (!Array.isArray(slb)) throw invalidArgType('slb', 'an array of segments', slb);
    const segments = slb.map((entry, index) => checkInstance(entry, `slb[${index}]`, Segment));
    const bytes = this.#vcpu.getSregsBytes(SREGS_BYTES);
    encodeSlb(bytes, segments);
    this.#vcpu.setSregsBytes(bytes);
  }

  /** The registers of protection keys: AMR and UAMOR, by KVM_GET_ONE_REG. @throws KvmError EBUSY while it runs */
  getKeyRegs(): Record<Ppc64KeyRegName, bigint> {
    return registersOf(KEY_NAMES, (name) => this.#vcpu.getOneReg(KEYS[name]));
  }

  /** Sets those that are named, by KVM_SET_ONE_REG. @throws KvmError EBUSY while it runs */
  setKeyRegs(regs: SomeRegisters<Ppc64KeyRegName>): void {
    for (const [name, value] of checkRegisters(regs, KEY_NAMES)) this.#vcpu.setOneReg(KEYS[name], value);
  }
}
