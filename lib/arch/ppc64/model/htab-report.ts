/** What a table holds, how two tables differ, and whether every entry of one can be found: for tools over streams. */

import { checkInstance, checkInteger } from '../../../base/arguments.ts';
import { complemented, virtualPage } from './hash.ts';
import { HPTES_PER_GROUP, type Hpte, keyOf, ppOf, R_LO, V_HI, V_LO } from './hpte.ts';
import { checkSameOrder, Htab } from './htab.ts';
import { isSameSlot } from './htab-stream.ts';
import { baseShiftOf, pageSizeName, shiftOf } from './page-sizes.ts';

/** Counts of a table; the maps are by decoded value. All but `groups` and `slots` count valid entries or groups. */
export interface HtabStats {
  readonly slots: number;
  readonly groups: number;
  readonly valid: number;
  readonly bolted: number;
  readonly secondary: number;
  readonly segments256M: number;
  readonly segments1T: number;
  readonly referenced: number;
  readonly changed: number;
  readonly noExecute: number;
  /** How many groups have 0, 1, … 8 valid entries. */
  readonly occupancy: readonly number[];
  /** `4K`, or `16M in 64K` where the page is larger than the segment's; `invalid` for encodings that don't exist. */
  readonly pageSizes: ReadonlyMap<string, number>;
  readonly keys: ReadonlyMap<number, number>;
  readonly pp: ReadonlyMap<number, number>;
  readonly wimg: ReadonlyMap<number, number>;
}

/** `4K`, `16M`, or `16M in 64K`, from the low halves of an entry; `invalid` where the encoding doesn't exist. */
function pageSizesName(shifts: number): string {
  const shift = shifts >> 8;
  const base = shifts & 0xff;
  if (base === 0) return 'invalid';
  return shift === base ? pageSizeName(shift) : `${pageSizeName(shift)} in ${pageSizeName(base)}`;
}

/** The non-zero counts by index, named. */
function counted<K>(counts: Uint32Array | Float64Array, name: (index: number) => K): ReadonlyMap<K, number> {
  const map = new Map<K, number>();
  counts.forEach((count, index) => {
    if (count > 0) map.set(name(index), count);
  });
  return map;
}

/** Counts what a table holds. */
export function htabStats(table: Htab): HtabStats {
  checkInstance(table, 'table', Htab);
  const occupancy = new Array<number>(HPTES_PER_GROUP + 1).fill(0);
  const shifts = new Float64Array(0x2300);
  const keys = new Float64Array(32);
  const pps = new Float64Array(8);
  const wimgs = new Float64Array(16);
  const sum = {
    valid: 0,
    bolted: 0,
    secondary: 0,
    segments256M: 0,
    segments1T: 0,
    referenced: 0,
    changed: 0,
    noExecute: 0,
  };
  for (let group = 0; group < table.groupCount; group++) {
    let inGroup = 0;
    for (let slot = group * HPTES_PER_GROUP; slot < (group + 1) * HPTES_PER_GROUP; slot++) {
      const vLo = table.vLo(slot);
      if ((vLo & V_LO.VALID) === 0) continue;
      const vHi = table.vHi(slot);
      const rHi = table.rHi(slot);
      const rLo = table.rLo(slot);
      inGroup++;
      if (vLo & V_LO.BOLTED) sum.bolted++;
      if (vLo & V_LO.SECONDARY) sum.secondary++;
      if ((vHi & V_HI.B) === 0) sum.segments256M++;
      else if ((vHi & V_HI.B_RESERVED) === 0) sum.segments1T++;
      if (rLo & R_LO.R) sum.referenced++;
      if (rLo & R_LO.C) sum.changed++;
      if (rLo & R_LO.N) sum.noExecute++;
      shifts[(shiftOf(vLo, rLo) << 8) | baseShiftOf(vLo, rLo)]!++;
      keys[keyOf(rHi, rLo)]!++;
      pps[ppOf(rHi, rLo)]!++;
      wimgs[(rLo & R_LO.WIMG) >>> 3]!++;
    }
    sum.valid += inGroup;
    occupancy[inGroup]!++;
  }
  return {
    slots: table.entryCount,
    groups: table.groupCount,
    ...sum,
    occupancy,
    pageSizes: counted(shifts, pageSizesName),
    keys: counted(keys, Number),
    pp: counted(pps, Number),
    wimg: counted(wimgs, Number),
  };
}

