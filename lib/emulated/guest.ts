import { checkFunction, checkInteger, checkObject, checkOneOf, checkSize, checkText } from '../base/arguments.ts';
import { invalidArgType, invalidReturnValue } from '../base/errors.ts';

/**
 * What a scripted guest does next. Addresses are what the guest's own instruction names: guest physical ones where
 * nothing translates, effective ones on an architecture that does.
 */
export type GuestOp =
  | { readonly op: 'store'; readonly address: number; readonly size: 1 | 2 | 4 | 8; readonly value: bigint }
  | { readonly op: 'load'; readonly address: number; readonly size: 1 | 2 | 4 | 8 }
  | { readonly op: 'out'; readonly port: number; readonly size: 1 | 2 | 4; readonly value: bigint }
  | { readonly op: 'in'; readonly port: number; readonly size: 1 | 2 | 4 }
  /** `count` units from memory on `address` to a port, or from a port to memory there, as one instruction (x86_64: REP OUTS, REP INS). */
  | {
      readonly op: 'outs' | 'ins';
      readonly port: number;
      readonly size: 1 | 2 | 4;
      readonly address: number;
      readonly count: number;
    }
  /** Loads, and stores what `change` makes of it, as one instruction; its result is what was there. */
  | {
      readonly op: 'update';
      readonly address: number;
      readonly size: 1 | 2 | 4 | 8;
      readonly change: (old: bigint) => bigint;
    }
  | { readonly op: 'hypercall'; readonly nr: number; readonly args: readonly bigint[] }
  /**
   * One load or store of the guest's own code, which is in its memory (ppc64). Registers are those of KVM_SET_REGS; its result
   * are the 32 general-purpose ones.
   */
  | { readonly op: 'execute'; readonly address: number }
  /** An instruction of the architecture's by its mnemonic (s390x: IPTE, IDTE, CSPG, CS, CSG, CDS, CDSG, SSKE, ISKE, RRBE, PFMF, TPROT, ESSA; ppc64: li, mfspr). */
  | { readonly op: 'instruction'; readonly name: string; readonly operands: readonly bigint[] }
  | { readonly op: 'halt' }
  /** Loops until something interrupts the run. */
  | { readonly op: 'spin' };

/** What an update's function made. @throws TypeError ERR_INVALID_RETURN_VALUE unless it is a bigint */
export function changed(value: bigint): bigint {
  if (typeof value !== 'bigint') throw invalidReturnValue('a bigint', 'change', value);
  return value;
}

/** @throws TypeError, RangeError */
export function checkCode(code: GuestCode): GuestCode {
  const { gpa, size } = checkObject(code, 'code');
  return { gpa: checkSize(gpa, 'code.gpa'), size: checkSize(size, 'code.size') };
}

/** Where the guest's instructions are: all of it must be memory for the guest to go on. */
export interface GuestCode {
  /** Guest physical address. */
  readonly gpa: number;
  /** Bytes. */
  readonly size: number;
}

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

export const store = (address: number, size: 1 | 2 | 4 | 8, value: bigint): GuestOp =>
  checkOp({ op: 'store', address, size, value });
export const load = (address: number, size: 1 | 2 | 4 | 8): GuestOp => checkOp({ op: 'load', address, size });
export const out = (port: number, size: 1 | 2 | 4, value: bigint): GuestOp => checkOp({ op: 'out', port, size, value });
export const input = (port: number, size: 1 | 2 | 4): GuestOp => checkOp({ op: 'in', port, size });
export const outs = (port: number, size: 1 | 2 | 4, address: number, count: number): GuestOp =>
  checkOp({ op: 'outs', port, size, address, count });
export const ins = (port: number, size: 1 | 2 | 4, address: number, count: number): GuestOp =>
  checkOp({ op: 'ins', port, size, address, count });
export const update = (address: number, size: 1 | 2 | 4 | 8, change: (old: bigint) => bigint): GuestOp =>
  checkOp({ op: 'update', address, size, change });
export const hypercall = (nr: number, ...args: readonly bigint[]): GuestOp => checkOp({ op: 'hypercall', nr, args });
export const execute = (address: number): GuestOp => checkOp({ op: 'execute', address });
export const instruction = (name: string, ...operands: readonly bigint[]): GuestOp =>
  checkOp({ op: 'instruction', name, operands });
export const halt: GuestOp = { op: 'halt' };
export const spin: GuestOp = { op: 'spin' };

/**
 * Checks what a program yields, which may have made it itself.
 * @throws TypeError ERR_INVALID_ARG_TYPE; RangeError ERR_OUT_OF_RANGE, also for an address from 2^53 on, which may have been rounded
 */
export function checkOp(op: GuestOp): GuestOp {
  checkObject(op, 'op');
  switch (op.op) {
    case 'store':
      checkOneOf(op.size, 'size', SIZES);
      checkBigint(op.value, 'value');
      checkSize(op.address, 'address');
      break;
    case 'load':
      checkOneOf(op.size, 'size', SIZES);
      checkSize(op.address, 'address');
      break;
    case 'out':
      checkBigint(op.value, 'value');
      checkPort(op);
      break;
    case 'in':
      checkPort(op);
      break;
    case 'outs':
    case 'ins':
      checkPort(op);
      checkSize(op.address, 'address');
      checkSize(op.count, 'count');
      break;
    case 'update':
      checkOneOf(op.size, 'size', SIZES);
      checkSize(op.address, 'address');
      checkFunction(op.change, 'change');
      break;
    case 'hypercall':
      checkInteger(op.nr, 'nr', 0, Number.MAX_SAFE_INTEGER);
      checkBigints(op.args, 'args');
      break;
    case 'execute':
      checkSize(op.address, 'address');
      break;
    case 'instruction':
      checkText(op.name, 'name');
      checkBigints(op.operands, 'operands');
      break;
    default:
      // Two have no more to them, and else it is none.
      checkOneOf((op as { readonly op: unknown }).op, 'op.op', OPS);
  }
  return op;
}

const OPS = [
  ...['store', 'load', 'out', 'in', 'outs', 'ins', 'update', 'hypercall'],
  ...['execute', 'instruction', 'halt', 'spin'],
];
const SIZES: readonly number[] = [1, 2, 4, 8];
const PORT_SIZES: readonly number[] = [1, 2, 4];

function checkPort({ port, size }: { readonly port: number; readonly size: number }): void {
  checkInteger(port, 'port', 0, 0xffff);
  checkOneOf(size, 'size', PORT_SIZES);
}

function checkBigint(value: bigint, name: string): void {
  if (typeof value !== 'bigint') throw invalidArgType(name, 'a bigint', value);
}

function checkBigints(values: readonly bigint[], name: string): void {
  if (!Array.isArray(values)) throw invalidArgType(name, 'an array of bigints', values);
  // For every hypercall: a name is made only where it is needed.
  for (let i = 0; i < values.length; i++) {
    if (typeof values[i] !== 'bigint') checkBigint(values[i]!, `${name}[${i}]`);
  }
}
