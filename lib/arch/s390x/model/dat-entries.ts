/** Entries of the region, segment and page tables: their bits, and an entry in words. */

import { checkBigU64, checkInteger, checkOneOf } from '../../../base/arguments.ts';
import { fromHalves, hex64, highHalf, lowHalf } from './u64.ts';

/** Levels of translation tables by the value of DT and TT, region first is 3; pages, which have no TT, are one below. */
export const LEVEL_R2 = 2;
export const LEVEL_R3 = 1;
export const LEVEL_SEGMENT = 0;
export const LEVEL_PAGE = -1;

/** Names of the tables as the capture files and the manuals abbreviate them. */
export type TableLevel = 'R1' | 'R2' | 'R3' | 'S' | 'P';
const LEVEL_NAMES = ['P', 'S', 'R3', 'R2', 'R1'] as const;

/** The abbreviation of a level number. */
export const levelName = (level: number): TableLevel => LEVEL_NAMES[level + 1]!;

/** How many address bits one entry of a level spans: 12 for a page, 20 for a segment, 31, 42, 53 for regions. */
const SPAN_SHIFTS = [12, 20, 31, 42, 53] as const;
export const spanShift = (level: number): number => SPAN_SHIFTS[level + 1]!;

/** Bytes that one page table maps. */
export const SEGMENT_SIZE = 2 ** spanShift(LEVEL_SEGMENT);
/** The same in pages. */
export const SEGMENT_PAGES = SEGMENT_SIZE / 4096;

/** Bits of the lower half of an entry. Each means the same on every level that has it. */
export const ENTRY_PROTECTION = 0x200;
export const ENTRY_INVALID = 0x20;
export const ENTRY_FORMAT_CONTROL = 0x400;
export const ENTRY_COMMON = 0x10;
export const ENTRY_IEP = 0x100;
/** Table type (TT), which is the level. */
export const ENTRY_TYPE = 0x0c;
/** A page-table entry has I where others have FC, and a bit that must be zero. */
export const PAGE_INVALID = 0x400;
export const PAGE_ZERO = 0x800;

/** The table type of a region or segment entry. */
export const tableType = (lo: number): number => (lo & ENTRY_TYPE) >>> 2;
/** First part of the next table that exists (TF), in units of 512 entries. */
export const tableOffset = (lo: number): number => (lo >>> 6) & 3;
/** Last part of the next table that exists (TL). */
export const tableLength = (lo: number): number => lo & 3;

/** DAT features that are in force: the facility is installed and CR0 enables it. A set of bits. */
export const DAT_EDAT1 = 1;
export const DAT_EDAT2 = 2;
export const DAT_IEP = 4;

export const checkFeatures = (features: number, name: string): number =>
  checkInteger(features, name, 0, DAT_EDAT1 | DAT_EDAT2 | DAT_IEP);

/** Whether the entry maps a large frame, which needs EDAT-2 in a region-third entry and EDAT-1 in a segment entry. */
export function isLargeFrame(level: number, lo: number, features: number): boolean {
  if ((lo & ENTRY_FORMAT_CONTROL) === 0) return false;
  if (level === LEVEL_R3) return (features & DAT_EDAT2) !== 0;
  return level === LEVEL_SEGMENT && (features & DAT_EDAT1) !== 0;
}

/** A table entry in one line, such as `segment table at 0x…, TF 0, TL 3, protected`. */
export function describeEntry(level: TableLevel, entry: bigint, features: number): string {
  const number = LEVEL_NAMES.indexOf(checkOneOf(level, 'level', LEVEL_NAMES)) - 1;
  checkBigU64(entry, 'entry');
  checkFeatures(features, 'features');
  const lo = lowHalf(entry);
  const invalid = (lo & (number === LEVEL_PAGE ? PAGE_INVALID : ENTRY_INVALID)) !== 0;
  if (invalid) return 'invalid';
  const parts = [target(number, highHalf(entry), lo, features)];
  if (number > LEVEL_SEGMENT && !isLargeFrame(number, lo, features)) {
    parts.push(`TF ${tableOffset(lo)}`, `TL ${tableLength(lo)}`);
  }
  if (number !== LEVEL_PAGE && tableType(lo) !== number) parts.push(`TT ${tableType(lo)}, which is not ${level}`);
  if (number === LEVEL_PAGE && (lo & PAGE_ZERO) !== 0) parts.push('bit 52 is not zero');
  if ((lo & ENTRY_COMMON) !== 0 && (number === LEVEL_R3 || number === LEVEL_SEGMENT)) parts.push('common');
  if ((lo & ENTRY_PROTECTION) !== 0) parts.push('protected');
  const mapsFrame = number === LEVEL_PAGE || isLargeFrame(number, lo, features);
  if (mapsFrame && (lo & ENTRY_IEP) !== 0) parts.push('no instruction fetch (IEP)');
  return parts.join(', ');
}

function target(level: number, hi: number, lo: number, features: number): string {
  if (level === LEVEL_PAGE) return `4 KiB frame at real ${hex64(fromHalves(hi, lo & 0xffff_f000))}`;
  if (isLargeFrame(level, lo, features)) {
    const [mask, size] = level === LEVEL_R3 ? [0x8000_0000, '2 GiB'] : [0xfff0_0000, '1 MiB'];
    return `${size} frame at absolute ${hex64(fromHalves(hi, lo & mask))}`;
  }
  const mask = level === LEVEL_SEGMENT ? 0xffff_f800 : 0xffff_f000;
  const name = ['page', 'segment', 'region-third', 'region-second'][level];
  return `${name} table at ${hex64(fromHalves(hi, lo & mask))}`;
}
