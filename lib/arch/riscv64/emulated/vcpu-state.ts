import type { ArchVcpu } from '../../../emulated/arch-state.ts';
import type { EmulatedVcpu } from '../../../emulated/vcpu.ts';
import { ERRNO } from '../../../uapi/errno.ts';
import { MP_STATE, ONE_REG } from '../../../uapi/flags.ts';

/** The core registers: the program counter, x1 to x31, and the mode. */
const CORE_REGISTERS = 33;
const MODE = 32;
const SUPERVISOR = 1;

/** What riscv64 keeps of a vCPU: its core registers, and whether it is stopped, as all but the first are at first. */
export class Riscv64Vcpu implements ArchVcpu {
  readonly #vcpu: EmulatedVcpu;

  constructor(vcpu: EmulatedVcpu) {
    this.#vcpu = vcpu;
    vcpu.mpState = vcpu.id === 0 ? MP_STATE.RUNNABLE : MP_STATE.STOPPED;
    for (let index = 0; index < CORE_REGISTERS; index++) {
      const value = new Uint8Array(8);
      if (index === MODE) value[0] = SUPERVISOR;
      vcpu.oneRegs.set(ONE_REG.RISCV_CORE + BigInt(index), value);
    }
  }

  /** Of the mode it is kept whether it is S. */
  acceptsOneReg(id: bigint, value: Uint8Array): boolean {
    if (id !== ONE_REG.RISCV_CORE + BigInt(MODE)) return true;
    const view = new DataView(value.buffer, value.byteOffset);
    view.setBigUint64(0, view.getBigUint64(0, true) === BigInt(SUPERVISOR) ? BigInt(SUPERVISOR) : 0n, true);
    return true;
  }

  setMpState(state: number): number {
    if (state !== MP_STATE.RUNNABLE && state !== MP_STATE.STOPPED) return -ERRNO.EINVAL;
    this.#vcpu.mpState = state;
    return 0;
  }
}
