import { createHash } from 'node:crypto';
import { beforeAll, describe, expect, it } from 'vitest';
import {
  applyHtabStream,
  checkHtabStream,
  decodeHtabStream,
  diffHtabs,
  encodeHtabChanges,
  encodeHtabStream,
  explainTranslation,
  type Htab,
  htabStats,
  protectionContext,
  sameSlot,
  translate,
  verifyHtab,
  virtualPage,
} from '../../../../../lib/arch/ppc64/model/index.ts';
import { captureFile, readCapture, readPages, type Snapshot, segmentsOf } from './capture.ts';

const capture = readCapture();
const stream = captureFile('htab.stream.gz');
const delta = captureFile('htab2.delta.stream.gz');

const table1 = decodeHtabStream(stream);
const table2 = decodeHtabStream(stream);
applyHtabStream(table2, delta);

const byNumber = (record: Readonly<Record<string, number>>): Map<number, number> =>
  new Map(Object.entries(record).map(([key, count]) => [Number(key), count]));

describe('streams of a real guest', () => {
  it('fill the whole table and nothing else', () => {
    expect(table1.order).toBe(capture.htab_shift);
    // From the capture's README and counts: slots 0 to 2^18 - 1 with no gap.
    expect(checkHtabStream(stream)).toEqual({
      chunks: 28344,
      valid: 201953,
      invalid: 262144 - 201953,
      extent: 262144,
      gapless: true,
    });
  });

  it('come back byte for byte', () => {
    expect(Buffer.compare(encodeHtabStream(table1), stream)).toBe(0);
  });

  it('give the second table when the later pass is applied', () => {
    const sha256 = createHash('sha256').update(encodeHtabStream(table2)).digest('hex');
    expect(sha256).toBe(Buffer.from(captureFile('htab2.stream.sha256')).toString().split(' ')[0]);
  });

  it('can be made again from the difference of the tables', () => {
    const again = decodeHtabStream(stream);
    const changes = encodeHtabChanges(table1, table2);
    expect(changes.byteLength).toBeLessThanOrEqual(delta.byteLength);
    applyHtabStream(again, changes);
    expect(Buffer.compare(encodeHtabStream(again), encodeHtabStream(table2))).toBe(0);
    // capture.json, "delta": slots whose content differs.
    expect([...diffHtabs(table1, table2)]).toHaveLength(39510);
  });
});

const snapshots: readonly [string, Snapshot, Htab, string][] = [
  ['snapshot 1', capture, table1, 'pages.bin.gz'],
  ['snapshot 2', capture.snapshot2, table2, 'pages2.bin.gz'],
];

