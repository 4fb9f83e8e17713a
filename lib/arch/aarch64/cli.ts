import type { CliArch } from '../../cli/arch/cli-arch.ts';
import { type Instruction, word } from '../../cli/arch/machine-code.ts';
import type { Vcpu } from '../../handles/vcpu.ts';
import type { Vm } from '../../handles/vm.ts';

/** With the MMU off. It ends in a loop there is no halt that user space sees. */
const MACHINE_CODE: readonly Instruction[] = [
  word(0x5280_0820).is('mov w0, #0x41'),
  word(0xd284_0001).is('mov x1, #0x2000'),
  word(0x3900_0020).is('strb w0, [x1]'),
  word(0xd2a0_0021).is('mov x1, #0x10000'),
  word(0x3900_0020).is('next: strb w0, [x1]'),
  word(0x9140_0421).is('add x1, x1, #0x1000'),
  word(0xf140_803f).is('cmp x1, #0x20000'),
  word(0x54ff_ffa3).is('b.lo next'),
  word(0x5286_6880).is('mov w0, #0x3344'),
  word(0x72a2_2440).is('movk w0, #0x1122, lsl #16'),
  word(0xd28a_0201).is('mov x1, #0x5010'),
  word(0xb900_0020).is('str w0, [x1]'),
  word(0x5280_0b40).is('mov w0, #0x5a'),
  word(0xd2ba_0001).is('mov x1, #0xd0000000'),
  word(0x3900_0020).is('strb w0, [x1]'),
  word(0xb940_0420).is('ldr w0, [x1, #4]'),
  word(0xd28e_0001).is('mov x1, #0x7000'),
  word(0xb900_0020).is('str w0, [x1]'),
  word(0x1400_0000).is('here: b here'),
];

function start(_vm: Vm, vcpu: Vcpu, pc: number): void {
  vcpu.aarch64.init();
  vcpu.aarch64.setRegs({ pc });
}

export const cli: CliArch = {
  registers: (vcpu) => Object.entries(vcpu.aarch64.getRegs()),
  machineCode: MACHINE_CODE,
  start,
  howToLoad: () => 'KVM is built into the kernel, and needs one that was booted at EL2: see dmesg | grep -i kvm',
};
