import type { ArchVcpu } from '../../../emulated/arch-state.ts';
import { GuestFault, type GuestInstruction, type GuestResult } from '../../../emulated/guest.ts';
import type { EmulatedMemslot } from '../../../emulated/memslots.ts';
import type { EmulatedVcpu } from '../../../emulated/vcpu.ts';
import { CAP } from '../../../uapi/capabilities.ts';
import { ERRNO } from '../../../uapi/errno.ts';
import { EXIT } from '../../../uapi/flags.ts';
import { KVM_REGS_PPC64, KVM_RUN, KVM_SREGS_PPC64, PAPR_HCALL_ARGS } from '../../../uapi/structs.ts';
import { SLB_SIZE, segment } from '../model/slb.ts';
import { GuestAccess } from './guest-access.ts';
import { GuestCode } from './guest-code.ts';
import { answerHypercall } from './hcalls.ts';
import { INTERRUPT } from './interrupts.ts';
import type { Ppc64Vm } from './vm-state.ts';

/** The processor's version: POWER9, as QEMU's is. */
const POWER9 = 0x4e_1200;
/** Machine checks, which a guest cannot do without. */
const MSR_ME = 0x1000n;
const MSR_HV = 1n << 60n;
/** States of a transaction, of which there are three. */
const MSR_TS = 3n << 33n;

const SPR = { DSISR: 18n, DAR: 19n } as const;

/** What ppc64 keeps of a vCPU and does for it. */
export class Ppc64Vcpu implements ArchVcpu {
  readonly #vcpu: EmulatedVcpu;
  readonly #vm: Ppc64Vm;
  readonly #access: GuestAccess;
  readonly #code: GuestCode;
  /** ENABLE_CAP(PPC_PAPR) was done; without it HV runs no guest. */
  #papr = false;
  /** KVM_SET_REGS was done, so that there is a PC that means something. */
  #hasCode = false;

  constructor(vcpu: EmulatedVcpu, vm: Ppc64Vm) {
    this.#vcpu = vcpu;
    this.#vm = vm;
    this.#access = new GuestAccess(vcpu, vm.mmu);
    this.#code = new GuestCode(vcpu, this.#access);
    new DataView(vcpu.sregs.buffer).setUint32(KVM_SREGS_PPC64.pvr, POWER9, true);
    this.#fixRegs();
  }

  enableCap(cap: number, flags: number): number {
    if (flags !== 0 || cap !== CAP.PPC_PAPR) return -ERRNO.EINVAL;
    this.#papr = true;
    return 0;
  }

  /** The processor is the host's, and nothing else. */
  acceptsSregs(sregs: Uint8Array): boolean {
    return new DataView(sregs.buffer, sregs.byteOffset).getUint32(KVM_SREGS_PPC64.pvr, true) === POWER9;
  }

  /** Of the first entries of the SLB the valid ones are kept, one behind the other; and nothing else but the version. */
  sregsSet(): void {
    const { sregs } = this.#vcpu;
    const { slb } = KVM_SREGS_PPC64;
    const given = sregs.slice(slb, slb + 16 * SLB_SIZE);
    const view = new DataView(given.buffer);
    sregs.fill(0, KVM_SREGS_PPC64.pvr + 4);
    let to = slb;
    for (let at = 0; at < given.length; at += 16) {
      // The first word says so.
      if (!segment(view.getBigUint64(at, true), 0n).valid) continue;
      sregs.set(given.subarray(at, at + 16), to);
      to += 16;
    }
  }

  /** There is no such state. */
  getMpState(): number {
    return -ERRNO.EINVAL;
  }

  setMpState(): number {
    return -ERRNO.EINVAL;
  }

