/** A load or store of general-purpose registers, as its instruction names it. */
export interface LoadStore {
  readonly write: boolean;
  /** Bytes that it accesses; 16 are those of a pair of registers. */
  readonly size: 1 | 2 | 4 | 8 | 16;
  /** What it loads is sign-extended. */
  readonly signed: boolean;
  /** Its bytes are in memory in the order that is not the processor's. */
  readonly reversed: boolean;
  /** The base register gets the address. */
  readonly update: boolean;
  /** KVM emulates it where it finds no memory; the others make a data storage interrupt there. */
  readonly emulated: boolean;
  /** The register that is loaded or stored. */
  readonly target: number;
  readonly base: number;
  /** The effective address. */
  readonly address: bigint;
}

type Form = Omit<LoadStore, 'target' | 'base' | 'address'>;

const form = (write: boolean, size: Form['size'], more: Partial<Form> = {}): Form => ({
  ...{ write, size, signed: false, reversed: false, update: false, emulated: true },
  ...more,
});
const load = (size: Form['size'], more?: Partial<Form>): Form => form(false, size, more);
const store = (size: Form['size'], more?: Partial<Form>): Form => form(true, size, more);
const update = { update: true };
const signed = { signed: true };
const reversed = { reversed: true };
const notEmulated = { emulated: false };

/** With a displacement of 16 bits, by primary opcode. */
const D_FORMS: ReadonlyMap<number, Form> = new Map([
  [32, load(4)], // lwz
  [33, load(4, update)], // lwzu
  [34, load(1)], // lbz
  [35, load(1, update)], // lbzu
  [36, store(4)], // stw
  [37, store(4, update)], // stwu
  [38, store(1)], // stb
  [39, store(1, update)], // stbu
  [40, load(2)], // lhz
  [41, load(2, update)], // lhzu
  [42, load(2, signed)], // lha
  [43, load(2, { signed: true, update: true })], // lhau
  [44, store(2)], // sth
  [45, store(2, update)], // sthu
]);

/** With a displacement whose lowest bits are 0, by primary opcode and what stands in those two bits. */
const DS_FORMS: ReadonlyMap<number, readonly Form[]> = new Map([
  [56, [load(16, notEmulated)]], // lq
  [58, [load(8), load(8, update), load(4, signed)]], // ld, ldu, lwa
  [62, [store(8), store(8, update), store(16, notEmulated)]], // std, stdu, stq
]);

/** With an index register, by the extended opcode of primary opcode 31. */
const X_FORMS: ReadonlyMap<number, Form> = new Map([
  [20, load(4, notEmulated)], // lwarx
  [21, load(8)], // ldx
  [23, load(4)], // lwzx
  [52, load(1, notEmulated)], // lbarx
  [53, load(8, update)], // ldux
  [55, load(4, update)], // lwzux
  [84, load(8, notEmulated)], // ldarx
  [87, load(1)], // lbzx
  [116, load(2, notEmulated)], // lharx
  [119, load(1, update)], // lbzux
  [149, store(8)], // stdx
  [151, store(4)], // stwx
  [181, store(8, update)], // stdux
  [183, store(4, update)], // stwux
  [215, store(1)], // stbx
  [247, store(1, update)], // stbux
  [279, load(2)], // lhzx
  [311, load(2, update)], // lhzux
  [341, load(4, signed)], // lwax
  [343, load(2, signed)], // lhax
  [373, load(4, { signed: true, update: true })], // lwaux
  [375, load(2, { signed: true, update: true })], // lhaux
  [407, store(2)], // sthx
  [439, store(2, update)], // sthux
  [532, load(8, reversed)], // ldbrx
  [534, load(4, reversed)], // lwbrx
  [660, store(8, reversed)], // stdbrx
  [662, store(4, reversed)], // stwbrx
  [790, load(2, reversed)], // lhbrx
  [918, store(2, reversed)], // sthbrx
]);

/** Extended opcodes of dcbst, dcbf, dcbtst, dcbt, icbi and dcbz. */
const CACHE_OPERATIONS: ReadonlySet<number> = new Set([54, 86, 246, 278, 982, 1014]);

const opcodeOf = (word: number): number => word >>> 26;
const extendedOpcodeOf = (word: number): number => (word >>> 1) & 0x3ff;

/** Whether a word is the first of the two that a prefixed instruction of ISA 3.1 has. */
export const isPrefix = (word: number): boolean => opcodeOf(word) === 1;

/** Whether an instruction is one that KVM's emulation takes for a cache operation, and passes over. */
export const isCacheOperation = (word: number): boolean =>
  opcodeOf(word) === 31 && CACHE_OPERATIONS.has(extendedOpcodeOf(word));

/** What KVM takes for a store: one bit of the word, whatever instruction that is. */
export const looksLikeStore = (word: number): boolean => (word & (opcodeOf(word) === 31 ? 0x100 : 0x1000_0000)) !== 0;

/** The load or store of general-purpose registers that an instruction is; undefined for every other instruction. */
export function decodeLoadStore(word: number, gpr: (number: number) => bigint): LoadStore | undefined {
  const opcode = opcodeOf(word);
  const target = (word >>> 21) & 31;
  const base = (word >>> 16) & 31;
  const displacement = BigInt((word << 16) >> 16);
  let found = D_FORMS.get(opcode);
  let offset = displacement;
  if (opcode === 31) {
    found = X_FORMS.get(extendedOpcodeOf(word));
    offset = gpr((word >>> 11) & 31);
  } else if (found === undefined) {
    found = DS_FORMS.get(opcode)?.[word & 3];
    offset = displacement & (found?.size === 16 && !found.write ? ~15n : ~3n);
  }
  if (found === undefined) return undefined;
  // Invalid forms: no base register to update, the one that is loaded too, half of a pair.
  if (found.update && (base === 0 || (!found.write && base === target))) return undefined;
  if (found.size === 16 && (target & 1) !== 0) return undefined;
  return { ...found, target, base, address: BigInt.asUintN(64, (base === 0 ? 0n : gpr(base)) + offset) };
}
