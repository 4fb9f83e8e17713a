import { existsSync } from 'node:fs';
import type { Kvm, Mapping, Vcpu, Vm } from '../../../lib/index.ts';
import { type GuestOp, type GuestProgram, halt, input, load, out, store } from '../../../lib/raw.ts';
import type { Backend } from './backends.ts';

/** Where the machine code of the real kernel's guests lies: the second page. */
export const CODE = 0x1000;

/** Whether a backend's guests come back when they halt: only x86_64 tells user space so. */
export const runsGuests = ({ options: { backend, arch } }: Backend): boolean =>
  backend === 'native' ? process.arch === 'x64' : arch === 'x86_64';

/**
 * Whether the processor runs the guest's code. KVM without hardware virtualization (PVM) emulates what is outside long mode, for
 * as long as nothing interrupts it: the exit for a full dirty ring was seen to come late or never, and a page that the host lacks
 * is taken for a device.
 */
export const runsOnProcessor = (kvm: Kvm): boolean => kvm.emulated !== undefined || !existsSync('/sys/module/kvm_pvm');

/** Why tests are left out where guests don't run on the processor. */
export const NEEDS_PROCESSOR = 'kvm_pvm emulates this guest; the lab of x86_64 has a kernel that runs it';

/** What a guest does, for both kinds of kernel. */
export type Step =
  | { readonly store: number; readonly value: number }
  | { readonly load: number; readonly storedAt?: number }
  | { readonly out: number; readonly value: number }
  | { readonly in: number; readonly storedAt?: number };

/** Gives a vCPU a guest that does these steps and halts: machine code, or a script. */
export function loadGuest(kvm: Kvm, vm: Vm, vcpu: Vcpu, steps: readonly Step[], ram?: Mapping): void {
  if (kvm.emulated !== undefined) {
    kvm.emulated.loadGuest(vcpu.fd, script(steps));
    return;
  }
  const code = machineCode(steps);
  if (ram === undefined) vm.memory.writeExact(CODE, code);
  else ram.write(CODE, code);
  // Flat 32-bit protected mode: base 0, limit 4 GiB.
  const sregs = vcpu.x86_64.getSregs();
  const flat = { ...sregs.ds, base: 0n, limit: 0xffff_ffff, selector: 16, type: 3, s: 1, db: 1, g: 1, present: 1 };
  vcpu.x86_64.setSregs({ cs: { ...flat, selector: 8, type: 11 }, ds: flat, es: flat, ss: flat, cr0: sregs.cr0 | 1n });
  vcpu.x86_64.setRegs({ rip: CODE, rflags: 2 });
}

/** A guest that stores a byte at each address. */
export function loadStores(kvm: Kvm, vm: Vm, vcpu: Vcpu, addresses: readonly number[], ram?: Mapping): void {
  loadGuest(
    kvm,
    vm,
    vcpu,
    addresses.map((address) => ({ store: address, value: 0x41 })),
    ram,
  );
}

function* script(steps: readonly Step[]): GuestProgram {
  for (const step of steps) {
    if ('store' in step) yield store(step.store, 1, BigInt(step.value));
    else if ('out' in step) yield out(step.out, 1, BigInt(step.value));
    else {
      const op: GuestOp = 'load' in step ? load(step.load, 1) : input(step.in, 1);
      const value = yield op;
      if (step.storedAt !== undefined) yield store(step.storedAt, 1, value as bigint);
    }
  }
  yield halt;
}

/** The same in 32-bit code: mov al, imm8 / mov [moffs32], al / mov al, [moffs32] / out imm8, al / in al, imm8 / hlt. */
function machineCode(steps: readonly Step[]): Uint8Array {
  const address = (gpa: number): number[] => [gpa & 0xff, (gpa >>> 8) & 0xff, (gpa >>> 16) & 0xff, gpa >>> 24];
  const code = steps.flatMap((step) => {
    if ('store' in step) return [0xb0, step.value, 0xa2, ...address(step.store)];
    if ('out' in step) return [0xb0, step.value, 0xe6, step.out];
    const read = 'load' in step ? [0xa0, ...address(step.load)] : [0xe4, step.in];
    return step.storedAt === undefined ? read : [...read, 0xa2, ...address(step.storedAt)];
  });
  return Uint8Array.from([...code, 0xf4]);
}
