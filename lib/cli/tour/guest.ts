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

/** The guest for an emulated vCPU; for real kernels it is machine code (cli.ts of the architecture). Where there is no MMIO, the device is an exception, told to `faulted`. */
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
