/**
 * Instructions of a scripted s390x guest that control storage: invalidation of translation tables under the IPTE
 * interlock, storage keys and protection, and what it tells of its frames (CMM). Exchanges, PFMF and TPROT are beside this.
 */

import type { GuestResult } from '../../../emulated/guest.ts';
import { ENTRY_INVALID, PAGE_INVALID } from '../model/dat-entries.ts';
import {
  decodePswMask,
  KEY_REFERENCE,
  PGM_OPERATION,
  PGM_PRIVILEGED_OPERATION,
  PGM_PROTECTION,
  PGM_SPECIFICATION,
} from '../model/index.ts';
import { COMPARE_AND_SWAP, exchangeIfEqual } from './compare-and-swap.ts';
import { LAST_REQUEST, performEssa } from './essa.ts';
import { pfmf } from './frame-management.ts';
import { frameAtAbsolute, frameAtReal, type Guest, type Instruction } from './guest-instruction.ts';
import { programInterruption } from './run.ts';
import { tprot } from './test-protection.ts';
import type { S390xVcpu } from './vcpu-state.ts';
import type { S390xVm } from './vm-state.ts';

/** Bits of IDTE's second operand: clearing by ASCE instead of invalidating, and how many more entries. */
const IDTE_CLEAR_BY_ASCE = 0x800n;
const IDTE_MORE_ENTRIES = 0x7ffn;
/** Which bits of an address number the entries of a table, by its designation type. */
const INDEX_SHIFTS = [20n, 31n, 42n, 53n] as const;
const MAX_INDEX = 0x7ffn;

/** Carried out alone: no host walk is under way meanwhile, and none begins. */
const INVALIDATIONS: ReadonlyMap<string, Instruction> = new Map<string, Instruction>([
  ['IPTE', ipte],
  ['IDTE', idte],
  ['CSPG', cspg],
]);

const OTHERS: ReadonlyMap<string, Instruction> = new Map<string, Instruction>([
  ['SSKE', sske],
  ['ISKE', iske],
  ['RRBE', rrbe],
  ['ESSA', essa],
  ['TPROT', tprot],
  ['PFMF', pfmf],
]);

/**
 * Executes an instruction by its mnemonic.
 * @returns its result; `'retry'` while a host walk holds the interlock.
 * @throws GuestFault 1 for an unknown mnemonic, 2 in the problem state, and what the operands lead to
 */
export function executeInstruction(
  vm: S390xVm,
  state: S390xVcpu,
  name: string,
  operands: readonly bigint[],
): GuestResult | 'retry' {
  const unprivileged = COMPARE_AND_SWAP.get(name);
  if (unprivileged !== undefined) return unprivileged({ vm, state }, operands);
  const invalidation = INVALIDATIONS.get(name);
  const instruction = invalidation ?? OTHERS.get(name);
  if (instruction === undefined) throw programInterruption(PGM_OPERATION, state.pswAddress);
  if (decodePswMask(state.pswMask).problemState) {
    throw programInterruption(PGM_PRIVILEGED_OPERATION, state.pswAddress);
  }
  const guest = { vm, state };
  if (invalidation === undefined) return instruction(guest, operands);
  if (!vm.tryInvalidate()) return 'retry';
  try {
    return instruction(guest, operands);
  } finally {
    vm.invalidated();
  }
}

/** IPTE: the page-table origin, and an address whose page's entry becomes invalid. */
function ipte({ vm }: Guest, [origin = 0n, address = 0n]: readonly bigint[]): undefined {
  const entry = (origin & ~0x7ffn) + ((address >> 12n) & 0xffn) * 8n;
  setBits(vm, entry, BigInt(PAGE_INVALID));
}

/** IDTE: a table's origin with its designation type in bits 0x0c, and an address whose entry becomes invalid, or more. */
function idte({ vm }: Guest, [designation = 0n, address = 0n]: readonly bigint[]): undefined {
  if ((address & IDTE_CLEAR_BY_ASCE) !== 0n) return;
  const shift = INDEX_SHIFTS[Number((designation >> 2n) & 3n)]!;
  const first = (address >> shift) & MAX_INDEX;
  for (let index = first; index <= first + (address & IDTE_MORE_ENTRIES) && index <= MAX_INDEX; index++) {
    setBits(vm, (designation & ~0xfffn) + index * 8n, BigInt(ENTRY_INVALID));
  }
}

/** CSPG: exchanges a doubleword if it is what is expected. Gives the condition code, and what was there. */
function cspg(guest: Guest, [expected = 0n, replacement = 0n, address = 0n]: readonly bigint[]): GuestResult {
  return exchangeIfEqual(guest, address & ~7n, 8, expected, replacement);
}

/** SSKE: sets the key of the frame at a real address. */
function sske(guest: Guest, [key = 0n, address = 0n]: readonly bigint[]): undefined {
  const { gfn, slot } = frameAtReal(guest, address);
  guest.vm.states.enableKeys();
  guest.vm.states.setKey(slot, gfn, Number(key) & 0xfe);
}

/** ISKE: the key of the frame at a real address. */
function iske(guest: Guest, [address = 0n]: readonly bigint[]): bigint {
  const { gfn, slot } = frameAtReal(guest, address);
  guest.vm.states.enableKeys();
  return BigInt(guest.vm.states.key(slot, gfn));
}

/** RRBE: resets the reference bit of the frame at a real address. The condition code is R and C as they were. */
function rrbe(guest: Guest, [address = 0n]: readonly bigint[]): bigint {
  const { gfn, slot } = frameAtReal(guest, address);
  guest.vm.states.enableKeys();
  const key = guest.vm.states.key(slot, gfn);
  guest.vm.states.setKey(slot, gfn, key & ~KEY_REFERENCE);
  return BigInt((key & 0x06) >> 1);
}

/**
 * ESSA: the state of the frame at a real address, after a change that the operation request names. Gives the old one. In migration
 * mode it is KVM that carries it out, which takes the address for an absolute one.
 */
function essa(guest: Guest, [request = 0n, address = 0n]: readonly bigint[]): bigint {
  const { vm } = guest;
  if (!vm.cmmaEnabled) throw programInterruption(PGM_OPERATION, address);
  if (request < 0n || request > LAST_REQUEST) throw programInterruption(PGM_SPECIFICATION, address);
  const { gfn, slot } = vm.migrating ? frameAtAbsolute(guest, address) : frameAtReal(guest, address);
  if (!vm.migrating) vm.states.cmmaUsed = true;
  return BigInt(performEssa(vm, slot, gfn, Number(request)));
}

function setBits(vm: S390xVm, absolute: bigint, bits: bigint): void {
  writeDoubleword(vm, absolute, readDoubleword(vm, absolute) | bits);
}

function readDoubleword(vm: S390xVm, absolute: bigint): bigint {
  return move(vm, absolute, new DataView(new ArrayBuffer(8)), false).getBigUint64(0);
}

function writeDoubleword(vm: S390xVm, absolute: bigint, value: bigint): void {
  const doubleword = new DataView(new ArrayBuffer(8));
  doubleword.setBigUint64(0, value);
  move(vm, absolute, doubleword, true);
}

function move(vm: S390xVm, absolute: bigint, doubleword: DataView, store: boolean): DataView {
  const gfn = Number(absolute >> 12n);
  const bytes = new Uint8Array(doubleword.buffer);
  const code = vm.storage.move(gfn, Number(absolute & 0xff8n), bytes, 0, 8, store);
  if (code !== 0) throw programInterruption(code > 0 ? code : PGM_PROTECTION, absolute);
  vm.link(gfn);
  return doubleword;
}
