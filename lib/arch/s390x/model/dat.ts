/**
 * Dynamic address translation: from an ASCE and a virtual address to a frame, through up to five tables in absolute
 * storage. The order of the checks is the kernel's (`guest_translate` of arch/s390/kvm/gaccess.c), which is the
 * architecture's. The walk allocates nothing; `explainTranslation` in explain.ts shows what it saw.
 */

import { checkHalf, checkInstance } from '../../../base/arguments.ts';
import { ASCE_PRIVATE, ASCE_REAL_SPACE } from './asce.ts';
import {
  checkFeatures,
  DAT_EDAT1,
  DAT_EDAT2,
  DAT_IEP,
  ENTRY_COMMON,
  ENTRY_FORMAT_CONTROL,
  ENTRY_IEP,
  ENTRY_INVALID,
  ENTRY_PROTECTION,
  ENTRY_TYPE,
  isLargeFrame,
  LEVEL_PAGE,
  LEVEL_R2,
  LEVEL_R3,
  LEVEL_SEGMENT,
  PAGE_INVALID,
  PAGE_ZERO,
  spanShift,
  tableLength,
  tableOffset,
  tableType,
} from './dat-entries.ts';
import { type AbsoluteMemory, checkMemory } from './memory.ts';
import {
  PGM_ASCE_TYPE,
  PGM_PAGE_TRANSLATION,
  PGM_REGION_FIRST_TRANSLATION,
  PGM_REGION_SECOND_TRANSLATION,
  PGM_REGION_THIRD_TRANSLATION,
  PGM_SEGMENT_TRANSLATION,
  PGM_TRANSLATION_SPECIFICATION,
} from './program-interruption.ts';
import { PFN_LIMIT, pfnOf } from './u64.ts';

/** Why a walk ended. `mapped` is the only one without a program interruption or errno. */
export type DatStop =
  | 'mapped'
  | 'address beyond the designated table'
  | 'index beyond the table length'
  | 'index before the table offset'
  | 'entry invalid'
  | 'entry of another table type'
  | 'common entry in a private space'
  | 'bit 52 of the page-table entry is not zero'
  | 'table entry not readable';

/** The outcome of `walkDat`, reused from walk to walk. */
export class DatResult {
  /** Frame of the 4 KiB page that the address is in; only after code 0. */
  pfn = 0;
  /** The frame is absolute (large frames); otherwise it is real, and prefixing applies. */
  absolute = false;
  /** Address bits inside the mapped frame: 12, 20 or 31. */
  frameShift = 12;
  /** DAT protection from any level: a store gives 4. */
  protection = false;
  /** Instruction-execution protection: an instruction fetch gives 4. */
  iep = false;
  /** Level of the entry at which the walk ended (3, region first, to `LEVEL_PAGE`). */
  level = LEVEL_PAGE;
  stop: DatStop = 'mapped';
  /** The segment whose page table the walk came to, as `segmentOf` numbers it; −1 if it came to none. */
  segment = -1;
  /** The segment-table entry, and the protection of all entries down to it. */
  segmentHi = 0;
  segmentLo = 0;
  segmentProtection = false;
}

/** Number of the segment, of 1 MiB, that an address is in. */
const segmentOf = (vaHi: number, vaLo: number): number => vaHi * 4096 + (vaLo >>> 20);

/** The code that a missing entry of a level gives, by level + 1. */
const TRANSLATION_CODES = [
  PGM_PAGE_TRANSLATION,
  PGM_SEGMENT_TRANSLATION,
  PGM_REGION_THIRD_TRANSLATION,
  PGM_REGION_SECOND_TRANSLATION,
  PGM_REGION_FIRST_TRANSLATION,
] as const;

/** Index of a virtual address into a table of 2048 entries. */
function indexAt(level: number, hi: number, lo: number): number {
  if (level === LEVEL_SEGMENT) return (lo >>> 20) & 0x7ff;
  if (level === LEVEL_R3) return ((hi & 0x3ff) << 1) | (lo >>> 31);
  return level === LEVEL_R2 ? (hi >>> 10) & 0x7ff : hi >>> 21;
}

/** Whether the address has bits that a table of this level doesn't translate. */
function isBeyond(level: number, hi: number, lo: number): boolean {
  if (level === LEVEL_SEGMENT) return hi !== 0 || lo >>> 31 !== 0;
  if (level === LEVEL_R3) return hi >>> 10 !== 0;
  return level === LEVEL_R2 && hi >>> 21 !== 0;
}

