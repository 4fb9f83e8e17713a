import {
  checkCallback,
  checkHalf,
  checkInstance,
  checkInteger,
  checkMethods,
  checkOneOf,
  isIntegerIn,
} from '../../../base/arguments.ts';
import { HPTES_PER_GROUP, Hpte, SEGMENT_SIZES, type SegmentSize, V_LO } from './hpte.ts';
import { baseShiftOf } from './page-sizes.ts';
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

const isObject = (value: unknown): boolean => typeof value === 'object' && value !== null;
const areFunctions = ({ vHi, vLo, rHi, rLo }: HpteWords): boolean =>
  typeof vHi === 'function' && typeof vLo === 'function' && typeof rHi === 'function' && typeof rLo === 'function';

/** Checks a table, which may be of a user's own kind. */
export function checkTable(table: HpteWords, name = 'table'): HpteWords {
  // For every translation: what almost always is, in the cheapest way.
  if (isObject(table) && areFunctions(table) && isIntegerIn(table.order, HPT_ORDER.MIN, HPT_ORDER.MAX)) return table;
  checkMethods(table, name, ['vHi', 'vLo', 'rHi', 'rLo']);
  checkOrder(table.order, `${name}.order`);
  return table;
}

/** Entries of a table of this order, 18 to 46. */
export const entriesOf = (order: number): number => 2 ** (checkOrder(order, 'order') - 4);

/** Groups of eight entries of a table of this order, 18 to 46. */
export const groupsOf = (order: number): number => 2 ** (checkOrder(order, 'order') - 7);

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
function groupOfPage(segment: Segment, page: number, order: number): number {
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

/** Result of {@link findHpte} when no entry matches. */
export const NOT_FOUND = -1;

/**
 * Searches the table for the page of an effective address: the eight slots of the primary group, then those of the
 * secondary one. An entry matches when it is `present`, its V has the segment's B and virtual page, L where the
 * segment has it and H as the group demands, and its base page size is the segment's. The first match wins.
 * @param present which bits of V, any of them, make an entry count: VALID; for KVM's own tables also ABSENT.
 * @param probe told every slot that is looked at, in order.
 * @returns the slot, or {@link NOT_FOUND}.
 */
export function findHpte(
  table: HpteWords,
  segment: Segment,
  eaHi: number,
  eaLo: number,
  present: number = V_LO.VALID,
  probe?: (slot: number) => void,
): number {
  checkTable(table);
  checkInstance(segment, 'segment', Segment);
  checkHalf(eaHi, 'eaHi');
  checkHalf(eaLo, 'eaLo');
  checkHalf(present, 'present');
  return searchHpte(table, segment, eaHi, eaLo, present, checkCallback(probe, 'probe'));
}

/** The same, of arguments that are known to be right. */
export function searchHpte(
  table: HpteWords,
  segment: Segment,
  eaHi: number,
  eaLo: number,
  present: number = V_LO.VALID,
  probe?: (slot: number) => void,
): number {
  const { baseShift } = segment;
  if (baseShift === 0) return NOT_FOUND;
  // The byte offset in the segment in units of 64 KiB, and the rest of it: it has up to 40 bits, and halves stay integers.
  const is1T = segment.segmentSize === '1T';
  const blocks = is1T ? ((eaHi & 0xff) << 16) | (eaLo >>> 16) : (eaLo & 0x0fff_ffff) >>> 16;
  const page =
    baseShift <= 16 ? (blocks << (16 - baseShift)) | ((eaLo & 0xffff) >>> baseShift) : blocks >>> (baseShift - 16);
  // A virtual page of less than 8 MiB is known to V only down to bit 23; a larger one to its own size.
  const implied = baseShift <= 23 ? 7 : baseShift - 16;
  const wantLo = segment.avpnLo | ((blocks >>> implied) << implied);
  const large = baseShift === 12 ? 0 : V_LO.LARGE;
  const mask = V_LO.AVPN | V_LO.SECONDARY | large;
  // Halves are compared as signed numbers, which the engine keeps in registers.
  const avpnHi = segment.avpnHi | 0;
  const { order } = table;

  let group = groupOfPage(segment, page, order);
  for (let secondary = 0; ; secondary = V_LO.SECONDARY) {
    const want = wantLo | large | secondary;
    const first = group * HPTES_PER_GROUP;
    for (let slot = first; slot < first + HPTES_PER_GROUP; slot++) {
      if (probe !== undefined) probe(slot);
      const vLo = table.vLo(slot) | 0;
      if ((vLo & mask) !== want) continue;
      if ((vLo & present) === 0) continue;
      if ((table.vHi(slot) | 0) !== avpnHi) continue;
      if ((vLo & V_LO.LARGE) === 0 ? baseShift === 12 : baseShiftOf(vLo, table.rLo(slot)) === baseShift) return slot;
    }
    if (secondary !== 0) return NOT_FOUND;
    group = complemented(group, order);
  }
}

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
