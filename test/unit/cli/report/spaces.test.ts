import { describe, expect, it } from 'vitest';
import { decodeHtabStream, encodeHpte, Htab } from '../../../../lib/arch/ppc64/model/index.ts';
import { datFeatures, memoryOfBytes } from '../../../../lib/arch/s390x/model/index.ts';
import { lowHalf } from '../../../../lib/base/u64.ts';
import type { NodeData } from '../../../../lib/cli/report/data.ts';
import { hptOf, virtualPagesOf } from '../../../../lib/cli/report/of-ppc64.ts';
import { spaceOf } from '../../../../lib/cli/report/of-s390x.ts';
import { CAPTURES, captureDirectories, loadCapture } from '../../../captures/s390x.ts';
import { captureFile, readCapture, segmentsOf } from '../../arch/ppc64/model/capture.ts';

/** What lies below nodes, as va, bytes and physical address. */
function* leaves(nodes: readonly NodeData[]): Generator<readonly [va: bigint, size: bigint, pa: bigint]> {
  for (const { va, size, pa, nodes: below } of nodes) {
    if (below !== undefined) yield* leaves(below);
    else if (pa !== undefined) yield [BigInt(va), BigInt(size), BigInt(pa)];
  }
}

/** Those that continue each other, as one. */
function joined(all: Iterable<readonly [bigint, bigint, bigint]>): [bigint, bigint, bigint][] {
  const out: [bigint, bigint, bigint][] = [];
  for (const [va, size, pa] of all) {
    const last = out.at(-1);
    if (last !== undefined && last[0] + last[1] === va && last[2] + last[1] === pa) last[1] += size;
    else out.push([va, size, pa]);
  }
  return out;
}

const FEATURES = datFeatures(0xffff_ffff, { edat1: true, edat2: true, iep: true });

describe('an address space of s390x, level by level', () => {
  const captures = CAPTURES.flatMap((name) =>
    captureDirectories(name).map((directory) => [directory.split('/').slice(-2).join('/'), directory] as const),
  );
  it.each(captures)('is the one that was captured: %s', (_name, directory) => {
    const { json, storage, facilities } = loadCapture(directory);
    let compared = 0;
    for (const { space, asce } of json.asces) {
      const ranges = json.ranges[space];
      if (ranges === undefined) continue;
      compared++;
      const cpu = json.cpus.find(({ cr }) => cr.some((each) => BigInt(each) === BigInt(asce))) ?? json.cpus[0]!;
      const features = datFeatures(lowHalf(BigInt(cpu.cr[0]!)), facilities);
      const { nodes } = spaceOf(space, BigInt(asce), {
        memory: storage,
        features,
        prefix: 0n,
      });
      const wanted = ranges.map(({ va, len, abs }): [bigint, bigint, bigint] => [BigInt(va), BigInt(len), BigInt(abs)]);
      // The ranges were captured without prefixing.
      expect(joined(leaves(nodes))).toEqual(joined(wanted));
    }
    expect(compared).toBeGreaterThan(0);
  });

  it('says where a table cannot be read, and ends tables that lead to themselves', () => {
    const bytes = new Uint8Array(16384);
    const view = new DataView(bytes.buffer);
    // A region-first table each of whose entries designates itself.
    for (let at = 0; at < 16384; at += 8) view.setBigUint64(at, 0xfn);
    const tables = { memory: memoryOfBytes(bytes), features: FEATURES, prefix: 0n };
    const { cut } = spaceOf('endless', 0xfn, tables);
    expect(cut).toMatch(/more than 200000 valid entries/);
    const { nodes } = spaceOf('nowhere', 0x10_0000n, tables);
    expect(nodes).toEqual([{ va: '0x0', size: '0x100000', level: 'S', says: 'the table at 0x100000 cannot be read' }]);
    expect(spaceOf('real', 0x20n, tables)).toMatchObject({ nodes: [], cut: /nothing is translated/ });
  });
});

describe('the virtual pages of a hashed page table', () => {
  const capture = readCapture();
  const { oracle } = capture;
  const segments = segmentsOf(capture);
  const table = decodeHtabStream(captureFile('htab.stream.gz'));
  const space = virtualPagesOf(table, segments);
  const all = [...leaves(space.nodes)];

  it('are those that the captured guest had', () => {
    let [mapped, faults] = [0, 0];
    for (const { ea, result } of oracle) {
      const address = BigInt(ea);
      // Addresses of segments that no SLB entry has are shown as virtual ones.
      if (!segments.some((each) => each.covers(Number(address >> 32n), Number(address & 0xffff_ffffn)))) continue;
      const found = all.find(([va, size]) => address >= va && address < va + size);
      if (result.ra === undefined) {
        if (found === undefined) faults++;
        continue;
      }
      mapped++;
      expect(found === undefined ? undefined : found[2] + (address - found[0])).toBe(BigInt(result.ra));
    }
    expect(mapped).toBeGreaterThan(50);
    expect(faults).toBeGreaterThan(0);
  });

  it('are as many as its groups count', () => {
    const { cells, entries = [] } = hptOf(table);
    const valid = cells.reduce((sum, each) => sum + each, 0);
    expect(entries).toHaveLength(valid);
    expect(all).toHaveLength(valid);
  });

  it('are counted, not listed, where they are too many, in stretches that are whole groups', () => {
    const large = new Htab(26);
    const entry = encodeHpte({ segmentSize: '256M', vsid: 1, offset: 0, ra: 0 });
    for (let slot = 0; slot < 320_000; slot++) large.set(slot, entry);
    const { step, cells, entries } = hptOf(large);
    expect(entries).toBeUndefined();
    expect(step * cells.length).toBe(large.groupCount);
    expect(cells.reduce((sum, each) => sum + each, 0)).toBe(320_000);
    // An entry that stands where no hash leads is no virtual page.
    expect(virtualPagesOf(large, []).cut).toMatch(/entries stand where nothing finds them/);
  });
});
