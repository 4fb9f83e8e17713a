import { GuestFault, type GuestProgram, halt, load, spin, store } from '../../emulated/guest.ts';

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

/** One instruction of the guest for x86_64, in real mode with 32-bit addresses. */
interface Instruction {
  readonly code: readonly number[];
  readonly text: string;
}

const at = (...code: number[]) => ({ is: (text: string): Instruction => ({ code, text }) });

/** The guest as machine code. */
export const X86_CODE: readonly Instruction[] = [
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
