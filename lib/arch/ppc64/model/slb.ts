import {
  checkBigU64,
  checkBoolean,
  checkBytes,
  checkHalf,
  checkInstances,
  checkOneOf,
  checkOptions,
  type NamesOf,
  toU64,
} from '../../../base/arguments.ts';
import { outOfRange } from '../../../base/errors.ts';
import { fromHalves, hex64, highHalf, lowHalf } from '../../../base/u64.ts';
import { KVM_SREGS_PPC64 } from '../../../uapi/structs.ts';
import { SEGMENT_SIZES, type SegmentSize } from './hpte.ts';
import { pageSizeName, SLB_PAGE_ENCODINGS } from './page-sizes.ts';

/** Virtual segment id of the virtual real mode area: the 1 TiB segment that real-mode accesses of a guest go through. */
export const VRMA_VSID = 0x1ff_ffff;

/** Bits of the low half of an SLB entry's second doubleword. */
const VSID_LO = { KS: 0x800, KP: 0x400, N: 0x200, C: 0x80, SLLP: 0x130 } as const;
const ESID_V = 0x0800_0000;
const B_1T = 0x4000_0000;

/** {@link Segment.covers}, of halves that are known to be right. */
export let coversHalves: (segment: Segment, eaHi: number, eaLo: number) => boolean;

/**
 * One segment: an entry of the segment lookaside buffer, decoded, with what hashing and comparing need precomputed.
 * Immutable. Made of the two doublewords that `slbmte` takes, by {@link segment}, or of fields, by {@link encodeSegment}.
 */
export class Segment {
  readonly esidWord: bigint;
  readonly vsidWord: bigint;
  /** The V bit of the entry. */
  readonly valid: boolean;
  readonly segmentSize: SegmentSize;
  readonly vsid: bigint;
  /** log2 of the base page size; 0 when L and LP are an encoding that doesn't exist. */
  readonly baseShift: number;
  /** Protection keys of supervisor and problem state: with the key set, PP is read the stricter way. */
  readonly ks: boolean;
  readonly kp: boolean;
  /** No fetch from this segment. */
  readonly noExecute: boolean;

  /** 2^-baseShift: an offset times this is a page. */
  readonly pagesPerByte: number;
  // Halves are signed: the engine keeps those without an object of their own.
  /** Halves of what the hash XORs with the page index: the VSID, for 1 TiB segments with VSID << 25. */
  readonly hashHi: number;
  readonly hashLo: number;
  /** Halves of the part of V that comes from the segment: B and the VSID. */
  readonly avpnHi: number;
  readonly avpnLo: number;
  /** Halves of the part of an effective address that must agree with the ESID, and its mask. */
  readonly #esidHi: number;
  readonly #esidLo: number;
  readonly #esidLoMask: number;
  readonly #esidHiMask: number;

  constructor(esidWord: bigint, vsidWord: bigint) {
    this.esidWord = checkBigU64(esidWord, 'esidWord');
    this.vsidWord = checkBigU64(vsidWord, 'vsidWord');
    this.valid = (lowHalf(esidWord) & ESID_V) !== 0;
    const vHi = highHalf(vsidWord);
    const vLo = lowHalf(vsidWord);
    const is1T = (vHi & B_1T) !== 0;
    this.segmentSize = is1T ? '1T' : '256M';
    this.vsid = (vsidWord & 0x3fff_ffff_ffff_ffffn) >> (is1T ? 24n : 12n);
    this.baseShift = SLB_PAGE_ENCODINGS.find(({ sllp }) => sllp === (vLo & VSID_LO.SLLP))?.baseShift ?? 0;
    this.pagesPerByte = 2 ** -this.baseShift;
    this.ks = (vLo & VSID_LO.KS) !== 0;
    this.kp = (vLo & VSID_LO.KP) !== 0;
    this.noExecute = (vLo & VSID_LO.N) !== 0;

    const hash = is1T ? this.vsid ^ (this.vsid << 25n) : this.vsid;
    this.hashHi = highHalf(hash) | 0;
    this.hashLo = lowHalf(hash) | 0;
    this.avpnHi = vHi | 0;
    this.avpnLo = is1T ? vLo & 0xff00_0000 : vLo & 0xffff_f000;
    this.#esidHiMask = is1T ? ~0xff : ~0;
    this.#esidLoMask = is1T ? 0 : ~0x0fff_ffff;
    this.#esidHi = highHalf(esidWord) & this.#esidHiMask;
    this.#esidLo = lowHalf(esidWord) & this.#esidLoMask;
  }

  /** Whether this entry is valid and translates the effective address with these halves. */
  covers(eaHi: number, eaLo: number): boolean {
    checkHalf(eaHi, 'eaHi');
    checkHalf(eaLo, 'eaLo');
    return coversHalves(this, eaHi, eaLo);
  }

