import { checkCallback, checkHalf, checkInstance, checkMethods } from '../../../base/arguments.ts';
import { checkOrder, complemented, groupOfPage, type HpteWords } from './hash.ts';
import { HPTE_SIZE, HPTES_PER_GROUP, Hpte, V_LO } from './hpte.ts';
import { Htab } from './htab.ts';
import { baseShiftOf } from './page-sizes.ts';
import { Segment } from './slb.ts';

/** Result of {@link findHpte} when no entry matches. */
export const NOT_FOUND = -1;

// The engine knows the values of constants that are the module's own; those of other modules it loads and checks each time.
const GROUP = HPTES_PER_GROUP;
const SIZE = HPTE_SIZE;
const { AVPN, LARGE, SECONDARY } = V_LO;

/** Whether a table is bytes, which can be read without a call for each word; one of a user's own kind may be anything. */
const isBytes = (table: HpteWords): table is Htab => table.constructor === Htab;

const isObject = (value: unknown): boolean => typeof value === 'object' && value !== null;

/** Checks a table, which may be of a user's own kind. */
export function checkTable(table: HpteWords, name = 'table'): HpteWords {
  if (isObject(table) && isBytes(table)) return table;
  checkMethods(table, name, ['vHi', 'vLo', 'rHi', 'rLo']);
  checkOrder(table.order, `${name}.order`);
  return table;
}

/** The entry in a slot that is there. */
export function entryAt(table: HpteWords, slot: number): Hpte {
  if (!isBytes(table)) return new Hpte(table.vHi(slot), table.vLo(slot), table.rHi(slot), table.rLo(slot));
  const { view } = table;
  const at = slot * SIZE;
  // Signed: unsigned halves of 2^31 and more would be objects when they are handed over.
  return new Hpte(view.getInt32(at), view.getInt32(at + 4), view.getInt32(at + 8), view.getInt32(at + 12));
}

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
  // In a function for all classes the engine doesn't know which: there `instanceof` is a call.
  if (!(segment instanceof Segment)) checkInstance(segment, 'segment', Segment);
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
  const large = baseShift === 12 ? 0 : LARGE;
  const mask = AVPN | SECONDARY | large;
  // Halves are compared as signed numbers, which the engine keeps in registers.
  const avpnHi = segment.avpnHi | 0;
  const view = isBytes(table) ? table.view : undefined;
  const { order } = table;

  let group = groupOfPage(segment, page, order);
  for (let secondary = 0; ; secondary = SECONDARY) {
    const want = wantLo | large | secondary;
    const first = group * GROUP;
    for (let slot = first; slot < first + GROUP; slot++) {
      if (probe !== undefined) probe(slot);
      const vLo = view === undefined ? table.vLo(slot) | 0 : view.getInt32(slot * SIZE + 4);
      if ((vLo & mask) !== want || (vLo & present) === 0) continue;
      if ((view === undefined ? table.vHi(slot) | 0 : view.getInt32(slot * SIZE)) !== avpnHi) continue;
      // L is set where the segment's pages are large; where they are 4 KiB, only in a larger page's entry.
      if ((vLo & LARGE) === 0 || baseShiftOf(V_LO.LARGE, table.rLo(slot)) === baseShift) return slot;
    }
    if (secondary !== 0) return NOT_FOUND;
    group = complemented(group, order);
  }
}
