import { checkU64 } from '../../../base/arguments.ts';
import type { SomeRegisters } from '../../../base/registers.ts';
import type { U64 } from '../../../base/u64.ts';
import { type Callee, callFailure } from '../../../calls/failure.ts';
import type { S390xCalls } from '../../../calls/kvm-calls.ts';
import type { CallName } from '../../../calls/signatures.ts';
import { ERRNO } from '../../../uapi/errno.ts';
import { KVM_RUN_S390X, KVM_SREGS_S390X, REGS_SIZE } from '../../../uapi/structs.ts';
import { checkFacilities, type DatFacilities } from '../model/control-registers.ts';
import { type CpuState, cpuState } from '../model/cpu-state.ts';
import { PREFIX_MASK } from '../model/prefix.ts';
import type { S390xRegName, S390xRegs } from '../model/registers.ts';
import { VcpuMemOp } from './vcpu-mem-op.ts';
import { type RegistersOwner, VcpuRegisters } from './vcpu-registers.ts';
import type { VmS390x } from './vm.ts';

/** The vCPU. */
export interface VcpuS390xOwner extends Callee, RegistersOwner {
  readonly vm: { readonly fd: number };
}

/** What only a vCPU of s390x has: `vcpu.s390x`. */
export class VcpuS390x {
  /** The guest's logical addresses through the kernel. */
  readonly memOp: VcpuMemOp;
  readonly #s390x: S390xCalls;
  readonly #owner: VcpuS390xOwner;
  readonly #registers: VcpuRegisters;

  /** Made by the vCPU. */
  constructor(owner: VcpuS390xOwner, s390x: S390xCalls, vm: VmS390x) {
    this.#owner = owner;
    this.#s390x = s390x;
    this.#registers = new VcpuRegisters(owner);
    this.memOp = new VcpuMemOp(
      s390x,
      owner,
      () => this.cpuState(),
      () => vm.maxMemOpSize,
      () => this.#registers.waiting,
    );
  }

  /**
   * PSW, prefix, general, access and control registers, as the next KVM_RUN takes them.
   * @throws KvmError EBUSY while it runs
   */
  getRegs(): S390xRegs {
    return this.#registers.get();
  }

  /**
   * Sets registers; those that are not named keep their values. General, access and control registers are set at once, PSW and prefix when
   * the next KVM_RUN begins, which is how KVM has it: MEM_OP goes by the PSW that was last taken until then (and a warning, KVM_BRIDGE_PSW_WAITS, says so).
   * @throws RangeError for a prefix that is no multiple of 8 KiB below 2 GiB; KvmError EBUSY while it runs
   * @example vcpu.s390x.setRegs({ pswMask: 0x0400_0001_8000_0000n, pswAddress: 0x1_0000, cr1: SEGMENT_TABLE })
   */
  setRegs(regs: SomeRegisters<S390xRegName>): void {
    this.#registers.set(regs);
  }

  /**
   * What decides about this vCPU's translations, for `translate` and `explainTranslation` of kvm-bridge/s390x: its
   * control registers, and PSW, prefix and access registers as kvm_run shows them since the last KVM_RUN.
   * @param facilities those that the guest's machine lacks; KVM doesn't tell
   */
  cpuState(facilities: Partial<DatFacilities> = {}): CpuState {
    // Its getters are the caller's, and come before anything is looked at.
    const installed = checkFacilities(facilities, 'facilities', true);
    const run = this.#owner.kvmRun.view;
    const sregs = this.#owner.getSregsBytes(REGS_SIZE.s390x.sregs!);
    const registers = new DataView(sregs.buffer, sregs.byteOffset);
    const state = cpuState({
      pswMask: run.getBigUint64(KVM_RUN_S390X.psw_mask),
      prefix: run.getUint32(KVM_RUN_S390X.prefix) & PREFIX_MASK,
      facilities: installed,
    });
    for (let n = 0; n < 32; n++) state.cr[n] = registers.getUint32(KVM_SREGS_S390X.crs + 4 * n);
    for (let n = 0; n < 16; n++) state.ar[n] = run.getUint32(KVM_RUN_S390X.acrs + 4 * n);
    return state;
  }

  /** KVM_S390_INITIAL_RESET: PSW, prefix and control registers too. @throws KvmError EBUSY while it runs */
  initialReset(): void {
    this.#check('initialReset', this.#s390x.initialReset(this.#owner.fd));
    this.#registers.reset();
  }

  /** KVM_S390_NORMAL_RESET (5.8 and later): pending interruptions go, and the vCPU stops. @throws KvmError EBUSY */
  normalReset(): void {
    this.#check('normalReset', this.#s390x.normalReset(this.#owner.fd));
  }

  /** KVM_S390_CLEAR_RESET (5.8 and later): an initial reset, and all other registers. @throws KvmError EBUSY */
  clearReset(): void {
    this.#check('clearReset', this.#s390x.clearReset(this.#owner.fd));
    this.#registers.reset();
  }

  /** KVM_S390_SET_INITIAL_PSW: the PSW from which the next KVM_RUN begins. @throws KvmError EBUSY unless stopped */
  setInitialPsw(mask: U64, address: U64): void {
    const result = this.#s390x.setInitialPsw(this.#owner.fd, checkU64(mask, 'mask'), checkU64(address, 'address'));
    const why = result === -ERRNO.EBUSY ? 'only a stopped vCPU takes one, and this one is operating' : undefined;
    this.#check('setInitialPsw', result, why);
    this.#registers.pswSet();
  }

  #check(call: CallName, result: number, explanation?: string): void {
    if (result < 0) throw callFailure(call, result, this.#owner, { explanation });
  }
}
