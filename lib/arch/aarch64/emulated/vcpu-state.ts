import type { ArchVcpu } from '../../../emulated/arch-state.ts';
import type { EmulatedVcpu } from '../../../emulated/vcpu.ts';
import { ERRNO } from '../../../uapi/errno.ts';
import { ARM_TARGET_GENERIC_V8, MP_STATE, ONE_REG } from '../../../uapi/flags.ts';
import { KVM_VCPU_INIT } from '../../../uapi/structs.ts';

/** The core registers that every vCPU has: x0 to x30, SP, PC, PSTATE, SP_EL1, ELR_EL1 and five SPSRs. */
const CORE_REGISTERS = 41;
const PSTATE = 33;
/** EL1 with its own stack pointer, and every interrupt masked. */
const PSTATE_AFTER_RESET = 0x3c5n;

/** States that SET_MP_STATE takes. */
const STATES: readonly number[] = [MP_STATE.RUNNABLE, MP_STATE.STOPPED, MP_STATE.SUSPENDED];

/** What aarch64 keeps of a vCPU: until KVM_ARM_VCPU_INIT it has no registers and does not run. */
export class Aarch64Vcpu implements ArchVcpu {
  readonly #vcpu: EmulatedVcpu;

  constructor(vcpu: EmulatedVcpu) {
    this.#vcpu = vcpu;
  }

  get #initialised(): boolean {
    return this.#vcpu.oneRegs.size > 0;
  }

  /** Who gives a vCPU a scripted guest has initialised it. */
  loaded(): void {
    if (!this.#initialised) this.#reset();
  }

  readonly requests = {
    KVM_ARM_VCPU_INIT: (struct: Uint8Array): number => {
      if (
        new DataView(struct.buffer, struct.byteOffset).getUint32(KVM_VCPU_INIT.target, true) !== ARM_TARGET_GENERIC_V8
      )
        return -ERRNO.EINVAL;
      this.#reset();
      return 0;
    },
  };

  #reset(): void {
    for (let index = 0; index < CORE_REGISTERS; index++) {
      const value = new DataView(new ArrayBuffer(8));
      if (index === PSTATE) value.setBigUint64(0, PSTATE_AFTER_RESET, true);
      this.#vcpu.oneRegs.set(ONE_REG.ARM64_CORE + BigInt(2 * index), new Uint8Array(value.buffer));
    }
  }

  beforeRun(): number {
    return this.#initialised ? 0 : -ERRNO.ENOEXEC;
  }

  refusesOneReg(): number {
    return this.#initialised ? 0 : -ERRNO.ENOEXEC;
  }

  setMpState(state: number): number {
    if (!STATES.includes(state)) return -ERRNO.EINVAL;
    this.#vcpu.mpState = state;
    return 0;
  }
}