  static {
    coversHalves = (segment, eaHi, eaLo) =>
      segment.valid &&
      (eaHi & segment.#esidHiMask) === segment.#esidHi &&
      (eaLo & segment.#esidLoMask) === segment.#esidLo;
  }

  /** First effective address of the segment. */
  get ea(): bigint {
    return fromHalves(this.#esidHi, this.#esidLo);
  }

  toString(): string {
    const keys = `${this.ks ? 'Ks' : '--'}${this.kp ? 'Kp' : '--'}${this.noExecute ? 'N' : '-'}`;
    const pages = this.baseShift === 0 ? 'reserved page size' : `${pageSizeName(this.baseShift)} pages`;
    const state = this.valid ? '' : ' (invalid)';
    return `segment ${hex64(this.ea)} ${this.segmentSize} vsid 0x${this.vsid.toString(16)} ${pages} ${keys}${state}`;
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return this.toString();
  }
}

/**
 * A segment from the two doublewords that `slbmte` takes: RB (ESID, V) and RS (B, VSID, Ks, Kp, N, L, C, LP).
 * @throws RangeError when one isn't a u64.
 */
export function segment(esidWord: number | bigint, vsidWord: number | bigint): Segment {
  return new Segment(toU64(esidWord, 'esidWord'), toU64(vsidWord, 'vsidWord'));
}

/** What {@link encodeSegment} makes a segment of. */
export interface SegmentFields {
  /** Any effective address in the segment. */
  readonly ea: number | bigint;
  readonly vsid: number | bigint;
  readonly segmentSize: SegmentSize;
  /** 12 unless given. */
  readonly baseShift?: number;
  readonly ks?: boolean;
  readonly kp?: boolean;
  readonly noExecute?: boolean;
}

const FIELDS: NamesOf<SegmentFields> = {
  ea: true,
  vsid: true,
  segmentSize: true,
  baseShift: true,
  ks: true,
  kp: true,
  noExecute: true,
};

/**
 * Makes a valid segment of its fields.
 * @throws RangeError for a VSID of more than 50 (256 MiB) or 38 bits (1 TiB), or a base page size that doesn't exist.
 */
export function encodeSegment(fields: SegmentFields): Segment {
  const {
    ea,
    segmentSize,
    baseShift = 12,
    ks = false,
    kp = false,
    noExecute = false,
  } = checkOptions(fields, FIELDS, 'fields');
  const is1T = checkOneOf(segmentSize, 'segmentSize', SEGMENT_SIZES) === '1T';
  const vsid = toU64(fields.vsid, 'vsid');
  const bits = is1T ? 38n : 50n;
  if (vsid >> bits !== 0n) throw outOfRange('vsid', `below 2^${bits} in a segment of ${segmentSize}`, vsid);
  const encoding = SLB_PAGE_ENCODINGS.find((one) => one.baseShift === baseShift);
  if (encoding === undefined) {
    throw outOfRange('baseShift', `one of ${SLB_PAGE_ENCODINGS.map((one) => one.baseShift).join(', ')}`, baseShift);
  }
  for (const [name, value] of Object.entries({ ks, kp, noExecute })) checkBoolean(value, name);
  const offsetBits = is1T ? 40n : 28n;
  const esidWord = ((toU64(ea, 'ea') >> offsetBits) << offsetBits) | BigInt(ESID_V);
  const low = (ks ? VSID_LO.KS : 0) | (kp ? VSID_LO.KP : 0) | (noExecute ? VSID_LO.N : 0) | encoding.sllp;
  return segment(esidWord, (is1T ? 1n << 62n : 0n) | (vsid << (is1T ? 24n : 12n)) | BigInt(low));
}

/**
 * The segment through which KVM resolves real-mode accesses of a guest (VRMA): 1 TiB, VSID 0x1ffffff, effective
 * address 0. Neither Ks nor Kp is set, so every PP of 0 to 2 allows everything.
 */
export function vrmaSegment(baseShift = 12): Segment {
  return encodeSegment({ ea: 0, vsid: VRMA_VSID, segmentSize: '1T', baseShift });
}

/** Entries of the SLB of the processors that have one, POWER7 to POWER10: of the 64 in `struct kvm_sregs` KVM takes those, and no others. */
export const SLB_SIZE = 32;

/** Where the SLB is in `struct kvm_sregs`: pairs of doublewords, which are those of {@link segment}. */
const SREGS_SLB = KVM_SREGS_PPC64.slb;
const SREGS_SLB_END = SREGS_SLB + KVM_SREGS_PPC64.slbEntries * 16;

/**
 * The valid segments of a vCPU, from its `struct kvm_sregs` in a little-endian host's order.
 * @throws RangeError when `sregs` is shorter than the SLB in it.
 * @example slbOfSregs(vcpu.getSregsBytes(1232)) // sizeof(struct kvm_sregs)
 */
export function slbOfSregs(sregs: Uint8Array): readonly Segment[] {
  const view = viewOfSregs(sregs);
  const slb: Segment[] = [];
  for (let at = SREGS_SLB; at < SREGS_SLB_END; at += 16) {
    const entry = segment(view.getBigUint64(at, true), view.getBigUint64(at + 8, true));
    if (entry.valid) slb.push(entry);
  }
  return slb;
}

/**
 * Puts segments into a `struct kvm_sregs`, from its first entry on, and makes the rest of its SLB invalid.
 * @throws RangeError for more segments than there are entries
 */
export function encodeSlb(sregs: Uint8Array, slb: readonly Segment[]): void {
  checkInstances(slb, 'slb', Segment);
  if (slb.length > SLB_SIZE) throw outOfRange('slb.length', `at most ${SLB_SIZE}, as many as KVM takes`, slb.length);
  const view = viewOfSregs(sregs);
  sregs.fill(0, SREGS_SLB, SREGS_SLB_END);
  for (const [index, { esidWord, vsidWord }] of slb.entries()) {
    view.setBigUint64(SREGS_SLB + 16 * index, esidWord, true);
    view.setBigUint64(SREGS_SLB + 16 * index + 8, vsidWord, true);
  }
}

function viewOfSregs(sregs: Uint8Array): DataView {
  checkBytes(sregs, 'sregs');
  if (sregs.length < SREGS_SLB_END) throw outOfRange('sregs.length', `at least ${SREGS_SLB_END}`, sregs.length);
  return new DataView(sregs.buffer, sregs.byteOffset, sregs.byteLength);
}