/** A common region counts only where EDAT-2 gives the bit its meaning. */
function isForbiddenCommon(level: number, lo: number, asceLo: number, features: number): boolean {
  if ((lo & ENTRY_COMMON) === 0 || (asceLo & ASCE_PRIVATE) === 0) return false;
  return level === LEVEL_SEGMENT || (level === LEVEL_R3 && (features & DAT_EDAT2) !== 0);
}

/** What of an entry has to be looked at one by one where any of it is other than in an entry that just leads to the next table. */
const ENTRY_SAYS_MORE = ENTRY_INVALID | ENTRY_TYPE | ENTRY_COMMON | ENTRY_PROTECTION | ENTRY_FORMAT_CONTROL;
/** The same of a page-table entry that just names a frame. */
const PAGE_SAYS_MORE = PAGE_INVALID | PAGE_ZERO | ENTRY_PROTECTION | ENTRY_IEP;

/** Where in its frame the page-table entry of an address is. The table's origin is a multiple of 2 KiB. */
export const pageEntryOffset = (segmentLo: number, vaLo: number): number =>
  (segmentLo & 0x800) | (((vaLo >>> 12) & 0xff) << 3);

function walkPage(
  memory: AbsoluteMemory,
  segmentHi: number,
  segmentLo: number,
  vaLo: number,
  features: number,
  out: DatResult,
): number {
  out.level = LEVEL_PAGE;
  const failure = memory.readDoubleword(pfnOf(segmentHi, segmentLo), pageEntryOffset(segmentLo, vaLo));
  if (failure !== 0) return stopped(out, 'table entry not readable', failure);
  const { hi, lo } = memory;
  if ((lo & PAGE_SAYS_MORE) !== 0) {
    if ((lo & PAGE_INVALID) !== 0) return stopped(out, 'entry invalid', PGM_PAGE_TRANSLATION);
    if ((lo & PAGE_ZERO) !== 0) {
      return stopped(out, 'bit 52 of the page-table entry is not zero', PGM_TRANSLATION_SPECIFICATION);
    }
    if ((lo & ENTRY_PROTECTION) !== 0) out.protection = true;
    out.iep = (lo & ENTRY_IEP) !== 0 && (features & DAT_IEP) !== 0;
  }
  return mapped(out, pfnOf(hi, lo));
}

function mappedLarge(out: DatResult, level: number, hi: number, lo: number, vaLo: number, features: number): number {
  const offsetMask = level === LEVEL_R3 ? 0x7fff_ffff : 0x000f_ffff;
  out.absolute = true;
  out.frameShift = spanShift(level);
  out.iep = (lo & ENTRY_IEP) !== 0 && (features & DAT_IEP) !== 0;
  return mapped(out, pfnOf(hi, (lo & ~offsetMask) | (vaLo & offsetMask)));
}

function mapped(out: DatResult, pfn: number): number {
  out.pfn = pfn;
  out.stop = 'mapped';
  return 0;
}

function stopped(out: DatResult, why: DatStop, code: number): number {
  out.stop = why;
  return code;
}

/**
 * Translates the address `vaHi:vaLo` by the ASCE `asceHi:asceLo` (unsigned halves).
 * @param features the features in force, a set of `DAT_EDAT1`, `DAT_EDAT2` and `DAT_IEP`.
 * @returns 0 with the frame in `out`; a program-interruption code (5, 0x10 to 0x12, 0x38 to 0x3b); or the negative
 * errno of `memory`. `out.stop` and `out.level` say where and why. Protection doesn't end a walk; the caller judges it.
 */
export function walkDat(
  memory: AbsoluteMemory,
  asceHi: number,
  asceLo: number,
  vaHi: number,
  vaLo: number,
  features: number,
  out: DatResult,
): number {
  for (const [name, half] of Object.entries({ asceHi, asceLo, vaHi, vaLo })) checkHalf(half, name);
  checkFeatures(features, 'features');
  checkInstance(out, 'out', DatResult);
  return walkTables(checkMemory(memory), asceHi, asceLo, vaHi, vaLo, features, out);
}

