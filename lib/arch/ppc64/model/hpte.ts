import {
  checkBoolean,
  checkHalf,
  checkOneOf,
  checkOptions,
  isHalf,
  type NamesOf,
  toU64,
} from '../../../base/arguments.ts';
import { outOfRange } from '../../../base/errors.ts';
import { fromHalves, hex64, highHalf, lowHalf } from '../../../base/u64.ts';
import { baseShiftOf, pageEncoding, pageSizeName, shiftOf } from './page-sizes.ts';

/** Bits of the upper half of V, the first doubleword (layout before ISA 3.0, which KVM shows for every processor). */
export const V_HI = { B: 0xc000_0000, B_1T: 0x4000_0000, B_RESERVED: 0x8000_0000, AVPN: 0x3fff_ffff } as const;

/** Bits of the lower half of V. HVLOCK and ABSENT are KVM's own; an entry of a guest has them clear. */
export const V_LO = {
  AVPN: 0xffff_ff80,
  HVLOCK: 0x40,
  ABSENT: 0x20,
  BOLTED: 0x10,
  LOCK: 0x08,
  LARGE: 0x04,
  SECONDARY: 0x02,
  VALID: 0x01,
} as const;

/** Bits of the upper half of R, the second doubleword. MODIFIED is KVM's own mark and reserved to guests. */
export const R_HI = { PP0: 0x8000_0000, MODIFIED: 0x4000_0000, KEY: 0x3000_0000, RPN: 0x0fff_ffff } as const;

/** Bits of the lower half of R. */
export const R_LO = {
  RPN: 0xffff_f000,
  KEY: 0xe00,
  R: 0x100,
  C: 0x80,
  WIMG: 0x78,
  G: 0x08,
  N: 0x04,
  PP: 0x03,
} as const;

/** Size of one entry in bytes. */
export const HPTE_SIZE = 16;
/** Words of 32 bits of an entry: V, then R, each with its upper half first. */
export const HPTE_WORDS = HPTE_SIZE / 4;

/** Entries of one group (PTEG). */
export const HPTES_PER_GROUP = 8;

/** The storage key (0 to 31) of an entry with these halves of R. */
export const keyOf = (rHi: number, rLo: number): number => ((rHi & R_HI.KEY) >>> 25) | ((rLo & R_LO.KEY) >>> 9);

/** PP0 and PP as one number of 0 to 7, PP0 being 4. */
export const ppOf = (rHi: number, rLo: number): number => ((rHi & R_HI.PP0) >>> 29) | (rLo & R_LO.PP);

/** Number of the first 4 KiB frame of a page: the RPN field with the LP bits of a page of 2^`shift` bytes cleared. */
export function frameOf(rHi: number, rLo: number, shift: number): number {
  const frame = (rHi & R_HI.RPN) * 0x10_0000 + (rLo >>> 12);
  // Most are: the power and the rest are calls of functions.
  if (shift === 12) return frame;
  return frame - (frame % 2 ** (shift - 12));
}

export const SEGMENT_SIZES = ['256M', '1T'] as const;
export type SegmentSize = (typeof SEGMENT_SIZES)[number];

/** What {@link encodeHpte} makes an entry of. Everything but the virtual and the real page may be left out. */
export interface HpteFields {
  /** Virtual segment id: below 2^50 for a 256 MiB segment, below 2^38 for a 1 TiB one. */
  readonly vsid: number | bigint;
  readonly segmentSize: SegmentSize;
  /** Byte offset in the segment; what lies below the page size is dropped. */
  readonly offset: number | bigint;
  /** Real (for a guest: guest physical) address of the page; a multiple of the page size, below 2^60. */
  readonly ra: number | bigint;
  /** log2 of the segment's base page size; 12 unless given. */
  readonly baseShift?: number;
  /** log2 of the page size; the base page size unless given. */
  readonly shift?: number;
  /** PP0 and PP, 0 to 7; 2 unless given (read and write for everybody). */
  readonly pp?: number;
  /** Storage key, 0 to 31. */
  readonly key?: number;
  /** W, I, M, G as 8, 4, 2, 1; 2 unless given (ordinary memory). */
  readonly wimg?: number;
  readonly noExecute?: boolean;
  readonly referenced?: boolean;
  readonly changed?: boolean;
  readonly bolted?: boolean;
  readonly secondary?: boolean;
  /** True unless given. */
  readonly valid?: boolean;
}

