import type { GuestInstruction } from '../guest.ts';
import type { EmulatedVcpu } from '../vcpu.ts';

/** `struct kvm_regs`: gpr[32]. */
const REGS_GPR = 136;

/** Loads and stores of a displacement from a register, by primary opcode. With `xo`, the two lowest bits are 0 and no displacement. */
const OPCODES: ReadonlyMap<number, { readonly write: boolean; readonly size: number; readonly xo?: true }> = new Map([
  [32, { write: false, size: 4 }], // lwz
  [34, { write: false, size: 1 }], // lbz
  [36, { write: true, size: 4 }], // stw
  [38, { write: true, size: 1 }], // stb
  [40, { write: false, size: 2 }], // lhz
  [44, { write: true, size: 2 }], // sth
  [58, { write: false, size: 8, xo: true }], // ld
  [62, { write: true, size: 8, xo: true }], // std
]);

/** The load or store that an instruction's word means with a vCPU's registers; undefined for any other instruction. */
export function decodeInstruction(vcpu: EmulatedVcpu, word: number): GuestInstruction | undefined {
  const known = OPCODES.get(word >>> 26);
  if (known === undefined || (known.xo === true && (word & 3) !== 0)) return undefined;
  const { regs } = vcpu;
  const view = new DataView(regs.buffer, regs.byteOffset, regs.byteLength);
  const gpr = (number: number): number => REGS_GPR + 8 * number;
  const target = gpr((word >>> 21) & 31);
  const base = (word >>> 16) & 31;
  const displacement = BigInt((word << 16) >> 16) & (known.xo === true ? ~3n : ~0n);
  const address = BigInt.asUintN(64, (base === 0 ? 0n : view.getBigUint64(gpr(base), true)) + displacement);
  const { write, size } = known;
  const bytes = write ? regs.slice(target, target + size) : new Uint8Array(size);
  const complete = (): void => {
    if (write) return;
    regs.fill(0, target, target + 8);
    regs.set(bytes, target);
  };
  return { write, address: Number(address), bytes, complete };
}
