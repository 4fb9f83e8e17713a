import { describe, expect, it } from 'vitest';
import {
  encodeHpte,
  encodeSegment,
  entriesOf,
  findHpte,
  groupsOf,
  type Hpte,
  type HpteFields,
  type HpteWords,
  Htab,
  hpte,
  NOT_FOUND,
  otherGroup,
  primaryGroup,
  segment,
  segmentOffset,
  V_HI,
  V_LO,
  verifyHtab,
  virtualPage,
  vrmaSegment,
} from '../../../../../lib/arch/ppc64/model/index.ts';

/** The group by the definition, in bigint, for comparison. */
function groupByDefinition(vsid: bigint, offset: bigint, is1T: boolean, shift: number, order: number): bigint {
  const hash = is1T ? vsid ^ (vsid << 25n) ^ (offset >> BigInt(shift)) : vsid ^ (offset >> BigInt(shift));
  return hash & ((1n << BigInt(order - 7)) - 1n);
}

describe('hash', () => {
  it('takes VSID << 25 into 1 TiB segments, which tables of 2^33 bytes and more feel', () => {
    const vsid = 0x2b_4d6f_1a53n;
    const seg = encodeSegment({ ea: 0, vsid, segmentSize: '1T' });
    const offset = 0x9a_1234_5678n;
    for (const order of [18, 32, 33, 39, 40, 46]) {
      const group = primaryGroup(seg, Number(offset), order);
      expect(BigInt(group), `order ${order}`).toBe(groupByDefinition(vsid, offset, true, 12, order));
    }
    const without = (order: number): bigint => (vsid ^ (offset >> 12n)) & ((1n << BigInt(order - 7)) - 1n);
    expect(BigInt(primaryGroup(seg, Number(offset), 32))).toBe(without(32));
    expect(BigInt(primaryGroup(seg, Number(offset), 33))).not.toBe(without(33));
  });

  it('does not take it into 256 MiB segments', () => {
    const vsid = 0x1_2345_6789_abcdn;
    const seg = encodeSegment({ ea: 0, vsid, segmentSize: '256M', baseShift: 16 });
    for (const order of [18, 40, 46]) {
      const group = primaryGroup(seg, 0xabc_d000, order);
      expect(BigInt(group)).toBe(groupByDefinition(vsid, 0xabc_d000n, false, 16, order));
    }
  });

  it('complements the group for the secondary search', () => {
    expect(otherGroup(0, 18)).toBe(2047);
    expect(otherGroup(2047, 18)).toBe(0);
    expect(otherGroup(0x12_3456_789a, 46)).toBe(2 ** 39 - 1 - 0x12_3456_789a);
  });

  it('puts the VRMA entries where the kernel of the lab expects them', () => {
    // From the lab: V = 0x4001ffffff000011 | AVPN, group = ((ea >> 12) ^ vsid ^ (vsid << 25)) & mask, vsid 0x1ffffff.
    const vsid = 0x1ff_ffffn;
    for (const ea of [0x1000n, 0x5000n, 0x4000_0000n]) {
      const group = ((ea >> 12n) ^ vsid ^ (vsid << 25n)) & 0x7ffn;
      expect(primaryGroup(vrmaSegment(), Number(ea), 18)).toBe(Number(group));
      const entry = encodeHpte({ vsid, segmentSize: '1T', offset: ea, ra: ea, bolted: true });
      expect(entry.v).toBe(0x4001_ffff_ff00_0011n | ((ea >> 16n) & ~0x7fn));
      const table = new Htab(18);
      table.set(Number(group) * 8 + 3, entry);
      expect(findHpte(table, vrmaSegment(), 0, Number(ea))).toBe(Number(group) * 8 + 3);
    }
  });
});

