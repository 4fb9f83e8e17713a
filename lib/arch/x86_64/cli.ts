import { hex } from '../../base/errors.ts';
import type { CliArch, Register, Walk, WalkedGuest } from '../../cli/arch/cli-arch.ts';
import { at, type Instruction } from '../../cli/arch/machine-code.ts';
import { firstVcpu } from '../../cli/arch/vcpus.ts';
import type { Vcpu } from '../../handles/vcpu.ts';
import type { Vm } from '../../handles/vm.ts';
import { requestNumber, requestSize } from '../../uapi/requests.ts';

/** In real mode with 32-bit addresses. */
const MACHINE_CODE: readonly Instruction[] = [
  at(0xb0, 0x41).is('mov al, 0x41'),
  at(0x67, 0x88, 0x05, 0x00, 0x20, 0x00, 0x00).is('mov [0x2000], al'),
  at(0x66, 0xbb, 0x00, 0x00, 0x01, 0x00).is('mov ebx, 0x10000'),
  at(0x67, 0x88, 0x03).is('next: mov [ebx], al'),
  at(0x66, 0x81, 0xc3, 0x00, 0x10, 0x00, 0x00).is('add ebx, 0x1000'),
  at(0x66, 0x81, 0xfb, 0x00, 0x00, 0x02, 0x00).is('cmp ebx, 0x20000'),
  at(0x72, 0xed).is('jb next'),
  at(0x66, 0xb8, 0x44, 0x33, 0x22, 0x11).is('mov eax, 0x11223344'),
  at(0x66, 0x67, 0x89, 0x05, 0x10, 0x50, 0x00, 0x00).is('mov [0x5010], eax'),
  at(0xb0, 0x5a).is('mov al, 0x5a'),
  at(0x67, 0x88, 0x05, 0x00, 0x00, 0x00, 0xd0).is('mov [0xd0000000], al'),
  at(0x66, 0x67, 0x8b, 0x05, 0x04, 0x00, 0x00, 0xd0).is('mov eax, [0xd0000004]'),
  at(0x66, 0x67, 0x89, 0x05, 0x00, 0x70, 0x00, 0x00).is('mov [0x7000], eax'),
  at(0xf4).is('hlt'),
];

const FOUR_GIB_LIMIT = 0xffff_ffff;
/** Bit 1 is always set. */
const RFLAGS = 2;
/** Three pages that Intel processors without unrestricted guests need for real mode; out of the way of any RAM here. */
const TSS_ADDR = 0xfffb_d000;
const HLT = 0xf4;

/**
 * Makes a vCPU start at `rip` in real mode, its segments beginning at 0 and reaching 4 GiB ("unreal mode"), so that
 * every address below that can be named without page tables.
 */
function startInRealMode(vcpu: Vcpu, rip: number): void {
  const sregs = vcpu.x86_64.getSregs();
  for (const segment of [sregs.cs, sregs.ds, sregs.es, sregs.ss]) {
    Object.assign(segment, { base: 0n, limit: FOUR_GIB_LIMIT, selector: 0, g: 1 });
  }
  vcpu.x86_64.setSregs(sregs);
  vcpu.x86_64.setRegs({ rip, rflags: RFLAGS });
}

/** What a VM needs before its first vCPU may run in real mode. */
function prepareRealMode(vm: Vm): void {
  vm.x86_64.setTssAddr(TSS_ADDR);
}

function runHalt(vm: Vm, vcpu: Vcpu): string {
  const page = vm.kvm.mapAnonymous(vm.kvm.pageSize);
  vm.memory.addRam(0, page);
  page.close();
  vm.memory.writeU8(0, HLT);
  startInRealMode(vcpu, 0);
  return vcpu.runSync({ timeoutMs: 1000 }).reason;
}

/** Paging is on (CR0). */
const PG = 0x8000_0000n;

function walk(address: bigint, { vm }: WalkedGuest): Walk {
  const vcpu = firstVcpu(vm);
  if ((vcpu.x86_64.getSregs().cr0 & PG) === 0n) {
    return {
      physical: address,
      text: `paging is off: linear address ${hex(address)} is guest physical ${hex(address)}`,
    };
  }
  // linear_address, physical_address, valid
  const translation = new DataView(new ArrayBuffer(requestSize('KVM_TRANSLATE')));
  translation.setBigUint64(0, address, true);
  vcpu.ioctl(requestNumber('KVM_TRANSLATE', 'x86_64'), new Uint8Array(translation.buffer));
  const physical = translation.getUint8(16) === 0 ? undefined : translation.getBigUint64(8, true);
  const to = physical === undefined ? 'is not mapped' : `is guest physical ${hex(physical)}`;
  return { physical, text: `linear address ${hex(address)} ${to} (KVM_TRANSLATE)` };
}

function howToLoad(cpuinfo: string): string {
  if (/\bvmx\b/.test(cpuinfo)) return 'sudo modprobe kvm_intel';
  if (/\bsvm\b/.test(cpuinfo)) return 'sudo modprobe kvm_amd';
  return 'the processor shows neither vmx nor svm: turn virtualization on in the firmware, or, if this is a VM, nested virtualization in its hypervisor';
}

export const cli: CliArch = {
  registers(vcpu) {
    const general = Object.entries(vcpu.x86_64.getRegs()) as Register[];
    const { cr0, cr2, cr3, cr4, efer, cs, ds, es, ss } = vcpu.x86_64.getSregs();
    const segments = Object.entries({ cs, ds, es, ss }).map(([name, { base }]): Register => [`${name}.base`, base]);
    return [...general, ...Object.entries({ cr0, cr2, cr3, cr4, efer }), ...segments];
  },
  walk,
  machineCode: MACHINE_CODE,
  prepareVm: prepareRealMode,
  start: (_vm, vcpu, pc) => startInRealMode(vcpu, pc),
  runHalt,
  howToLoad,
  capabilities: [['VM_TYPES', 'types of VM, as bits']],
};
