import { checkHalf, checkInstance, checkInteger, checkOneOf } from '../../../base/arguments.ts';
import { HPTES_PER_GROUP, Hpte, SEGMENT_SIZES, type SegmentSize } from './hpte.ts';
import { Segment } from './slb.ts';

/** Smallest and largest order of a table that KVM accepts: 256 KiB to 64 TiB. */
export const HPT_ORDER = { MIN: 18, MAX: 46 } as const;

/** Checks the order of a table. */
export const checkOrder = (order: number, name: string): number =>
  checkInteger(order, name, HPT_ORDER.MIN, HPT_ORDER.MAX);

/** The two doublewords of every entry of a table, as halves, by slot number. */
export interface HpteWords {
  /** log2 of the table's size in bytes. */
  readonly order: number;
  vHi(slot: number): number;
  vLo(slot: number): number;
  rHi(slot: number): number;
  rLo(slot: number): number;
}

/** A power of 2, as an integer where it is one of 32 bits: what ** makes is a double, and so is what is compared with it. */
const powerOf2 = (bits: number): number => (bits < 31 ? 1 << bits : 2 ** bits);

/** Entries of a table of this order, 18 to 46. */
export const entriesOf = (order: number): number => powerOf2(checkOrder(order, 'order') - 4);

/** Groups of eight entries of a table of this order, 18 to 46. */
export const groupsOf = (order: number): number => powerOf2(checkOrder(order, 'order') - 7);

/** Byte offset in its segment of an effective address with these halves. */
export function segmentOffset(segmentSize: SegmentSize, eaHi: number, eaLo: number): number {
  checkOneOf(segmentSize, 'segmentSize', SEGMENT_SIZES);
  return offsetIn(segmentSize, checkHalf(eaHi, 'eaHi'), checkHalf(eaLo, 'eaLo'));
}

/** The same, of arguments that are known to be right. */
export function offsetIn(segmentSize: SegmentSize, eaHi: number, eaLo: number): number {
  return segmentSize === '1T' ? (eaHi & 0xff) * 2 ** 32 + (eaLo >>> 0) : eaLo & 0x0fff_ffff;
}

/**
 * The primary group of a byte offset in a segment: VSID ^ page index for 256 MiB segments, VSID ^ VSID << 25 ^ page
 * index for 1 TiB ones, the low bits of it. The secondary group is the complement: see {@link otherGroup}.
 */
export function primaryGroup(segment: Segment, offset: number, order: number): number {
  checkInstance(segment, 'segment', Segment);
  checkInteger(offset, 'offset', 0, 2 ** 40 - 1);
  checkOrder(order, 'order');
  return groupOfPage(segment, Math.floor(offset * segment.pagesPerByte), order);
}

/** The same of a page's index in its segment, of arguments that are known to be right. */
export function groupOfPage(segment: Segment, page: number, order: number): number {
  const bits = order - 7;
  const lo = segment.hashLo ^ page;
  if (bits < 32) return lo & ((1 << bits) - 1);
  return (segment.hashHi & ((1 << (bits - 32)) - 1)) * 2 ** 32 + (lo >>> 0);
}

/** The group of the complemented hash: secondary for a primary one, and back. */
export function otherGroup(group: number, order: number): number {
  checkInteger(group, 'group', 0, groupsOf(order) - 1);
  return complemented(group, order);
}

/** The same, of arguments that are known to be right. */
export const complemented = (group: number, order: number): number =>
  order < 39 ? ~group & ((1 << (order - 7)) - 1) : 2 ** (order - 7) - 1 - group;

/** A virtual page recovered from an entry and its place: see {@link virtualPage}. */
export interface VirtualPage {
  readonly segmentSize: SegmentSize;
  readonly vsid: bigint;
  /** Byte offset in the segment. */
  readonly offset: number;
  /** False where the group contradicts what V says of the hash: the entry can't be found at this slot. */
  readonly reachable: boolean;
}

/**
 * The virtual page of an entry, from V and the slot it stands in: V has the address down to bit 23 (8 MiB); the group
 * number gives back the at most eleven bits of smaller pages that went into the hash, for which every table is large enough.
 * @returns undefined when the page size or the segment size is an encoding that doesn't exist.
 */
export function virtualPage(entry: Hpte, slot: number, order: number): VirtualPage | undefined {
  checkInteger(slot, 'slot', 0, entriesOf(order) - 1);
  const { segmentSize, baseShift } = checkInstance(entry, 'entry', Hpte);
  if (segmentSize === 'reserved' || baseShift === 0) return undefined;
  const offsetBits = segmentSize === '1T' ? 40n : 28n;
  const va = entry.avpn << 23n;
  const vsid = va >> offsetBits;
  const known = va & ((1n << offsetBits) - 1n);
  const base = segmentSize === '1T' ? vsid ^ (vsid << 25n) : vsid;

  const group = Math.floor(slot / HPTES_PER_GROUP);
  const hash = BigInt(entry.secondary ? complemented(group, order) : group);
  const mask = BigInt(groupsOf(order) - 1);
  const pageShift = BigInt(baseShift);
  const difference = (hash ^ base ^ (known >> pageShift)) & mask;
  const lowBits = baseShift < 23 ? 23 - baseShift : 0;
  return {
    segmentSize,
    vsid,
    offset: Number(known | ((difference & ((1n << BigInt(lowBits)) - 1n)) << pageShift)),
    reachable: difference >> BigInt(lowBits) === 0n,
  };
}