/**
 * One entry of a hashed page table: its two doublewords, and their fields decoded. Immutable.
 * Layout: facts of Power ISA 2.07 Book III-S 5.7.7 and of KVM's own bits.
 */
export class Hpte {
  readonly vHi: number;
  readonly vLo: number;
  readonly rHi: number;
  readonly rLo: number;

  /** From four 32-bit halves; use {@link hpte} for two doublewords. */
  constructor(vHi: number, vLo: number, rHi: number, rLo: number) {
    if (!isHalf(vHi) || !isHalf(vLo) || !isHalf(rHi) || !isHalf(rLo)) checkHalves(vHi, vLo, rHi, rLo);
    this.vHi = vHi >>> 0;
    this.vLo = vLo >>> 0;
    this.rHi = rHi >>> 0;
    this.rLo = rLo >>> 0;
  }

  /** The first doubleword: segment size, virtual page, software bits, L, H, valid. */
  get v(): bigint {
    return fromHalves(this.vHi, this.vLo);
  }

  /** The second doubleword: real page, protection, key, R, C, WIMG. */
  get r(): bigint {
    return fromHalves(this.rHi, this.rLo);
  }

  get valid(): boolean {
    return (this.vLo & V_LO.VALID) !== 0;
  }

  /** The guest's promise never to lose this entry; the only ones a table keeps when it is resized. */
  get bolted(): boolean {
    return (this.vLo & V_LO.BOLTED) !== 0;
  }

  /** H: the entry is in the group of the complemented hash. */
  get secondary(): boolean {
    return (this.vLo & V_LO.SECONDARY) !== 0;
  }

  /** L: the page size is encoded in the second doubleword. */
  get large(): boolean {
    return (this.vLo & V_LO.LARGE) !== 0;
  }

  /** B; the two reserved encodings give `reserved`. */
  get segmentSize(): SegmentSize | 'reserved' {
    if ((this.vHi & V_HI.B_RESERVED) !== 0) return 'reserved';
    return (this.vHi & V_HI.B_1T) !== 0 ? '1T' : '256M';
  }

  /** The abbreviated virtual page number: virtual address bits from 2^23 up. */
  get avpn(): bigint {
    return (this.v & 0x3fff_ffff_ffff_ff80n) >> 7n;
  }

  /** log2 of the segment's base page size; 0 when the encoding is invalid. */
  get baseShift(): number {
    return baseShiftOf(this.vLo, this.rLo);
  }

  /** log2 of the page size; 0 when the encoding is invalid. */
  get shift(): number {
    return shiftOf(this.vLo, this.rLo);
  }

  /** Real address of the page's first byte. With an invalid page size, the whole RPN field. */
  get ra(): bigint {
    return BigInt(frameOf(this.rHi, this.rLo, this.shift || 12)) << 12n;
  }

  /** PP0 (as 4) and PP: 0 to 7. */
  get pp(): number {
    return ppOf(this.rHi, this.rLo);
  }

  /** Storage key, 0 to 31, by which AMR and IAMR grant access. KVM marks emulated MMIO with 31 in its own copy. */
  get key(): number {
    return keyOf(this.rHi, this.rLo);
  }

  get referenced(): boolean {
    return (this.rLo & R_LO.R) !== 0;
  }

  get changed(): boolean {
    return (this.rLo & R_LO.C) !== 0;
  }

  /** W, I, M, G as 8, 4, 2, 1. */
  get wimg(): number {
    return (this.rLo & R_LO.WIMG) >>> 3;
  }

  get noExecute(): boolean {
    return (this.rLo & R_LO.N) !== 0;
  }

  /** One line with every field. */
  toString(): string {
    if (!this.valid && this.v === 0n && this.r === 0n) return 'HPTE empty';
    const pages =
      this.shift === 0
        ? 'invalid page size'
        : `${pageSizeName(this.shift)}${this.shift === this.baseShift ? '' : ` in ${pageSizeName(this.baseShift)}`}`;
    const flags = [
      this.valid ? 'valid' : 'invalid',
      ...(this.bolted ? ['bolted'] : []),
      ...(this.secondary ? ['secondary'] : []),
      ...((this.vLo & V_LO.HVLOCK) !== 0 ? ['hvlock'] : []),
      ...((this.vLo & V_LO.ABSENT) !== 0 ? ['absent'] : []),
    ].join(' ');
    const use = `${this.referenced ? 'R' : '-'}${this.changed ? 'C' : '-'}${this.noExecute ? 'N' : '-'}`;
    const wimg = [...'WIMG'].map((letter, i) => ((this.wimg & (8 >> i)) !== 0 ? letter : '-')).join('');
    return (
      `HPTE ${hex64(this.v)} ${hex64(this.r)}: ${flags}, ${this.segmentSize} segment, avpn 0x${this.avpn.toString(16)}, ` +
      `${pages} at 0x${this.ra.toString(16)}, pp ${this.pp}, key ${this.key}, ${wimg}, ${use}`
    );
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return this.toString();
  }
}