describe('search', () => {
  const order = 18;
  const page = { vsid: 0x123_4567, segmentSize: '1T', offset: 0x45_6789_a000, ra: 0x1_2000 } as const;
  const seg = encodeSegment({ ea: 0, vsid: page.vsid, segmentSize: '1T' });
  const [eaHi, eaLo] = [0x45, 0x6789_a123];
  const primary = primaryGroup(seg, segmentOffset('1T', eaHi, eaLo), order);
  const secondary = otherGroup(primary, order);

  /** A table with one entry, its V changed as given. */
  function tableWith(group: number, fields: Partial<HpteFields>, change: (v: bigint) => bigint = (v) => v): Htab {
    const table = new Htab(order);
    const entry = encodeHpte({ ...page, ...fields });
    table.set(group * 8 + 5, hpte(change(entry.v), entry.r));
    return table;
  }
  const find = (table: Htab): number => findHpte(table, seg, eaHi, eaLo);

  it('finds the entry in its primary group', () => {
    expect(find(tableWith(primary, {}))).toBe(primary * 8 + 5);
  });

  it('finds it in its secondary group with H', () => {
    expect(find(tableWith(secondary, { secondary: true }))).toBe(secondary * 8 + 5);
  });

  it('compares H: an entry in the wrong kind of group is not there', () => {
    expect(find(tableWith(primary, { secondary: true }))).toBe(NOT_FOUND);
    expect(find(tableWith(secondary, {}))).toBe(NOT_FOUND);
  });

  it('compares B: the same AVPN in a segment of the other size is another page', () => {
    expect(find(tableWith(primary, {}, (v) => v & ~(BigInt(V_HI.B) << 32n)))).toBe(NOT_FOUND);
    expect(find(tableWith(primary, {}, (v) => v | (1n << 63n)))).toBe(NOT_FOUND);
  });

  it('wants VALID, or whatever the caller calls present', () => {
    const absent = tableWith(primary, {}, (v) => (v & ~1n) | BigInt(V_LO.ABSENT));
    expect(find(absent)).toBe(NOT_FOUND);
    expect(findHpte(absent, seg, eaHi, eaLo, V_LO.VALID | V_LO.ABSENT)).toBe(primary * 8 + 5);
  });

  it('ignores the software bits', () => {
    expect(find(tableWith(primary, {}, (v) => v | 0x58n))).toBe(primary * 8 + 5);
  });

  it('compares the virtual page down to bit 23', () => {
    expect(find(tableWith(primary, { offset: page.offset + 2 ** 23 }))).toBe(NOT_FOUND);
  });

  it('skips an entry of another base page size', () => {
    // L with LP 1 is a 64 KiB page of a 64 KiB segment: no match for 4 KiB, though V alone agrees.
    const table = tableWith(primary, { baseShift: 16, shift: 16, ra: 0x1_0000, offset: page.offset });
    expect(find(table)).toBe(NOT_FOUND);
    // A 64 KiB page mapped in the 4 KiB segment (LP 7) does match.
    expect(find(tableWith(primary, { shift: 16, ra: 0x1_0000 }))).toBe(primary * 8 + 5);
  });

  it('takes the first of two, primary before secondary, low slots before high', () => {
    const table = tableWith(secondary, { secondary: true });
    table.set(primary * 8 + 7, encodeHpte(page));
    expect(find(table)).toBe(primary * 8 + 7);
    table.set(primary * 8 + 2, encodeHpte(page));
    expect(find(table)).toBe(primary * 8 + 2);
  });

  it('clears the virtual page below a large page size before comparing', () => {
    const large = encodeSegment({ ea: 0, vsid: 77, segmentSize: '256M', baseShift: 24 });
    const table = new Htab(order);
    const group = primaryGroup(large, 0x300_0000, order);
    table.set(
      group * 8,
      encodeHpte({ vsid: 77, segmentSize: '256M', offset: 0x300_0000, ra: 0x100_0000, baseShift: 24 }),
    );
    // Bit 23 of the address lies inside the page.
    expect(findHpte(table, large, 0, 0x380_1234)).toBe(group * 8);
    expect(findHpte(table, large, 0, 0x200_0000)).toBe(NOT_FOUND);
  });

  it('probes eight slots, then eight more', () => {
    const probed: number[] = [];
    findHpte(new Htab(order), seg, eaHi, eaLo, V_LO.VALID, (slot) => probed.push(slot));
    const slots = (group: number): number[] => Array.from({ length: 8 }, (_, i) => group * 8 + i);
    expect(probed).toEqual([...slots(primary), ...slots(secondary)]);
  });

  it('finds nothing in a segment with a page size that does not exist', () => {
    const none = segment(seg.esidWord, seg.vsidWord | 0x30n);
    expect(findHpte(tableWith(primary, {}), none, eaHi, eaLo)).toBe(NOT_FOUND);
    // Nor do two that don't exist match: L, and LP 2, which is none, in every slot.
    const { vHi, vLo } = encodeHpte({ ...page, offset: 0 });
    const everywhere = { order, vHi: () => vHi, vLo: () => vLo | V_LO.LARGE, rHi: () => 0, rLo: () => 0x2000 };
    expect(findHpte(everywhere, none, 0, 0)).toBe(NOT_FOUND);
  });
});