  /** A guest is no hypervisor and has machine checks; CR has 32 bits, and the process is not set with the registers. */
  #fixRegs(): void {
    const regs = new DataView(this.#vcpu.regs.buffer);
    const msr = regs.getBigUint64(KVM_REGS_PPC64.msr, true);
    const isNoState = (msr & MSR_TS) === MSR_TS;
    regs.setBigUint64(KVM_REGS_PPC64.msr, (msr & ~(isNoState ? MSR_HV | MSR_TS : MSR_HV)) | MSR_ME, true);
    regs.setUint32(KVM_REGS_PPC64.cr + 4, 0, true);
    regs.setBigUint64(KVM_REGS_PPC64.pid, 0n, true);
  }

  regsSet(): void {
    this.#fixRegs();
    this.#hasCode = true;
  }

  beforeRun(): number {
    const { view } = this.#vcpu.area;
    // Interrupted before anything is looked at.
    if (view.getUint8(KVM_RUN.immediate_exit) !== 0) return 0;
    // Where a run fails, this is what is left.
    view.setUint32(KVM_RUN.exit_reason, EXIT.UNKNOWN, true);
    if (!this.#papr) {
      view.setUint32(KVM_RUN.exit_reason, EXIT.INTERNAL_ERROR, true);
      return -ERRNO.EINVAL;
    }
    const refused = this.#vm.mmu.setUp();
    if (refused === 0) this.#fetchNext();
    return refused;
  }

  /** Where KVM_SET_REGS has said where the guest's code is, the processor fetches there when KVM enters it. */
  #fetchNext(): void {
    if (!this.#hasCode) return;
    try {
      if (this.#vm.mmu.radix) this.#vm.radixAccess(Number(this.#code.pc));
      else this.#code.touch();
    } catch (fault) {
      if (!(fault instanceof GuestFault)) throw fault;
    }
  }

  translate(address: number, _size: number, write: boolean): number {
    if (this.#vm.mmu.radix) this.#vm.radixAccess(address);
    return this.#access.translate(address, write ? 'store' : 'load');
  }

  /** With a hashed page table it is the entry that notes a store, from where GET_DIRTY_LOG takes it. */
  pageAccessed(slot: EmulatedMemslot, gfn: number, write: boolean): void {
    if (write && this.#vm.mmu.radix) this.#vcpu.vm.dirtyLog.mark(slot, gfn);
  }

  guestCode(address: number): GuestInstruction | undefined {
    return this.#code.decode(address);
  }

  emulatedCode(address: number, ea: number, write: boolean): GuestInstruction | undefined {
    return this.#code.emulation(address, ea, write);
  }

  /** What scripted guests do with registers: `li` puts a value into a general-purpose one, `mfspr` reads DSISR or DAR. */
  instruction(name: string, operands: readonly bigint[]): GuestResult {
    const [number = 0n, value = 0n] = operands;
    if (name === 'li') return void this.#code.setGpr(Number(number), value);
    if (name === 'mfspr' && number === SPR.DSISR) return this.#access.dsisr;
    if (name === 'mfspr' && number === SPR.DAR) return this.#access.dar;
    throw new GuestFault(INTERRUPT.PROGRAM, `${name} ${operands.join(', ')} is not emulated`);
  }

  hypercall(nr: number, args: readonly bigint[]): readonly bigint[] | undefined {
    const registers = answerHypercall(this.#vm.mmu, nr, args);
    if (registers !== undefined) this.#fetchNext();
    return registers;
  }

  hypercallExit(nr: number, args: readonly bigint[]): () => readonly bigint[] {
    const { papr_hcall } = KVM_RUN;
    const { view } = this.#vcpu.area;
    view.setBigUint64(papr_hcall.nr, BigInt(nr), true);
    for (let i = 0; i < PAPR_HCALL_ARGS; i++) view.setBigUint64(papr_hcall.args + i * 8, args[i] ?? 0n, true);
    return () => {
      const after = this.#vcpu.area.view;
      const registers = Array.from({ length: PAPR_HCALL_ARGS }, (_, i) =>
        after.getBigUint64(papr_hcall.args + i * 8, true),
      );
      return [after.getBigUint64(papr_hcall.ret, true), ...registers];
    };
  }
}
