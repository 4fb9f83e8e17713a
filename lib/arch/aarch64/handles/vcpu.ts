import { checkInteger } from '../../../base/arguments.ts';
import { invalidArgType } from '../../../base/errors.ts';
import { checkRegisters, registersOf, type SomeRegisters } from '../../../base/registers.ts';
import type { U64 } from '../../../base/u64.ts';
import { type Callee, callFailure } from '../../../calls/failure.ts';
import { ONE_REG } from '../../../uapi/flags.ts';
import { requestNumber, requestSize } from '../../../uapi/requests.ts';
import { KVM_VCPU_INIT } from '../../../uapi/structs.ts';

type GeneralRegister =
  | `x${0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 10 | 11 | 12 | 13 | 14 | 15 | 16 | 17 | 18 | 19 | 20}`
  | `x${21 | 22 | 23 | 24 | 25 | 26 | 27 | 28 | 29 | 30}`;
export type Aarch64RegName =
  | GeneralRegister
  | 'sp'
  | 'pc'
  | 'pstate'
  | 'spEl1'
  | 'elrEl1'
  | 'spsrEl1'
  | 'spsrAbt'
  | 'spsrUnd'
  | 'spsrIrq'
  | 'spsrFiq';

/** The core registers of an aarch64 vCPU (`struct kvm_regs`); `sp` is that of EL0. */
export type Aarch64Regs = Record<Aarch64RegName, bigint>;

/** In the order of `struct kvm_regs`. */
const NAMES: readonly Aarch64RegName[] = [
  ...Array.from({ length: 31 }, (_, n) => `x${n}` as GeneralRegister),
  'sp',
  'pc',
  'pstate',
  'spEl1',
  'elrEl1',
  'spsrEl1',
  'spsrAbt',
  'spsrUnd',
  'spsrIrq',
  'spsrFiq',
];

/** Ids count words of 32 bits. */
const idOf = (name: Aarch64RegName): bigint => ONE_REG.ARM64_CORE + 2n * BigInt(NAMES.indexOf(name));

/** Features that there are bits for. */
const FEATURES = 8 * (KVM_VCPU_INIT.structSize - KVM_VCPU_INIT.features);

/** The vCPU, whose registers are got and set one by one. */
export interface Aarch64VcpuOwner {
  readonly vm: Callee;
  ioctl(request: number, struct: Uint8Array): number;
  getOneReg(id: bigint): bigint;
  setOneReg(id: bigint, value: U64): void;
}

/** What only a vCPU of aarch64 has: `vcpu.aarch64`. */
export class VcpuAarch64 {
  readonly #vcpu: Aarch64VcpuOwner;

  /** Made by the vCPU. */
  constructor(vcpu: Aarch64VcpuOwner) {
    this.#vcpu = vcpu;
  }

  /**
   * KVM_ARM_PREFERRED_TARGET and KVM_ARM_VCPU_INIT: a processor as the host's, its registers reset. Without it the vCPU has no registers and doesn't run.
   * @param features numbers of KVM_ARM_VCPU_ features: 0 POWER_OFF, 2 PSCI_0_2 … The emulated kernel doesn't look at them.
   * @throws KvmError EINVAL, ENOENT for features that the host lacks
   * @example vcpu.aarch64.init([2]); vcpu.aarch64.setRegs({ pc: 0x8000_0000 })
   */
  init(features: readonly number[] = []): void {
    if (!Array.isArray(features)) throw invalidArgType('features', 'an array of numbers', features);
    const struct = new Uint8Array(requestSize('KVM_ARM_VCPU_INIT'));
    const bits = features.map((bit, index) => checkInteger(bit, `features[${index}]`, 0, FEATURES - 1));
    const { vm } = this.#vcpu;
    const preferred = requestNumber('KVM_ARM_PREFERRED_TARGET', 'aarch64');
    const result = vm.calls.ioctlUnchecked(vm.fd, preferred, struct);
    if (result < 0) throw callFailure('ioctlUnchecked', result, vm, { explanation: 'KVM_ARM_PREFERRED_TARGET' });
    struct.fill(0, KVM_VCPU_INIT.features);
    for (const bit of bits) struct[KVM_VCPU_INIT.features + (bit >> 3)]! |= 1 << (bit & 7);
    this.#vcpu.ioctl(requestNumber('KVM_ARM_VCPU_INIT', 'aarch64'), struct);
  }

  /** The core registers, by KVM_GET_ONE_REG. @throws KvmError ENOEXEC before {@link init}, EBUSY while it runs */
  getRegs(): Aarch64Regs {
    return registersOf(NAMES, (name) => this.#vcpu.getOneReg(idOf(name)));
  }

  /** KVM_SET_ONE_REG of each register that is named. @throws KvmError ENOEXEC before {@link init}, EBUSY while it runs */
  setRegs(regs: SomeRegisters<Aarch64RegName>): void {
    for (const [name, value] of checkRegisters(regs, NAMES)) this.#vcpu.setOneReg(idOf(name), value);
  }
}
