/**
 * Access-register translation: from an access register through the access list and an ASN-second-table entry to an
 * ASCE. The order of the checks is the kernel's (`ar_translation` of arch/s390/kvm/gaccess.c).
 */

import type { CpuState } from './cpu-state.ts';
import type { AbsoluteMemory } from './memory.ts';
import { realToAbsolutePfn } from './prefix.ts';
import {
  PGM_ADDRESSING,
  PGM_ALE_SEQUENCE,
  PGM_ALEN_TRANSLATION,
  PGM_ALET_SPECIFICATION,
  PGM_ASTE_SEQUENCE,
  PGM_ASTE_VALIDITY,
  PGM_EXTENDED_AUTHORITY,
  PGM_PROTECTION,
} from './program-interruption.ts';

/** An ASCE in halves, as `selectAsce` fills it. */
export interface AsceTarget {
  asceHi: number;
  asceLo: number;
}

/** Access-list-entry token (ALET): what an access register holds. */
const ALET_RESERVED = 0xfe00_0000;
const ALET_PRIMARY_LIST = 0x0100_0000;
const ALET_SEQUENCE = 0x00ff_0000;
const ALET_NUMBER = 0xffff;

const DUCT_ORIGIN = 0x7fff_ffc0;
const LAST_31_BIT_ADDRESS = 0x7fff_ffff;

/** Bits of the first word of an access-list entry (ALE). */
const ALE_INVALID = 0x8000_0000;
const ALE_FETCH_ONLY = 0x0200_0000;
const ALE_PRIVATE = 0x0100_0000;

/** Bits of an ASN-second-table entry (ASTE). */
const ASTE_INVALID = 0x8000_0000;
const ASTE_AUTHORITY_ORIGIN = 0x7fff_fffc;

/**
 * Puts the ASCE that the access register designates into `out`.
 * @param ar access register 0 to 15; 0 always designates the primary space.
 * @returns 0; a program-interruption code (4, 5, 0x28 to 0x2d); or the negative errno of `memory`.
 */
export function translateAccessRegister(
  cpu: CpuState,
  memory: AbsoluteMemory,
  ar: number,
  store: boolean,
  out: AsceTarget,
): number {
  const alet = ar === 0 ? 0 : cpu.ar[ar]!;
  if (alet === 0) return fromControlRegister(cpu, 1, out);
  if (alet === 1) return fromControlRegister(cpu, 7, out);
  if ((alet & ALET_RESERVED) !== 0) return PGM_ALET_SPECIFICATION;

  const listRegister = (alet & ALET_PRIMARY_LIST) !== 0 ? 5 : 2;
  const designation = (cpu.cr[2 * listRegister + 1]! & DUCT_ORIGIN) + 16;
  let failure = readReal(cpu, memory, designation);
  if (failure !== 0) return failure;
  const ald = memory.hi;
  const alen = alet & ALET_NUMBER;
  if (alen >>> 3 > (ald & 0x7f)) return PGM_ALEN_TRANSLATION;
  const list = ((ald >>> 7) & 0xff_ffff) * 128;
  if (LAST_31_BIT_ADDRESS - list < alen * 16) return PGM_ADDRESSING;

  const entry = list + alen * 16;
  failure = readReal(cpu, memory, entry);
  if (failure !== 0) return failure;
  const ale = memory.hi;
  failure = readReal(cpu, memory, entry + 8);
  if (failure !== 0) return failure;
  const asteAddress = memory.hi & DUCT_ORIGIN;
  const asteSequence = memory.lo;
  if ((ale & ALE_INVALID) !== 0) return PGM_ALEN_TRANSLATION;
  if ((ale & ALET_SEQUENCE) !== (alet & ALET_SEQUENCE)) return PGM_ALE_SEQUENCE;

  failure = readReal(cpu, memory, asteAddress);
  if (failure !== 0) return failure;
  const authorityOrigin = memory.hi & ASTE_AUTHORITY_ORIGIN;
  const asteInvalid = (memory.hi & ASTE_INVALID) !== 0;
  const authorityLength = (memory.lo >>> 4) & 0xfff;
  failure = readReal(cpu, memory, asteAddress + 16);
  if (failure !== 0) return failure;
  if (asteInvalid) return PGM_ASTE_VALIDITY;
  if (memory.lo !== asteSequence) return PGM_ASTE_SEQUENCE;

  const eax = cpu.cr[17]! >>> 16;
  if ((ale & ALE_PRIVATE) !== 0 && (ale & 0xffff) !== eax) {
    if (eax >>> 4 > authorityLength) return PGM_EXTENDED_AUTHORITY;
    const at = authorityOrigin + (eax >>> 2);
    failure = readReal(cpu, memory, at);
    if (failure !== 0) return failure;
    if ((byteOfDoubleword(memory, at & 7) & (0x40 >>> ((eax & 3) * 2))) === 0) return PGM_EXTENDED_AUTHORITY;
  }
  if ((ale & ALE_FETCH_ONLY) !== 0 && store) return PGM_PROTECTION;

  failure = readReal(cpu, memory, asteAddress + 8);
  if (failure !== 0) return failure;
  out.asceHi = memory.hi;
  out.asceLo = memory.lo;
  return 0;
}

/** Takes the ASCE from a control register: 1 primary, 7 secondary, 13 home. */
export function fromControlRegister(cpu: CpuState, register: number, out: AsceTarget): number {
  out.asceHi = cpu.cr[2 * register]!;
  out.asceLo = cpu.cr[2 * register + 1]!;
  return 0;
}

/** Reads the doubleword that contains the real address. */
function readReal(cpu: CpuState, memory: AbsoluteMemory, address: number): number {
  const pfn = realToAbsolutePfn(Math.floor(address / 4096), cpu.prefixPfn);
  return memory.readDoubleword(pfn, address & 0xff8);
}

function byteOfDoubleword(memory: AbsoluteMemory, index: number): number {
  const half = index < 4 ? memory.hi : memory.lo;
  return (half >>> (24 - (index & 3) * 8)) & 0xff;
}