/** Valid entries per group, averaged over `cells` equal stretches of the table: 0 to 8 each, for a picture. */
export function groupOccupancy(table: Htab, cells: number): Float64Array {
  checkInstance(table, 'table', Htab);
  checkInteger(cells, 'cells', 1, Number.MAX_SAFE_INTEGER);
  const picture = new Float64Array(Math.min(cells, table.groupCount));
  for (let cell = 0; cell < picture.length; cell++) {
    const from = Math.floor((cell * table.groupCount) / picture.length);
    const to = Math.floor(((cell + 1) * table.groupCount) / picture.length);
    let valid = 0;
    for (let slot = from * HPTES_PER_GROUP; slot < to * HPTES_PER_GROUP; slot++) if (table.isValid(slot)) valid++;
    picture[cell] = valid / (to - from);
  }
  return picture;
}

/** A slot in which two tables differ. `undefined` is an empty slot. */
export interface HtabDifference {
  readonly slot: number;
  readonly before: Hpte | undefined;
  readonly after: Hpte | undefined;
}

/**
 * The slots in which two tables of the same order differ, in order.
 * @throws RangeError for tables of different orders.
 */
export function diffHtabs(before: Htab, after: Htab): Generator<HtabDifference, void, undefined> {
  checkSameOrder(before, after);
  return differences(before, after);
}

function* differences(before: Htab, after: Htab): Generator<HtabDifference, void, undefined> {
  for (let slot = 0; slot < after.entryCount; slot++) {
    if (isSameSlot(before, after, slot)) continue;
    yield {
      slot,
      before: before.isValid(slot) ? before.get(slot) : undefined,
      after: after.isValid(slot) ? after.get(slot) : undefined,
    };
  }
}

/** Something wrong with an entry: see {@link verifyHtab}. */
export interface HtabFinding {
  readonly slot: number;
  readonly entry: Hpte;
  readonly problem: 'segment-size' | 'page-size' | 'unreachable' | 'duplicate';
  readonly message: string;
}

/**
 * Checks every valid entry of a table: that its segment and page sizes exist, that it stands in a group its own hash
 * can lead to (as far as the virtual address in V tells), and that no entry before it maps the same virtual page.
 */
export function verifyHtab(table: Htab): Generator<HtabFinding, void, undefined> {
  return findings(checkInstance(table, 'table', Htab));
}

function* findings(table: Htab): Generator<HtabFinding, void, undefined> {
  for (let slot = 0; slot < table.entryCount; slot++) {
    const found = findingAt(table, slot);
    if (found !== undefined) yield found;
  }
}

/** What is wrong with one slot's entry, if anything is. */
export function findingAt(table: Htab, slot: number): HtabFinding | undefined {
  if (!table.isValid(slot)) return undefined;
  const entry = table.get(slot);
  const found = judge(table, slot, entry);
  return found === undefined ? undefined : { slot, entry, ...found };
}

function judge(table: Htab, slot: number, entry: Hpte): Pick<HtabFinding, 'problem' | 'message'> | undefined {
  if (entry.segmentSize === 'reserved') return { problem: 'segment-size', message: 'B = 1x is reserved' };
  const page = virtualPage(entry, slot, table.order);
  if (page === undefined) {
    return { problem: 'page-size', message: `LP 0x${((entry.rLo >>> 12) & 0xff).toString(16)} is no page size` };
  }
  const group = Math.floor(slot / HPTES_PER_GROUP);
  if (!page.reachable) {
    return { problem: 'unreachable', message: `the hash of its virtual page does not lead to group ${group}` };
  }
  const twin = findTwin(table, slot, entry);
  return twin === undefined ? undefined : { problem: 'duplicate', message: `slot ${twin} maps the same virtual page` };
}

/** A valid entry in a slot before this one for the same virtual page: it can only be in one of two groups. */
function findTwin(table: Htab, slot: number, entry: Hpte): number | undefined {
  const group = Math.floor(slot / HPTES_PER_GROUP);
  for (const candidate of [group, complemented(group, table.order)]) {
    const flipped = candidate === group ? 0 : V_LO.SECONDARY;
    const last = Math.min(slot, (candidate + 1) * HPTES_PER_GROUP);
    for (let other = candidate * HPTES_PER_GROUP; other < last; other++) {
      if (!table.isValid(other) || table.vHi(other) !== entry.vHi) continue;
      const difference = (table.vLo(other) ^ entry.vLo ^ flipped) & (V_LO.AVPN | V_LO.SECONDARY);
      if (difference === 0 && baseShiftOf(table.vLo(other), table.rLo(other)) === entry.baseShift) return other;
    }
  }
  return undefined;
}
