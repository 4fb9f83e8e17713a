import type { ArchVcpu } from '../../../emulated/arch-state.ts';
import { GuestFault } from '../../../emulated/guest.ts';
import type { EmulatedMemslot } from '../../../emulated/memslots.ts';
import { preFault } from '../../../emulated/pre-fault.ts';
import type { EmulatedVcpu } from '../../../emulated/vcpu.ts';
import { ERRNO } from '../../../uapi/errno.ts';
import { EXIT, MP_STATE } from '../../../uapi/flags.ts';
import { KVM_RUN } from '../../../uapi/structs.ts';
import type { X86_64Build } from './build.ts';
import { fixFlags, isValid, keepSregs, resetRegisters } from './registers.ts';
import type { X86_64Vm } from './vm-state.ts';

const PAGE = 4096;

/** Vector of #UD. */
const INVALID_OPCODE = 6;
/** uAPI `KVM_INTERNAL_ERROR_*`: an instruction could not be emulated, or an exception not be delivered. */
const INTERNAL_ERROR = { EMULATION: 1, DELIVERY: 3 } as const;

/** States of vCPUs that don't run. */
const WAITING: readonly number[] = [
  MP_STATE.UNINITIALIZED,
  MP_STATE.INIT_RECEIVED,
  MP_STATE.HALTED,
  MP_STATE.SIPI_RECEIVED,
  MP_STATE.AP_RESET_HOLD,
];

/** What x86_64 does for a vCPU. */
export class X86_64Vcpu implements ArchVcpu {
  readonly #vcpu: EmulatedVcpu;
  readonly #vm: X86_64Vm;
  readonly #build: X86_64Build;

  constructor(vcpu: EmulatedVcpu, vm: X86_64Vm, build: X86_64Build) {
    this.#vcpu = vcpu;
    this.#vm = vm;
    this.#build = build;
    resetRegisters(vcpu.regs, vcpu.sregs, vcpu.id, build.svm);
    if (vm.irqchip && vcpu.id !== 0) vcpu.mpState = MP_STATE.UNINITIALIZED;
  }

  /** With an interrupt controller in the kernel, it is the kernel that waits. */
  get exitsOnHalt(): boolean {
    return !this.#vm.irqchip;
  }

  /** KVM's emulator is to carry out what the processor could not fetch, and can't either: it has an exception pending then. */
  noCode(again: boolean): number {
    const { machine } = this.#vcpu.vm;
    // Recorded on 6.18; 6.12 doesn't tell it apart.
    const told = again && machine.release.since(6, 18) && !machine.emulatesGuestCode;
    const suberror = told ? INTERNAL_ERROR.DELIVERY : INTERNAL_ERROR.EMULATION;
    this.#vcpu.area.view.setUint32(KVM_RUN.internal.suberror, suberror, true);
    return EXIT.INTERNAL_ERROR;
  }

  missingCode(): GuestFault {
    return new GuestFault(INVALID_OPCODE, 'there was no memory to fetch from');
  }

  regsSet(): void {
    fixFlags(this.#vcpu.regs);
  }

  acceptsSregs(sregs: Uint8Array): boolean {
    if (!isValid(sregs)) return false;
    keepSregs(sregs, this.#vcpu.sregs, this.#build.svm);
    return true;
  }

  /** Without an interrupt controller in the kernel nobody waits there. */
  setMpState(state: number): number {
    if (state !== MP_STATE.RUNNABLE && !(this.#vm.irqchip && WAITING.includes(state))) return -ERRNO.EINVAL;
    // One that has received SIPI is started when somebody looks.
    this.#vcpu.mpState = state === MP_STATE.SIPI_RECEIVED ? MP_STATE.RUNNABLE : state;
    return 0;
  }

  /** Where a run fails, nothing is left in kvm_run of the exit before: KVM describes faults in private memory only. */
  beforeRun(): number {
    const { area, vm } = this.#vcpu;
    const immediate = area.view.getUint8(KVM_RUN.immediate_exit) !== 0;
    if (vm.machine.release.since(6, 8) && !immediate) area.view.setUint32(KVM_RUN.exit_reason, EXIT.UNKNOWN, true);
    return 0;
  }

  pageAccessed(slot: EmulatedMemslot, gfn: number, write: boolean): void {
    this.#map(slot, gfn);
    if (write) this.#vcpu.vm.dirtyLog.mark(slot, gfn, this.#vcpu.ring);
  }

  /** KVM's own emulator maps nothing. */
  #map(slot: EmulatedMemslot, gfn: number): void {
    const { vm, ring } = this.#vcpu;
    if (!vm.machine.emulatesGuestCode) this.#vm.mapped.map(vm, slot, gfn, ring);
  }

  preFaultMemory(range: BigUint64Array, flags: bigint): number {
    const { vm } = this.#vcpu;
    if (!vm.machine.release.since(6, 11)) return vm.machine.unknownVcpuRequest;
    return preFault(range, flags, PAGE, (gpa) => {
      if (!this.#build.tdp) return -ERRNO.EOPNOTSUPP;
      const gfn = Number(gpa / BigInt(PAGE));
      const slot = vm.usableSlot(gfn);
      if (slot === undefined) return vm.isPrivate(gfn) ? -ERRNO.EFAULT : -ERRNO.ENOENT;
      if (!vm.hasGuestPage(slot, gfn, false)) return -ERRNO.EFAULT;
      this.#map(slot, gfn);
      return PAGE;
    });
  }
}