/**
 * An entry from its two doublewords.
 * @throws RangeError when one isn't a u64.
 */
export function hpte(v: number | bigint, r: number | bigint): Hpte {
  const wideV = toU64(v, 'v');
  const wideR = toU64(r, 'r');
  return new Hpte(highHalf(wideV), lowHalf(wideV), highHalf(wideR), lowHalf(wideR));
}

/** Says which of them is none. */
export function checkHalves(vHi: number, vLo: number, rHi: number, rLo: number): void {
  checkHalf(vHi, 'vHi');
  checkHalf(vLo, 'vLo');
  checkHalf(rHi, 'rHi');
  checkHalf(rLo, 'rLo');
}

/** `value` as bigint, checked to be below 2^`bits`. */
function field(value: number | bigint, bits: number, name: string): bigint {
  const wide = toU64(value, name);
  if (wide >> BigInt(bits) !== 0n) throw outOfRange(name, `below 2^${bits}`, value);
  return wide;
}

const FIELDS: NamesOf<HpteFields> = {
  vsid: true,
  segmentSize: true,
  offset: true,
  ra: true,
  baseShift: true,
  shift: true,
  pp: true,
  key: true,
  wimg: true,
  noExecute: true,
  referenced: true,
  changed: true,
  bolted: true,
  secondary: true,
  valid: true,
};

type FlagOfHpte = 'bolted' | 'secondary' | 'valid' | 'referenced' | 'changed' | 'noExecute';

/**
 * Makes an entry of its fields.
 * @throws RangeError for a field out of range, a page size pair that doesn't exist, a page larger than its segment, or an
 * unaligned `ra`.
 */
export function encodeHpte(fields: HpteFields): Hpte {
  const { segmentSize, baseShift = 12, shift = baseShift } = checkOptions(fields, FIELDS, 'fields');
  checkOneOf(segmentSize, 'segmentSize', SEGMENT_SIZES);
  const encoding = pageEncoding(baseShift, shift);
  const offsetBits = segmentSize === '1T' ? 40 : 28;
  if (shift > offsetBits) throw outOfRange('shift', `at most ${offsetBits} in a segment of ${segmentSize}`, shift);
  const va =
    (field(fields.vsid, 78 - offsetBits, 'vsid') << BigInt(offsetBits)) | field(fields.offset, offsetBits, 'offset');
  // The bits of the virtual page below 2^23 are implied by the hash; those below the base page size aren't there.
  const avpnShift = BigInt(Math.max(23, baseShift));
  const ra = field(fields.ra, 60, 'ra');
  if (ra & ((1n << BigInt(shift)) - 1n)) throw outOfRange('ra', `a multiple of 2^${shift}`, fields.ra);
  const pp = field(fields.pp ?? 2, 3, 'pp');
  const key = field(fields.key ?? 0, 5, 'key');
  const flag = (name: FlagOfHpte, bit: number): bigint =>
    checkBoolean(fields[name] ?? name === 'valid', name) ? BigInt(bit) : 0n;

  const v =
    (segmentSize === '1T' ? 1n << 62n : 0n) |
    (((va >> avpnShift) << avpnShift) >> 16n) |
    flag('bolted', V_LO.BOLTED) |
    (encoding.large ? BigInt(V_LO.LARGE) : 0n) |
    flag('secondary', V_LO.SECONDARY) |
    flag('valid', V_LO.VALID);
  const r =
    ((pp >> 2n) << 63n) |
    ((key >> 3n) << 60n) |
    ra |
    (BigInt(encoding.lp) << 12n) |
    ((key & 7n) << 9n) |
    flag('referenced', R_LO.R) |
    flag('changed', R_LO.C) |
    (field(fields.wimg ?? 2, 4, 'wimg') << 3n) |
    flag('noExecute', R_LO.N) |
    (pp & 3n);
  return hpte(v, r);
}
