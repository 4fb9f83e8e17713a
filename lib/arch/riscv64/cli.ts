import type { CliArch } from '../../cli/arch/cli-arch.ts';
import { type Instruction, word } from '../../cli/arch/machine-code.ts';

/** Without translation. It ends in a loop there is no halt that user space sees. */
const MACHINE_CODE: readonly Instruction[] = [
  word(0x0410_0513).is('li a0, 0x41'),
  word(0x0000_25b7).is('lui a1, 2'),
  word(0x00a5_8023).is('sb a0, 0(a1)'),
  word(0x0001_05b7).is('lui a1, 0x10'),
  word(0x0002_0637).is('lui a2, 0x20'),
  word(0x0000_16b7).is('lui a3, 1'),
  word(0x00a5_8023).is('next: sb a0, 0(a1)'),
  word(0x00d5_85b3).is('add a1, a1, a3'),
  word(0xfec5_ece3).is('bltu a1, a2, next'),
  word(0x1122_3537).is('lui a0, 0x11223'),
  word(0x3445_051b).is('addiw a0, a0, 0x344'),
  word(0x0000_55b7).is('lui a1, 5'),
  word(0x00a5_a823).is('sw a0, 0x10(a1)'),
  word(0x05a0_0513).is('li a0, 0x5a'),
  word(0xd000_05b7).is('lui a1, 0xd0000'),
  word(0x0205_9593).is('slli a1, a1, 32'),
  word(0x0205_d593).is('srli a1, a1, 32'),
  word(0x00a5_8023).is('sb a0, 0(a1)'),
  word(0x0045_a503).is('lw a0, 4(a1)'),
  word(0x0000_75b7).is('lui a1, 7'),
  word(0x00a5_a023).is('sw a0, 0(a1)'),
  word(0x0000_006f).is('here: j here'),
];

export const cli: CliArch = {
  registers: (vcpu) => Object.entries(vcpu.riscv64.getRegs()),
  machineCode: MACHINE_CODE,
  start: (_vm, vcpu, pc) => vcpu.riscv64.setRegs({ pc }),
};