/** A table of any order that has one entry. */
function single(order: number, at: number, entry: Hpte): HpteWords {
  const word = (half: 'vHi' | 'vLo' | 'rHi' | 'rLo') => (slot: number) => (slot === at ? entry[half] : 0);
  return { order, vHi: word('vHi'), vLo: word('vLo'), rHi: word('rHi'), rLo: word('rLo') };
}

describe.each([12, 16, 24, 34])('a page of 2^%i bytes', (baseShift) => {
  const cases = [18, 31, 32, 38, 39, 40, 46].flatMap((order) =>
    (['256M', '1T'] as const).map((segmentSize) => [order, segmentSize] as const),
  );

  it.each(cases.filter(([, size]) => baseShift <= 28 || size === '1T'))(
    'is found where it was put, in a table of order %i, in a segment of %s',
    (order, segmentSize) => {
      const is1T = segmentSize === '1T';
      const vsid = is1T ? 0x2b_4d6f_1a53n : 0x3_2345_6789_abcdn;
      const segment = encodeSegment({ ea: 0, vsid, segmentSize, baseShift });
      for (const address of [0n, 0xfed_cba9n, is1T ? 0xf1_89ab_cdefn : 0x9ab_cdefn]) {
        const page = BigInt.asUintN(64, (address >> BigInt(baseShift)) << BigInt(baseShift));
        const group = Number(groupByDefinition(vsid, address, is1T, baseShift, order));
        const complement = 2 ** (order - 7) - 1 - group;
        expect([otherGroup(group, order), otherGroup(complement, order)]).toEqual([complement, group]);
        const [hi, lo] = [Number(address >> 32n), Number(address & 0xffff_ffffn)];
        for (const secondary of [false, true]) {
          const slot = (secondary ? complement : group) * 8 + 5;
          const entry = encodeHpte({ vsid, segmentSize, offset: address, ra: 0, baseShift, secondary });
          const table = single(order, slot, entry);
          expect(findHpte(table, segment, hi, lo)).toBe(slot);
          expect(findHpte(single(order, slot + 8, entry), segment, hi, lo)).toBe(NOT_FOUND);
          // What V has of the address, the group gives the rest of.
          expect(virtualPage(entry, slot, order)).toEqual({ segmentSize, vsid, offset: Number(page), reachable: true });
        }
      }
    },
  );
});

it('an address of a 256 MiB segment has 28 bits in it, of a 1 TiB one 40', () => {
  expect(segmentOffset('256M', 0xabcd, 0x1234_5678)).toBe(0x234_5678);
  expect(segmentOffset('1T', 0xabcd, 0x9234_5678)).toBe(0xcd_9234_5678);
  expect(segmentOffset('1T', -1, -1)).toBe(2 ** 40 - 1);
});

it('a table has 2^(order - 4) entries in groups of eight', () => {
  expect([18, 32, 46].map(entriesOf)).toEqual([16384, 2 ** 28, 2 ** 42]);
  expect([18, 32, 46].map(groupsOf)).toEqual([2048, 2 ** 25, 2 ** 39]);
});

