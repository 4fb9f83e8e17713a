import { GuestFault, type GuestProgram, halt, load, spin, store } from '../../emulated/guest.ts';
import type { Arch } from '../../uapi/arch.ts';

/** Where the guest's RAM, code and device are. One MiB is the least that s390x takes as a memslot. */
export const RAM_SIZE = 0x10_0000;
export const CODE_GPA = 0x1000;
export const DEVICE_GPA = 0xd000_0000;
export const DEVICE_SIZE = 0x1000;

/** Guest pages: what the guest's loop fills, [from, to). */
const PAGE = 0x1000;
const LOOP = { from: 0x1_0000, to: 0x2_0000 };

/** Where in RAM the results are looked for: address and bytes. */
export const RESULTS = [
  { gpa: 0x2000, size: 1, label: 'RAM[0x2000]' },
  { gpa: 0x5010, size: 4, label: 'RAM[0x5010]' },
  { gpa: 0x7000, size: 4, label: 'RAM[0x7000]' },
] as const;

/** One instruction of a guest. */
export interface Instruction {
  readonly code: readonly number[];
  readonly text: string;
}

const at = (...code: number[]) => ({ is: (text: string): Instruction => ({ code, text }) });

/** The guest as machine code of x86_64, in real mode with 32-bit addresses. */
const X86_64_CODE: readonly Instruction[] = [
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

/** A word of machine code in little-endian memory. */
const word = (value: number) => at(value & 0xff, (value >>> 8) & 0xff, (value >>> 16) & 0xff, value >>> 24);

/** The same as machine code of ppc64. There is no halt that user space sees: it ends in a loop, and is interrupted. */
const PPC64_CODE: readonly Instruction[] = [
  word(0x3860_0041).is('li r3, 0x41'),
  word(0x3880_2000).is('li r4, 0x2000'),
  word(0x9864_0000).is('stb r3, 0(r4)'),
  word(0x3c80_0001).is('lis r4, 1'),
  word(0x9864_0000).is('next: stb r3, 0(r4)'),
  word(0x3884_1000).is('addi r4, r4, 0x1000'),
  word(0x3ca0_0002).is('lis r5, 2'),
  word(0x7c24_2840).is('cmpld r4, r5'),
  word(0x4180_fff0).is('blt next'),
  word(0x3c60_1122).is('lis r3, 0x1122'),
  word(0x6063_3344).is('ori r3, r3, 0x3344'),
  word(0x3880_5010).is('li r4, 0x5010'),
  word(0x9064_0000).is('stw r3, 0(r4)'),
  word(0x3860_005a).is('li r3, 0x5a'),
  word(0x3c80_d000).is('lis r4, 0xd000'),
  word(0x7884_0020).is('clrldi r4, r4, 32'),
  word(0x9864_0000).is('stb r3, 0(r4)'),
  word(0x8064_0004).is('lwz r3, 4(r4)'),
  word(0x3880_7000).is('li r4, 0x7000'),
  word(0x9064_0000).is('stw r3, 0(r4)'),
  word(0x4800_0000).is('here: b here'),
];

/** The same as machine code of aarch64, with the MMU off. It ends in a loop likewise. */
const AARCH64_CODE: readonly Instruction[] = [
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

/** The same as machine code of riscv64, without translation. It ends in a loop likewise. */
const RISCV64_CODE: readonly Instruction[] = [
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

/** The guest for the real kernels of the architectures that it was written for. */
export const MACHINE_CODE: Partial<Record<Arch, readonly Instruction[]>> = {
  x86_64: X86_64_CODE,
  ppc64: PPC64_CODE,
  aarch64: AARCH64_CODE,
  riscv64: RISCV64_CODE,
};

/** The same guest for an emulated vCPU. Where there is no MMIO, the device is an exception, told to `faulted`. */
export function* scriptedGuest(faulted: (fault: GuestFault) => void): GuestProgram {
  yield store(0x2000, 1, 0x41n);
  for (let gpa = LOOP.from; gpa < LOOP.to; gpa += PAGE) yield store(gpa, 1, 0x41n);
  yield store(0x5010, 4, 0x1122_3344n);
  try {
    yield store(DEVICE_GPA, 1, 0x5an);
    const answer = yield load(DEVICE_GPA + 4, 4);
    if (typeof answer === 'bigint') yield store(0x7000, 4, answer);
  } catch (fault) {
    if (!(fault instanceof GuestFault)) throw fault;
    faulted(fault);
    yield spin;
  }
  yield halt;
}
