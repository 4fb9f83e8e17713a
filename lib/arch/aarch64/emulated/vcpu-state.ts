import type { ArchVcpu } from '../../../emulated/arch-state.ts';
import type { EmulatedMemslot } from '../../../emulated/memslots.ts';
import type { EmulatedVcpu } from '../../../emulated/vcpu.ts';
import { ERRNO } from '../../../uapi/errno.ts';
import { ARM_TARGET_GENERIC_V8, MP_STATE, ONE_REG } from '../../../uapi/flags.ts';
import { KVM_VCPU_INIT } from '../../../uapi/structs.ts';
import type { Aarch64Vm } from './vm-state.ts';

/** The core registers that every vCPU has: x0 to x30, SP, PC, PSTATE, SP_EL1, ELR_EL1 and five SPSRs. */
const CORE_REGISTERS = 41;
const PSTATE = 33;
/** EL1 with its own stack pointer, and every interrupt masked. */
const PSTATE_AFTER_RESET = 0x3c5n;

/** Which exception level, with which stack pointer: EL0t, EL1t, EL1h. */
const MODES: readonly number[] = [0, 4, 5];
const MODE_BITS = 0x1f;

/** States that SET_MP_STATE takes. */
const STATES: readonly number[] = [MP_STATE.RUNNABLE, MP_STATE.STOPPED, MP_STATE.SUSPENDED];

/** What aarch64 keeps of a vCPU: until KVM_ARM_VCPU_INIT it has no registers and does not run. */
export class Aarch64Vcpu implements ArchVcpu {
  readonly #vcpu: EmulatedVcpu;
  readonly #vm: Aarch64Vm;

  constructor(vcpu: EmulatedVcpu, vm: Aarch64Vm) {
    this.#vcpu = vcpu;
    this.#vm = vm;
  }

  /** PSTATE is one of a 64-bit guest at EL0 or EL1. */
  acceptsOneReg(id: bigint, value: Uint8Array): boolean {
    return id !== ONE_REG.ARM64_CORE + BigInt(2 * PSTATE) || MODES.includes(value[0]! & MODE_BITS);
  }

  /**
   * A page that is loaded from is mapped without the right to store where its slot has a bitmap. A slot with nothing but rings is taken for
   * one that isn't logged there, so that a load makes the page dirty (`user_mem_abort` of arch/arm64/kvm/mmu.c; recorded on 6.12 to 7.2).
   */
  pageAccessed(slot: EmulatedMemslot, gfn: number, write: boolean): void {
    const { vm, ring } = this.#vcpu;
    if (vm.dirtyLog.ringOnly) this.#vm.mapped.map(vm, slot, gfn, ring);
    if (write) vm.dirtyLog.mark(slot, gfn, ring);
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