it('offsets, groups and slots end where a segment and a table do', () => {
  expect(() => primaryGroup(vrmaSegment(), 2 ** 40, 18)).toThrow('"offset"');
  expect(() => otherGroup(2048, 18)).toThrow('"group"');
  expect(() => virtualPage(hpte(1, 0), 16384, 18)).toThrow('"slot"');
  expect([primaryGroup(vrmaSegment(), 2 ** 40 - 1, 18), otherGroup(2047, 18)].every(Number.isInteger)).toBe(true);
});

it('an entry that cannot be reached tells what V has of its address', () => {
  const entry = encodeHpte({ vsid: 9, segmentSize: '256M', offset: 0x300_0000, ra: 0, baseShift: 24 });
  // Its hash is 9 ^ 3.
  expect(virtualPage(entry, (9 ^ 3) * 8, 18)).toMatchObject({ offset: 0x300_0000, reachable: true });
  expect(virtualPage(entry, (9 ^ 2) * 8, 18)).toMatchObject({ offset: 0x300_0000, reachable: false });
});

it('a table of a user’s must be one', () => {
  const right = single(18, 0, hpte(0, 0));
  const find = (table: object) => () => findHpte(table as HpteWords, vrmaSegment(), 0, 0);
  expect(find(right)()).toBe(NOT_FOUND);
  for (const name of ['vHi', 'vLo', 'rHi', 'rLo']) {
    expect(find({ ...right, [name]: 0 })).toThrow(`"table.${name}"`);
  }
  for (const order of [17, 47, 18.5, '18']) expect(find({ ...right, order })).toThrow('"table.order"');
});

describe('virtualPage and verifyHtab', () => {
  it('say when an entry stands where its hash cannot lead', () => {
    const order = 24;
    const entry = encodeHpte({ vsid: 0x1234, segmentSize: '256M', offset: 0x123_4000, ra: 0 });
    const seg = encodeSegment({ ea: 0, vsid: 0x1234, segmentSize: '256M' });
    const slot = primaryGroup(seg, 0x123_4000, order) * 8;
    expect(virtualPage(entry, slot, order)).toEqual({
      segmentSize: '256M',
      vsid: 0x1234n,
      offset: 0x123_4000,
      reachable: true,
    });
    expect(virtualPage(hpte((1n << 63n) | 1n, 0), slot, order)).toBeUndefined();
    expect(virtualPage(hpte(5, 0x2000), slot, order)).toBeUndefined();
    expect(virtualPage(entry, slot + 8 * 2 ** 11, order)?.reachable).toBe(false);
    const table = new Htab(order);
    const astray = slot ^ (2 ** 11 * 8);
    table.set(astray, entry);
    expect([...verifyHtab(table)]).toMatchObject([{ slot: astray, problem: 'unreachable' }]);
  });

  it('find twins in both groups, and encodings that do not exist', () => {
    const table = new Htab(18);
    const fields = { vsid: 9, segmentSize: '1T', offset: 0x5000, ra: 0x1000 } as const;
    const group = primaryGroup(encodeSegment({ ea: 0, vsid: 9, segmentSize: '1T' }), 0x5000, 18);
    table.set(group * 8, encodeHpte(fields));
    table.set(group * 8 + 1, encodeHpte({ ...fields, offset: 0x5000 + 2 ** 23 }));
    expect([...verifyHtab(table)]).toEqual([]);
    table.set(group * 8 + 4, encodeHpte(fields));
    table.set(otherGroup(group, 18) * 8 + 1, encodeHpte({ ...fields, secondary: true }));
    table.set(8000, hpte((1n << 63n) | 1n, 0));
    table.set(8001, hpte(5, 0x2000));
    expect([...verifyHtab(table)].map(({ slot, problem }) => [slot, problem]).sort()).toEqual(
      [
        [8000, 'segment-size'],
        [8001, 'page-size'],
        [group * 8 + 4, 'duplicate'],
        [otherGroup(group, 18) * 8 + 1, 'duplicate'],
      ].sort(),
    );
  });
});
