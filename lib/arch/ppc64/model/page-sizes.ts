/**
 * Page sizes of hashed page table entries: which bits of an entry say how large its page is.
 *
 * An entry has two sizes. The *base page size* is the segment's; it goes into the hash. The *actual page size* may be
 * larger, when a large page is mapped in a segment of smaller ones. L = 0 means 4 KiB for both; with L = 1 the
 * low bits of the RPN field ("LP") say which pair it is. Source: Power ISA 2.07 Book III-S 5.7.7, and the set Linux's KVM accepts.
 */

import { checkHalf, checkInteger } from '../../../base/arguments.ts';
import { outOfRange } from '../../../base/errors.ts';

/** One pair of page sizes and how an entry and a segment encode it. Shifts: 12 = 4 KiB, 16 = 64 KiB, 24 = 16 MiB, 34 = 16 GiB. */
export interface PageEncoding {
  /** log2 of the base page size. */
  readonly baseShift: number;
  /** log2 of the actual page size. */
  readonly shift: number;
  /** Whether V.L is set. */
  readonly large: boolean;
  /** LP, as bits 12 and up of the second doubleword. */
  readonly lp: number;
  /** Which of the eight bits from bit 12 are LP; the others belong to the RPN. */
  readonly lpMask: number;
}

/** Every pair of page sizes that an entry can have. */
export const PAGE_ENCODINGS: readonly PageEncoding[] = [
  { baseShift: 12, shift: 12, large: false, lp: 0, lpMask: 0 },
  { baseShift: 12, shift: 16, large: true, lp: 0x07, lpMask: 0x0f },
  { baseShift: 12, shift: 24, large: true, lp: 0x38, lpMask: 0xff },
  { baseShift: 16, shift: 16, large: true, lp: 0x01, lpMask: 0x0f },
  { baseShift: 16, shift: 24, large: true, lp: 0x08, lpMask: 0xff },
  { baseShift: 24, shift: 24, large: true, lp: 0x00, lpMask: 0xff },
  { baseShift: 34, shift: 34, large: true, lp: 0x03, lpMask: 0xff },
];

/** `shift << 8 | baseShift` by the eight bits from bit 12 of an entry with L set; 0 = no such encoding. */
const largeShifts = Uint16Array.from({ length: 256 }, (_, bits) => {
  const found = PAGE_ENCODINGS.find(({ large, lp, lpMask }) => large && (bits & lpMask) === lp);
  return found === undefined ? 0 : (found.shift << 8) | found.baseShift;
});

const V_LARGE = 4;

/** log2 of an entry's base page size, from the low halves of its two doublewords; 0 when the encoding is invalid. */
export function basePageShift(vLo: number, rLo: number): number {
  return baseShiftOf(checkHalf(vLo, 'vLo'), checkHalf(rLo, 'rLo'));
}

/** The same, of halves that are known to be numbers. */
export function baseShiftOf(vLo: number, rLo: number): number {
  return (vLo & V_LARGE) === 0 ? 12 : largeShifts[(rLo >>> 12) & 0xff]! & 0xff;
}

/** log2 of an entry's actual page size, from the low halves of its two doublewords; 0 when the encoding is invalid. */
export function pageShift(vLo: number, rLo: number): number {
  return shiftOf(checkHalf(vLo, 'vLo'), checkHalf(rLo, 'rLo'));
}

/** The same, of halves that are known to be numbers. */
export function shiftOf(vLo: number, rLo: number): number {
  return (vLo & V_LARGE) === 0 ? 12 : largeShifts[(rLo >>> 12) & 0xff]! >> 8;
}

/**
 * How an entry of this pair of sizes is encoded.
 * @throws RangeError when there is no such pair.
 */
export function pageEncoding(baseShift: number, shift: number): PageEncoding {
  const found = PAGE_ENCODINGS.find((encoding) => encoding.baseShift === baseShift && encoding.shift === shift);
  if (found !== undefined) return found;
  const shifts = PAGE_ENCODINGS.filter((encoding) => encoding.baseShift === baseShift).map((one) => one.shift);
  if (shifts.length > 0) {
    throw outOfRange('shift', `${shifts.join(' or ')} in a segment with base pages of 2^${baseShift} bytes`, shift);
  }
  throw outOfRange('baseShift', `one of ${SLB_PAGE_ENCODINGS.map((one) => one.baseShift).join(', ')}`, baseShift);
}

/** `4K`, `64K`, `16M`, `16G`: the usual name of a page size. */
export function pageSizeName(shift: number): string {
  checkInteger(shift, 'shift', 0, 63);
  const units = ['', 'K', 'M', 'G', 'T'];
  const unit = Math.min(Math.floor(shift / 10), units.length - 1);
  return `${2 ** (shift - unit * 10)}${units[unit]}`;
}

/** L and LP of an SLB entry's second doubleword (mask 0x130) by base page shift. */
export const SLB_PAGE_ENCODINGS: readonly { readonly baseShift: number; readonly sllp: number }[] = [
  { baseShift: 12, sllp: 0 },
  { baseShift: 16, sllp: 0x110 },
  { baseShift: 24, sllp: 0x100 },
  { baseShift: 34, sllp: 0x120 },
];
