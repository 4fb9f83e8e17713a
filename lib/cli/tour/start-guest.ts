import type { Vcpu } from '../../handles/vcpu.ts';
import type { Vm } from '../../handles/vm.ts';
import { ONE_REG } from '../../uapi/flags.ts';
import { requestNumber, requestSize } from '../../uapi/requests.ts';
import { KVM_REGS_PPC64, REGS_SIZE } from '../../uapi/structs.ts';
import { startInRealMode } from '../guest-x86_64.ts';

/** Makes a real vCPU begin at an address without translation, in the mode that the tour's machine code is written for. */
export function startGuest(vm: Vm, vcpu: Vcpu, pc: number): void {
  switch (vm.kvm.arch) {
    case 'x86_64':
      startInRealMode(vcpu, pc);
      break;
    case 'ppc64':
      startPpc64(vcpu, pc);
      break;
    case 'aarch64':
      startAarch64(vm, vcpu, pc);
      break;
    case 'riscv64':
      vcpu.setOneReg(ONE_REG.RISCV_CORE, pc);
      break;
    default:
      throw new Error(`there is no machine code for ${vm.kvm.arch}`);
  }
}

/** 64-bit, little-endian, real mode. */
const MSR_SF_LE = 0x8000_0000_0000_0001n;

function startPpc64(vcpu: Vcpu, pc: number): void {
  const regs = vcpu.getRegsBytes(REGS_SIZE.ppc64.regs ?? 0);
  const view = new DataView(regs.buffer);
  view.setBigUint64(KVM_REGS_PPC64.pc, BigInt(pc), true);
  view.setBigUint64(KVM_REGS_PPC64.msr, MSR_SF_LE, true);
  vcpu.setRegsBytes(regs);
}

/** Where the program counter is, in words. */
const CORE_PC = ONE_REG.ARM64_CORE | 0x40n;

function startAarch64(vm: Vm, vcpu: Vcpu, pc: number): void {
  const init = new Uint8Array(requestSize('KVM_ARM_VCPU_INIT'));
  vm.ioctl(requestNumber('KVM_ARM_PREFERRED_TARGET', 'aarch64'), init);
  vcpu.ioctl(requestNumber('KVM_ARM_VCPU_INIT', 'aarch64'), init);
  vcpu.setOneReg(CORE_PC, pc);
}
