/**
 * What a scripted guest does next. Addresses are what the guest's own instruction names: guest physical ones where
 * nothing translates, effective ones on an architecture that does.
 */
export type GuestOp =
  | { readonly op: 'store'; readonly address: number; readonly size: 1 | 2 | 4 | 8; readonly value: bigint }
  | { readonly op: 'load'; readonly address: number; readonly size: 1 | 2 | 4 | 8 }
  | { readonly op: 'out'; readonly port: number; readonly size: 1 | 2 | 4; readonly value: bigint }
  | { readonly op: 'in'; readonly port: number; readonly size: 1 | 2 | 4 }
  | { readonly op: 'hypercall'; readonly nr: number; readonly args: readonly bigint[] }
  /**
   * One load or store of the guest's own code, which is in its memory (ppc64). Registers are those of KVM_SET_REGS; its result
   * are the 32 general-purpose ones.
   */
  | { readonly op: 'execute'; readonly address: number }
  /** An instruction of the architecture's by its mnemonic (s390x: IPTE, IDTE, CSPG, SSKE, ISKE, RRBE, ESSA; ppc64: li, mfspr). */
  | { readonly op: 'instruction'; readonly name: string; readonly operands: readonly bigint[] }
  | { readonly op: 'halt' }
  /** Loops until something interrupts the run. */
  | { readonly op: 'spin' };

/** What an operation gave: the value loaded, a hypercall's registers, nothing for the others. */
export type GuestResult = bigint | readonly bigint[] | undefined;

/** A load or store as it was decoded, with the registers as they were. */
export interface GuestInstruction {
  readonly write: boolean;
  /** What it names: an effective address. */
  readonly address: number;
  /** What it stores, or where what it loads goes; nothing where no memory is accessed after all. */
  readonly bytes: Uint8Array;
  /** The access is carried out, or on its way to user space. */
  accepted(): void;
  /** Puts what was loaded into the register, and returns all of them. */
  complete(): readonly bigint[];
}

/**
 * A guest program: the emulated vCPU carries out what it yields, and hands back the result. Its end is a halt.
 *
 * @example
 * function* guest(): GuestProgram {
 *   yield store(0x2000, 1, 0x41n);
 *   const status = yield load(0xd000_0000, 4);
 * }
 */
export type GuestProgram = Generator<GuestOp, void, GuestResult>;

/** Thrown into a guest program where a real guest would have taken an interruption: `code` is the architecture's. */
export class GuestFault extends Error {
  override readonly name = 'GuestFault';
  readonly code: number;

  constructor(code: number, what: string) {
    super(what);
    this.code = code;
  }
}

export const store = (address: number, size: 1 | 2 | 4 | 8, value: bigint): GuestOp => ({
  op: 'store',
  address,
  size,
  value,
});
export const load = (address: number, size: 1 | 2 | 4 | 8): GuestOp => ({ op: 'load', address, size });
export const out = (port: number, size: 1 | 2 | 4, value: bigint): GuestOp => ({ op: 'out', port, size, value });
export const input = (port: number, size: 1 | 2 | 4): GuestOp => ({ op: 'in', port, size });
export const hypercall = (nr: number, ...args: readonly bigint[]): GuestOp => ({ op: 'hypercall', nr, args });
export const execute = (address: number): GuestOp => ({ op: 'execute', address });
export const instruction = (name: string, ...operands: readonly bigint[]): GuestOp => ({
  op: 'instruction',
  name,
  operands,
});
export const halt: GuestOp = { op: 'halt' };
export const spin: GuestOp = { op: 'spin' };