describe.each(snapshots)('%s', (_name, snapshot, table, pagesFile) => {
  const slb = segmentsOf(snapshot);
  let pages: Map<bigint, Uint8Array>;
  beforeAll(() => {
    pages = readPages(pagesFile);
  });

  it('has the counts that were taken independently', () => {
    const stats = htabStats(table);
    const { counts } = snapshot;
    expect(stats).toMatchObject({
      slots: counts.slots,
      groups: counts.groups,
      valid: counts.valid,
      bolted: counts.bolted,
      secondary: counts.secondary,
      segments1T: counts.seg_1T,
      segments256M: counts.seg_256M,
      referenced: counts.R,
      changed: counts.C,
      noExecute: counts.noexec,
    });
    expect(stats.occupancy[8]).toBe(counts.full_groups);
    expect(stats.occupancy.reduce((sum, groups, inGroup) => sum + groups * inGroup, 0)).toBe(counts.valid);
    expect(stats.keys).toEqual(byNumber(counts.keys));
    expect(stats.pp).toEqual(byNumber(counts.pp));
    expect(stats.wimg).toEqual(byNumber(counts.wimg));
    expect(stats.pageSizes).toEqual(
      new Map([
        ['4K', counts.page_sizes['4K']],
        ['16M', counts.page_sizes['16M(base 16M)']],
      ]),
    );
  });

  it('decodes the SLB', () => {
    snapshot.slb.forEach(({ decoded }, i) => {
      expect(slb[i]).toMatchObject({
        vsid: BigInt(decoded.vsid),
        segmentSize: decoded.segment_size,
        baseShift: decoded.base_page_shift,
        ks: decoded.ks === 1,
        kp: decoded.kp === 1,
        noExecute: decoded.n === 1,
        valid: true,
      });
    });
  });

  it('translates every address as QEMU did, and finds the bytes there', () => {
    let checkedBytes = 0;
    for (const { ea, result, bytes, model } of snapshot.oracle) {
      const found = translate(table, slb, BigInt(ea));
      expect(found.ok ? { ra: found.ra } : { fault: true }, ea).toEqual(
        result.ra === undefined ? { fault: true } : { ra: BigInt(result.ra) },
      );
      if (found.ok) expect([found.slot, found.entry.shift], ea).toEqual([model.slot, model.page_shift]);
      if (bytes === undefined) continue;
      for (const [i, byte] of Buffer.from(bytes, 'hex').entries()) {
        const at = translate(table, slb, BigInt(ea) + BigInt(i));
        if (!at.ok) throw new Error(`${ea} + ${i} has bytes but no translation`);
        expect(pages.get(at.ra & ~0xfffn)?.[Number(at.ra & 0xfffn)], `${ea} + ${i}`).toBe(byte);
      }
      checkedBytes++;
    }
    expect(checkedBytes).toBeGreaterThan(100);
  });

  it.each(snapshot.contexts.filter(({ name }) => name in snapshot.oracle_protection))(
    'protects as QEMU did: $name',
    ({ name, amr, iamr, pr }) => {
      const context = protectionContext({ problemState: pr === 1, amr: BigInt(amr), iamr: BigInt(iamr) });
      const answers = { ra: 0, fault: 0 };
      for (const { ea, result } of snapshot.oracle_protection[name]!) {
        const load = translate(table, slb, BigInt(ea), { context });
        const either = load.ok ? load : translate(table, slb, BigInt(ea), { context, access: 'fetch' });
        expect(either.ok ? { ra: either.ra } : { fault: true }, ea).toEqual(
          result.ra === undefined ? { fault: true } : { ra: BigInt(result.ra) },
        );
        answers[either.ok ? 'ra' : 'fault']++;
      }
      expect(answers.ra + answers.fault).toBe(snapshot.oracle_protection[name]!.length);
    },
  );

  it('explains every address with the same answer, the match being the last slot it looked at', () => {
    for (const { ea, model } of snapshot.oracle) {
      const { result, steps } = explainTranslation(table, slb, BigInt(ea));
      expect(result).toEqual(translate(table, slb, BigInt(ea)));
      const probes = steps.filter((step) => step.step === 'probe');
      expect(probes.filter(({ verdict }) => verdict === 'match').map(({ slot }) => slot)).toEqual(
        model.slot === undefined ? [] : [model.slot],
      );
      if (model.why === 'ok') expect(probes.at(-1)?.slot).toBe(model.slot);
    }
  });

  it('has every entry where its own hash leads', () => {
    expect([...verifyHtab(table)]).toEqual([]);
  });

  it('gives back the virtual page of each oracle entry from its slot alone', () => {
    for (const { ea, model } of snapshot.oracle) {
      if (model.slot === undefined) continue;
      const found = translate(table, slb, BigInt(ea));
      const page = virtualPage(table.get(model.slot), model.slot, table.order);
      const { segment } = found;
      expect(page?.vsid, ea).toBe(segment?.vsid);
      const inSegment = BigInt(ea) & (segment?.segmentSize === '1T' ? 0xff_ffff_ffffn : 0xfff_ffffn);
      const shift = BigInt(model.page_shift ?? 12);
      expect(BigInt(page?.offset ?? -1), ea).toBe((inSegment >> shift) << shift);
    }
  });
});

it('tells equal empty slots by their validity alone', () => {
  const a = decodeHtabStream(stream);
  const empty = Array.from({ length: a.entryCount }, (_, slot) => slot).find((slot) => !a.isValid(slot))!;
  a.setR(empty, 1, 2);
  expect(sameSlot(a, table1, empty)).toBe(true);
});
