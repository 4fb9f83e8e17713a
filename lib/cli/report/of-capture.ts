import { segment } from '../../arch/ppc64/model/index.ts';
import { datFeatures, memoryOfFrames } from '../../arch/s390x/model/index.ts';
import { humanSize } from '../../base/text.ts';
import { lowHalf } from '../../base/u64.ts';
import type { Capture } from '../capture.ts';
import type { MemoryData, ReportData, SpaceData } from './data.ts';
import { layer, type PageRun } from './layers.ts';
import { hptOf, hptTable, virtualPagesOf } from './of-ppc64.ts';
import { spaceOf } from './of-s390x.ts';

const PAGE = 4096;

/** A stopped guest: its memory, keys or table, and address spaces. */
export function reportOfCapture(capture: Capture, name: string): ReportData {
  const { arch, json, pages, htab } = capture;
  const about = [
    `A captured ${arch} guest${json.kernel === undefined ? '' : `: ${json.kernel}`}`,
    `${pages.size} of its pages were kept (${humanSize(pages.size * PAGE)})`,
  ];
  const common = { title: name, about, pageSize: PAGE, memory: memoryOf(capture) };
  if (htab === undefined) return { ...common, spaces: spacesOf(capture), tables: [] };
  const segments = (json.slb ?? []).map(({ esid, vsid }) => segment(BigInt(esid), BigInt(vsid)));
  return { ...common, hpt: hptOf(htab), spaces: [virtualPagesOf(htab, segments)], tables: [hptTable(htab)] };
}

function memoryOf({ memory: end, pages, keys }: Capture): MemoryData {
  const kept = [...pages.keys()].sort((a, b) => a - b);
  const layers = [
    layer(
      'kept pages',
      'count',
      kept.map((address): PageRun => [address / PAGE, 1, 1]),
    ),
  ];
  if (keys !== undefined) layers.push(layer('storage keys', 'key', keyRuns(keys)));
  return { end, regions: [{ gpa: 0, size: end, name: 'captured RAM' }], layers };
}

function* keyRuns(keys: Uint8Array): Generator<PageRun> {
  for (let first = 0; first < keys.length; ) {
    let end = first + 1;
    while (end < keys.length && keys[end] === keys[first]) end++;
    yield [first, end - first, keys[first]!];
    first = end;
  }
}

const SPACES = [
  ['primary', 1],
  ['secondary', 7],
  ['home', 13],
] as const;

/** The address spaces of each CPU's control registers, each ASCE once. */
function spacesOf({ json, pages }: Capture): SpaceData[] {
  // A page that was not kept is there, but what it held is not known.
  const memory = memoryOfFrames((pfn) => pages.get(pfn * PAGE) ?? null);
  const seen = new Set<bigint>();
  const spaces: SpaceData[] = [];
  for (const [cpu, { cr, prefix }] of (json.cpus ?? []).entries()) {
    const facilities = { edat1: json.edat1 === true, edat2: json.edat2 === true, iep: true };
    const features = datFeatures(lowHalf(BigInt(cr[0] ?? 0)), facilities);
    for (const [name, register] of SPACES) {
      const asce = BigInt(cr[register] ?? 0);
      if (seen.has(asce)) continue;
      seen.add(asce);
      const title = `CPU ${cpu}, ${name} space (CR${register})`;
      spaces.push(spaceOf(title, asce, { memory, features, prefix: BigInt(prefix) }));
    }
  }
  return spaces;
}
