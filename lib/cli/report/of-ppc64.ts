import {
  HPTES_PER_GROUP,
  type Hpte,
  type Htab,
  htabStats,
  type Segment,
  type VirtualPage,
  virtualPage,
} from '../../arch/ppc64/model/index.ts';
import { hex } from '../../base/errors.ts';
import { counted } from '../../base/text.ts';
import { namedCounts } from '../hpt/reports.ts';
import type { HptData, NodeData, SpaceData, TableData } from './data.ts';

/** So many cells and entries are looked at one by one; of more there are sums. */
const MOST_CELLS = 0x4_0000;
const MOST_ENTRIES = 300_000;

/** How full each group is, and what its entries say. */
export function hptOf(table: Htab): HptData {
  const step = Math.max(1, table.groupCount / MOST_CELLS);
  const cells = new Array<number>(table.groupCount / step).fill(0);
  const entries: [number, string][] = [];
  for (let slot = 0; slot < table.entryCount; slot++) {
    if (!table.isValid(slot)) continue;
    cells[Math.floor(slot / HPTES_PER_GROUP / step)]!++;
    if (entries.length <= MOST_ENTRIES) entries.push([slot, String(table.get(slot))]);
  }
  return { order: table.order, step, cells, ...(entries.length > MOST_ENTRIES ? {} : { entries }) };
}

/** The counts that `kvm-bridge hpt stats` gives. */
export const hptTable = (table: Htab): TableData => ({
  name: 'Entries of the hashed page table',
  head: ['what', 'entries'],
  rows: namedCounts(htabStats(table)),
});

interface Found extends VirtualPage {
  readonly slot: number;
  readonly entry: Hpte;
}

/** The virtual pages of a table by segment, with the effective address of those segments that are known. */
export function virtualPagesOf(table: Htab, segments: readonly Segment[]): SpaceData {
  const found: Found[] = [];
  let lost = 0;
  for (let slot = 0; slot < table.entryCount && found.length < MOST_ENTRIES; slot++) {
    if (!table.isValid(slot)) continue;
    const entry = table.get(slot);
    const page = virtualPage(entry, slot, table.order);
    if (page === undefined || !page.reachable) lost++;
    else found.push({ ...page, slot, entry });
  }
  const bySegment = groupBy(found, ({ segmentSize, vsid }) => `${segmentSize} ${vsid}`);
  const nodes = [...bySegment.values()].map((pages) => segmentNode(pages, segments));
  const cut = [
    ...(found.length < MOST_ENTRIES ? [] : [`The table has more than ${MOST_ENTRIES} entries; these are the first.`]),
    ...(lost === 0
      ? []
      : [`${counted(lost, 'entry stands', 'entries stand')} where nothing finds ${lost === 1 ? 'it' : 'them'}.`]),
  ].join(' ');
  return {
    name: 'Virtual pages by segment',
    nodes: nodes.sort((a, b) => (BigInt(a.va) < BigInt(b.va) ? -1 : 1)),
    ...(cut === '' ? {} : { cut }),
  };
}

function segmentNode(pages: Found[], segments: readonly Segment[]): NodeData {
  const [{ vsid, segmentSize }] = pages as [Found];
  const size = segmentSize === '1T' ? 1n << 40n : 1n << 28n;
  const known = segments.find((each) => each.valid && each.vsid === vsid && each.segmentSize === segmentSize);
  // Without an SLB entry its place among effective addresses isn't known: the virtual address stands for it.
  const from = known?.ea ?? vsid * size;
  pages.sort((a, b) => a.offset - b.offset);
  return {
    va: hex(from),
    size: hex(size),
    level: known === undefined ? 'segment, virtual address' : 'segment',
    says: known === undefined ? `${segmentSize} vsid ${hex(vsid)}, in no SLB entry` : String(known),
    nodes: stretches(pages.map((page) => pageNode(from, page))),
  };
}

const pageNode = (segment: bigint, { entry, slot, offset }: Found): NodeData => ({
  va: hex(segment + BigInt(offset)),
  size: hex(1n << BigInt(entry.shift)),
  level: 'HPTE',
  says: `slot ${slot}, group ${Math.floor(slot / HPTES_PER_GROUP)}${entry.secondary ? ' (secondary)' : ''}`,
  pa: Number(entry.ra),
  slot,
});

/** Bits of an address within a stretch, a level of our own for segments with many pages. */
const STRETCH = 24n;
const MANY = 256;

function stretches(pages: NodeData[]): NodeData[] {
  if (pages.length <= MANY) return pages;
  const byStretch = groupBy(pages, ({ va }) => BigInt(va) >> STRETCH);
  return [...byStretch].map(([stretch, nodes]) => {
    const from = stretch << STRETCH;
    // The last page may be larger than a stretch.
    const last = nodes.at(-1)!;
    const end = BigInt(last.va) + BigInt(last.size) - from;
    const size = end > 1n << STRETCH ? end : 1n << STRETCH;
    return { va: hex(from), size: hex(size), level: 'stretch', says: counted(nodes.length, 'entry', 'entries'), nodes };
  });
}

function groupBy<T, K>(all: Iterable<T>, key: (each: T) => K): Map<K, T[]> {
  const groups = new Map<K, T[]>();
  for (const each of all) {
    const group = groups.get(key(each));
    if (group === undefined) groups.set(key(each), [each]);
    else group.push(each);
  }
  return groups;
}
