import type { ArchVcpu } from '../../../emulated/arch-state.ts';
import type { GuestResult } from '../../../emulated/guest.ts';
import { preFault } from '../../../emulated/pre-fault.ts';
import type { EmulatedVcpu } from '../../../emulated/vcpu.ts';
import { ERRNO } from '../../../uapi/errno.ts';
import type { DatFacilities } from '../model/index.ts';
import { executeInstruction } from './instructions.ts';
import { beforeRun, translateGuestAccess } from './run.ts';
import { S390xVcpu } from './vcpu-state.ts';
import type { S390xVm } from './vm-state.ts';

const PAGE = 4096;

/** The machine has all facilities that a translation knows. */
const FACILITIES: DatFacilities = { edat1: true, edat2: true, iep: true };

/** What s390x does for a vCPU, over the state that it keeps of one. */
export class S390xArchVcpu implements ArchVcpu {
  readonly vm: S390xVm;
  readonly state: S390xVcpu;

  constructor(vcpu: EmulatedVcpu, vm: S390xVm) {
    this.vm = vm;
    this.state = new S390xVcpu(vm, vcpu, FACILITIES);
  }

  registersAsked(): void {
    this.state.storeRegisters();
  }

  regsSet(): void {
    this.state.loadRegs();
  }

  sregsSet(): void {
    this.state.loadSregs();
  }

  setMpState(state: number): number {
    return this.state.setMpState(state);
  }

  preFaultMemory(range: BigUint64Array, flags: bigint): number {
    if (!this.vm.release.since(7, 2)) return -ERRNO.ENOTTY;
    return preFault(range, flags, PAGE, (gpa) => {
      const gfn = Number(gpa / BigInt(PAGE));
      const slot = this.vm.storage.slot(gfn);
      if (slot === undefined) return -ERRNO.ENOENT;
      return this.vm.faultIn(slot, gfn) ? PAGE : -ERRNO.EFAULT;
    });
  }

  beforeRun(): number {
    return beforeRun(this.vm, this.state);
  }

  translate(address: number, _size: number, write: boolean): number {
    return translateGuestAccess(this.vm, this.state, address, write);
  }

  instruction(name: string, operands: readonly bigint[]): GuestResult | 'retry' {
    return executeInstruction(this.vm, this.state, name, operands);
  }
}
