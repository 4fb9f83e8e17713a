import type { EmulatedKernel } from '../../../lib/backends/emulated.ts';
import type { KvmCalls } from '../../../lib/calls/kvm-calls.ts';
import { GuestFault, type GuestOp, type GuestProgram } from '../../../lib/emulated/guest.ts';
import { CAP } from '../../../lib/uapi/capabilities.ts';
import { REGS_SIZE } from '../../../lib/uapi/structs.ts';
import { type GuestLoader, type ScriptOp, scripted } from '../scenario.ts';
import { initialiseAarch64 } from './aarch64.ts';

/** `blr`, which is after the instruction that a guest executes. */
const BLR = 0x4e80_0020;
/** What is taken for the guest's code: less than any page. */
const CODE_BYTES = 1024;
/** `struct kvm_regs`: pc. */
const REGS_PC = 0;

/**
 * Loads the operations themselves into an emulated vCPU.
 * @param calls what is called besides: the kernel, or what records its calls
 */
export const emulatedGuestLoader = (kernel: EmulatedKernel, calls: KvmCalls = kernel): GuestLoader => ({
  created(vm, vcpu) {
    if (kernel.arch === 'ppc64') calls.enableCap(vcpu, CAP.PPC_PAPR, 0, []);
    if (kernel.arch === 'aarch64') initialiseAarch64(calls, vm, vcpu);
  },
  load(_vm, vcpu, codeHva, codeGpa, ops) {
    for (const op of ops) {
      if (op.op !== 'execute') continue;
      calls.writeMemory(codeHva - codeGpa + op.at, new Uint8Array(Uint32Array.of(op.word, BLR).buffer));
    }
    if (kernel.arch === 'ppc64') {
      // Where the machine code would be, so that its page is fetched from.
      const regs = new DataView(new ArrayBuffer(REGS_SIZE.ppc64.regs ?? 0));
      regs.setBigUint64(REGS_PC, BigInt(codeGpa), true);
      calls.setRegs(vcpu, new Uint8Array(regs.buffer));
    }
    kernel.loadGuest(
      vcpu,
      (function* (): GuestProgram {
        for (const op of ops) yield* op.op === 'execute' ? executed(op) : scripted([op], kernel.arch);
      })(),
      { gpa: codeGpa, size: CODE_BYTES },
    );
  },
});

/** One instruction from the guest's memory, as the machine code that real kernels get carries it out. */
function* executed(op: ScriptOp & { readonly op: 'execute' }): GuestProgram {
  const instruction = (name: string, ...operands: bigint[]): GuestOp => ({ op: 'instruction', name, operands });
  for (const [number, value] of Object.entries(op.gprs)) yield instruction('li', BigInt(number), value);
  const results = [0n, 0n, 0n];
  try {
    const gprs = (yield { op: 'execute', address: op.at }) as readonly bigint[];
    results.push(...gprs.slice(3, 9));
  } catch (fault) {
    if (!(fault instanceof GuestFault)) throw fault;
    const dar = (yield instruction('mfspr', 19n)) as bigint;
    const dsisr = (yield instruction('mfspr', 18n)) as bigint;
    results.splice(0, 3, BigInt(fault.code), dar, dsisr);
    for (let number = 3; number <= 8; number++) results.push(op.gprs[number] ?? 0n);
  }
  for (const [i, value] of results.entries()) yield { op: 'store', address: op.to + 8 * i, size: 8, value };
}
