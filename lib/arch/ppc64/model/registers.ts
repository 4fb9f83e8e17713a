import { checkRegisters, registersOf, type SomeRegisters } from '../../../base/registers.ts';

const SPECIAL = ['pc', 'cr', 'ctr', 'lr', 'xer', 'msr', 'srr0', 'srr1', 'pid'] as const;
type Sprg = `sprg${0 | 1 | 2 | 3 | 4 | 5 | 6 | 7}`;
type Gpr =
  | `r${0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 10 | 11 | 12 | 13 | 14 | 15}`
  | `r${16 | 17 | 18 | 19 | 20 | 21 | 22 | 23 | 24 | 25 | 26 | 27 | 28 | 29 | 30 | 31}`;

export type Ppc64RegName = (typeof SPECIAL)[number] | Sprg | Gpr;

/** The registers of `struct kvm_regs` of ppc64. */
export type Ppc64Regs = Record<Ppc64RegName, bigint>;

/** In the structure's order, each a u64. */
const NAMES: readonly Ppc64RegName[] = [
  ...SPECIAL,
  ...Array.from({ length: 8 }, (_, n) => `sprg${n}` as Sprg),
  ...Array.from({ length: 32 }, (_, n) => `r${n}` as Gpr),
];

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** The registers of a `struct kvm_regs`, in a little-endian host's order. */
export function decodeRegs(bytes: Uint8Array): Ppc64Regs {
  const view = viewOf(bytes);
  return registersOf(NAMES, (_, index) => view.getBigUint64(8 * index, true));
}

/** Puts the registers that are given into the structure, and leaves the others. */
export function encodeRegs(bytes: Uint8Array, regs: SomeRegisters<Ppc64RegName>): void {
  const view = viewOf(bytes);
  for (const [name, value] of checkRegisters(regs, NAMES)) view.setBigUint64(8 * NAMES.indexOf(name), value, true);
}