/** The same, of arguments that are known to be right. */
export function walkTables(
  memory: AbsoluteMemory,
  asceHi: number,
  asceLo: number,
  vaHi: number,
  vaLo: number,
  features: number,
  out: DatResult,
): number {
  out.protection = false;
  out.iep = false;
  out.absolute = false;
  out.frameShift = 12;
  out.segment = -1;
  if ((asceLo & ASCE_REAL_SPACE) !== 0) {
    out.level = LEVEL_PAGE;
    return mapped(out, pfnOf(vaHi, vaLo));
  }
  let level = (asceLo >>> 2) & 3;
  out.level = level;
  if (isBeyond(level, vaHi, vaLo)) {
    return stopped(out, 'address beyond the designated table', PGM_ASCE_TYPE);
  }
  let index = indexAt(level, vaHi, vaLo);
  if (index >>> 9 > (asceLo & 3)) {
    return stopped(out, 'index beyond the table length', TRANSLATION_CODES[level + 1]!);
  }
  let origin = pfnOf(asceHi, asceLo);
  for (;;) {
    out.level = level;
    // A table may lie across the top of storage; addresses wrap.
    const pfn = index < 512 ? origin : (origin + (index >>> 9)) % PFN_LIMIT;
    const failure = memory.readDoubleword(pfn, (index & 511) << 3);
    if (failure !== 0) return stopped(out, 'table entry not readable', failure);
    const { hi, lo } = memory;
    // Most entries only lead on.
    if ((lo & ENTRY_SAYS_MORE) !== level << 2) {
      if ((lo & ENTRY_INVALID) !== 0) return stopped(out, 'entry invalid', TRANSLATION_CODES[level + 1]!);
      if (tableType(lo) !== level) return stopped(out, 'entry of another table type', PGM_TRANSLATION_SPECIFICATION);
      if (isForbiddenCommon(level, lo, asceLo, features)) {
        return stopped(out, 'common entry in a private space', PGM_TRANSLATION_SPECIFICATION);
      }
      if ((lo & ENTRY_PROTECTION) !== 0 && (level === LEVEL_SEGMENT || (features & DAT_EDAT1) !== 0)) {
        out.protection = true;
      }
      if (isLargeFrame(level, lo, features)) return mappedLarge(out, level, hi, lo, vaLo, features);
    }
    if (level === LEVEL_SEGMENT) {
      out.segment = segmentOf(vaHi, vaLo);
      out.segmentHi = hi;
      out.segmentLo = lo;
      out.segmentProtection = out.protection;
      return walkPage(memory, hi, lo, vaLo, features, out);
    }
    level--;
    index = indexAt(level, vaHi, vaLo);
    if (index >>> 9 < tableOffset(lo) || index >>> 9 > tableLength(lo)) {
      out.level = level;
      const why = index >>> 9 < tableOffset(lo) ? 'index before the table offset' : 'index beyond the table length';
      return stopped(out, why, TRANSLATION_CODES[level + 1]!);
    }
    origin = pfnOf(hi, lo);
  }
}

/**
 * Translates an address of the same space as the address that `out` is about, while no table can have changed in
 * between: in the same segment, only its page table is read.
 */
export function walkDatOn(
  memory: AbsoluteMemory,
  asceHi: number,
  asceLo: number,
  vaHi: number,
  vaLo: number,
  features: number,
  out: DatResult,
): number {
  if (out.segment !== segmentOf(vaHi, vaLo)) return walkTables(memory, asceHi, asceLo, vaHi, vaLo, features, out);
  out.protection = out.segmentProtection;
  out.iep = false;
  return walkPage(memory, out.segmentHi, out.segmentLo, vaLo, features, out);
}

/**
 * How many page-table entries, from the one at `at` on, name the frames that follow the frame of the entry before them
 * and say nothing else.
 * @param count so many are there at most, in one table.
 */
export function consecutiveFrames(entries: DataView, at: number, count: number): number {
  const hi = entries.getUint32(at - 8);
  const lo = entries.getUint32(at - 4);
  if ((lo & PAGE_SAYS_MORE) !== 0) return 0;
  // The frame behind the last one below a multiple of 4 GiB has another upper half.
  const most = Math.min(count, 0xf_ffff - (lo >>> 12));
  for (let i = 0; i < most; i++) {
    const place = at + 8 * i;
    const expected = lo + (i + 1) * 4096;
    // Of the low byte nothing counts.
    if ((entries.getUint32(place + 4) ^ expected) >>> 8 !== 0 || entries.getUint32(place) !== hi) return i;
  }
  return most;
}
