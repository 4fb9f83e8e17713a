import type { Vcpu } from '../../handles/vcpu.ts';
import type { Vm } from '../../handles/vm.ts';
import { REGS_SIZE } from '../../uapi/structs.ts';
import { startInRealMode } from '../guest-x86.ts';

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
      vcpu.setOneReg(RISCV64_PC, pc);
      break;
    default:
      throw new Error(`there is no machine code for ${vm.kvm.arch}`);
  }
}

/** `struct kvm_regs` of ppc64: pc and msr. */
const REGS_PC = 0;
const REGS_MSR = 40;
/** 64-bit, little-endian, real mode. */
const MSR_SF_LE = 0x8000_0000_0000_0001n;

function startPpc64(vcpu: Vcpu, pc: number): void {
  const regs = vcpu.getRegsBytes(REGS_SIZE.ppc64.regs ?? 0);
  const view = new DataView(regs.buffer);
  view.setBigUint64(REGS_PC, BigInt(pc), true);
  view.setBigUint64(REGS_MSR, MSR_SF_LE, true);
  vcpu.setRegsBytes(regs);
}

const KVM_ARM_VCPU_INIT = 0x4020_aeae;
const KVM_ARM_PREFERRED_TARGET = 0x8020_aeaf;
/** `struct kvm_vcpu_init`. */
const VCPU_INIT_BYTES = 32;
/** KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE, and where the program counter is, in words. */
const CORE_PC = 0x6030_0000_0010_0040n;

/** KVM_REG_RISCV | KVM_REG_SIZE_U64 | KVM_REG_RISCV_CORE: the program counter is the first. */
const RISCV64_PC = 0x8030_0000_0200_0000n;

function startAarch64(vm: Vm, vcpu: Vcpu, pc: number): void {
  const init = new Uint8Array(VCPU_INIT_BYTES);
  vm.ioctl(KVM_ARM_PREFERRED_TARGET, init);
  vcpu.ioctl(KVM_ARM_VCPU_INIT, init);
  vcpu.setOneReg(CORE_PC, pc);
}
