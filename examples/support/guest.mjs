/**
 * Guests for the examples. On a real x86_64 kernel they are machine code, on an emulated one a program: a generator
 * that yields what the guest does. Everything else in an example is the same on both.
 */
import { Kvm } from 'kvm-bridge';

/** The real kernel where it is x86_64's, else an emulated one. */
export function openKvm() {
  return Kvm.open(process.arch === 'x64' ? {} : { backend: 'emulated', arch: 'x86_64' });
}

/** Where the machine code is put. */
const CODE = 0x1000;

/**
 * Makes a vCPU execute a guest.
 * @param {import('kvm-bridge').Vcpu} vcpu
 * @param {{ code: number[], program: () => import('kvm-bridge/raw').GuestProgram }} guest
 */
export function loadGuest(vcpu, { code, program }) {
  const { vm } = vcpu;
  if (vm.kvm.emulated) {
    vm.kvm.emulated.loadGuest(vcpu.fd, program());
    return;
  }
  vm.memory.writeExact(CODE, Uint8Array.from(code));
  // Real mode, with segments that begin at 0 and reach 4 GiB: no page tables are needed.
  const sregs = vcpu.x86_64.getSregs();
  for (const segment of [sregs.cs, sregs.ds, sregs.es, sregs.ss]) {
    Object.assign(segment, { base: 0n, limit: 0xffff_ffff, selector: 0, g: 1 });
  }
  vcpu.x86_64.setSregs(sregs);
  vcpu.x86_64.setRegs({ rip: CODE, rflags: 2 });
}

/** An integer as the four bytes of an instruction's operand. */
export const u32 = (value) => [0, 8, 16, 24].map((shift) => (value >>> shift) & 0xff);

export const hex = (value) => `0x${value.toString(16)}`;
