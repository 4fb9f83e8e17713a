import { describe, expect, it } from 'vitest';
import {
  diffHtabs,
  encodeHpte,
  encodeSegment,
  groupOccupancy,
  Htab,
  hpte,
  htabStats,
  otherGroup,
  primaryGroup,
  sameSlot,
  verifyHtab,
} from '../../../../../lib/arch/ppc64/model/index.ts';

const PAGE = { vsid: 9, segmentSize: '1T', offset: 0x5000, ra: 0x1000 } as const;

describe('the counts of a table', () => {
  it('are none of an empty one', () => {
    expect(htabStats(new Htab(18))).toEqual({
      slots: 16384,
      groups: 2048,
      valid: 0,
      bolted: 0,
      secondary: 0,
      segments256M: 0,
      segments1T: 0,
      referenced: 0,
      changed: 0,
      noExecute: 0,
      occupancy: [2048, 0, 0, 0, 0, 0, 0, 0, 0],
      pageSizes: new Map(),
      keys: new Map(),
      pp: new Map(),
      wimg: new Map(),
    });
  });

  it('are of the valid entries, each by its own bit', () => {
    const table = new Htab(18);
    const put = (slot: number, more: Partial<Parameters<typeof encodeHpte>[0]>) =>
      table.set(slot, encodeHpte({ ...PAGE, ...more }));
    put(0, { bolted: true });
    put(1, { bolted: true, secondary: true });
    put(2, { bolted: true, secondary: true, referenced: true });
    put(7, { segmentSize: '256M', referenced: true, noExecute: true });
    put(8, { referenced: true, changed: true, noExecute: true, key: 31, pp: 7, wimg: 15 });
    put(9, { referenced: true, changed: true, noExecute: true, key: 16, pp: 0, wimg: 0 });
    put(16383, { referenced: true, noExecute: true, key: 1, pp: 4, wimg: 8 });
    // Neither valid nor of a size of segments that there is.
    put(20, { valid: false, bolted: true, changed: true, key: 3 });
    table.set(24, hpte((1n << 63n) | 1n, 0));
    table.set(25, hpte((3n << 62n) | 1n, 0));
    const { occupancy, pageSizes, keys, pp, wimg, ...sums } = htabStats(table);
    expect(sums).toEqual({
      slots: 16384,
      groups: 2048,
      valid: 9,
      bolted: 3,
      secondary: 2,
      segments256M: 1,
      segments1T: 6,
      referenced: 5,
      changed: 2,
      noExecute: 4,
    });
    expect(occupancy).toEqual([2044, 1, 2, 0, 1, 0, 0, 0, 0]);
    expect(pageSizes).toEqual(new Map([['4K', 9]]));
    expect(keys).toEqual(
      new Map([
        [0, 6],
        [1, 1],
        [16, 1],
        [31, 1],
      ]),
    );
    expect(pp).toEqual(
      new Map([
        [0, 3],
        [2, 4],
        [4, 1],
        [7, 1],
      ]),
    );
    expect(wimg).toEqual(
      new Map([
        [0, 3],
        [2, 4],
        [8, 1],
        [15, 1],
      ]),
    );
  });

  it('name both sizes where the page is larger than the segment’s', () => {
    const table = new Htab(18);
    const sizes = [
      [12, 12],
      [12, 16],
      [12, 24],
      [16, 16],
      [16, 24],
      [24, 24],
      [34, 34],
    ] as const;
    for (const [slot, [baseShift, shift]] of sizes.entries())
      table.set(slot, encodeHpte({ ...PAGE, ra: 0, baseShift, shift }));
    table.set(100, hpte(5, 0x2000));
    table.set(101, hpte(5, 0x2000));
    const { pageSizes, occupancy } = htabStats(table);
    expect(Object.fromEntries(pageSizes)).toEqual({
      '4K': 1,
      '64K in 4K': 1,
      '16M in 4K': 1,
      '64K': 1,
      '16M in 64K': 1,
      '16M': 1,
      '16G': 1,
      invalid: 2,
    });
    expect([occupancy[7], occupancy[2], occupancy[0]]).toEqual([1, 1, 2046]);
  });

  it('know full groups, and the last one', () => {
    const table = new Htab(18);
    for (let slot = 16376; slot < 16384; slot++) table.set(slot, hpte(1, 0));
    expect(htabStats(table).occupancy).toEqual([2047, 0, 0, 0, 0, 0, 0, 0, 1]);
  });

  it('are of a table and nothing else', () => {
    expect(() => htabStats({} as Htab)).toThrow('"table"');
  });
});

describe('the picture of a table', () => {
  it('has the average of each stretch of groups, in order', () => {
    const table = new Htab(18);
    for (const slot of [0, 1, 2, 8, 8191, 8192, 16383]) table.set(slot, hpte(1, 0));
    // Empty, whatever is left there.
    table.set(4, hpte(0x10, 0x1000));
    expect([...groupOccupancy(table, 1)]).toEqual([7 / 2048]);
    expect([...groupOccupancy(table, 2)]).toEqual([5 / 1024, 2 / 1024]);
    const groups = groupOccupancy(table, 2048);
    expect([groups.length, groups[0], groups[1], groups[2], groups[1023], groups[1024], groups[2047]]).toEqual([
      2048, 3, 1, 0, 1, 1, 1,
    ]);
    expect(groups.reduce((sum, one) => sum + one)).toBe(7);
  });

  it('has stretches of whole groups where they don’t divide: each group is in one', () => {
    const table = new Htab(18);
    for (let slot = 0; slot < table.entryCount; slot++) table.set(slot, hpte(1, 0));
    expect([...groupOccupancy(table, 3)]).toEqual([8, 8, 8]);
    table.clear(682 * 8, 8);
    // 682 groups, then twice 683.
    const [first, second, third] = groupOccupancy(table, 3);
    expect([first, second, third]).toEqual([8, 8 - 8 / 683, 8]);
  });

  it('has no more cells than there are groups, and at least one', () => {
    const table = new Htab(18);
    expect(groupOccupancy(table, 2049)).toHaveLength(2048);
    expect(groupOccupancy(table, Number.MAX_SAFE_INTEGER)).toHaveLength(2048);
    for (const cells of [0, -1, 1.5]) expect(() => groupOccupancy(table, cells)).toThrow('"cells"');
    expect(() => groupOccupancy({} as Htab, 1)).toThrow('"table"');
  });
});

describe('how two tables differ', () => {
  it('is said slot by slot: what was there, and what is', () => {
    const [before, after] = [new Htab(18), new Htab(18)];
    const [a, b] = [encodeHpte(PAGE), encodeHpte({ ...PAGE, changed: true })];
    for (const table of [before, after]) table.set(0, a);
    before.set(1, a);
    after.set(1, b);
    before.set(2, a);
    after.set(16383, b);
    // Empty slots are equal, whatever is left in them.
    before.set(5, encodeHpte({ ...PAGE, valid: false }));
    expect([...diffHtabs(before, after)].map(({ slot, before: was, after: is }) => [slot, was?.r, is?.r])).toEqual([
      [1, a.r, b.r],
      [2, a.r, undefined],
      [16383, undefined, b.r],
    ]);
    expect([...diffHtabs(after, after)]).toEqual([]);
  });

  it('is found in each of an entry’s four words', () => {
    const words = [0x4000_0001, 0x81, 0x7, 0x1190];
    for (let i = 0; i < 4; i++) {
      const [a, b] = [new Htab(18), new Htab(18)];
      const other = words.map((word, at) => (at === i ? word + 0x100 : word));
      a.setWords(3, words[0]!, words[1]!, words[2]!, words[3]!);
      b.setWords(3, other[0]!, other[1]!, other[2]!, other[3]!);
      expect(sameSlot(a, b, 3)).toBe(false);
      expect(sameSlot(a, b, 2)).toBe(true);
      expect([...diffHtabs(a, b)].map(({ slot }) => slot)).toEqual([3]);
    }
  });

  it('is asked of tables of one order, at once', () => {
    expect(() => diffHtabs(new Htab(18), new Htab(19))).toThrow(/"after.order" .* 18, as before.order/);
    expect(() => diffHtabs({} as Htab, new Htab(18))).toThrow('"before"');
    expect(() => diffHtabs(new Htab(18), {} as Htab)).toThrow('"after"');
    const table = new Htab(18);
    expect(() => sameSlot(table, new Htab(19), 16384)).toThrow('"slot"');
    expect(sameSlot(table, new Htab(19), 16383)).toBe(true);
    const larger = new Htab(19);
    larger.setV(16384, 0, 1);
    expect(() => sameSlot(larger, table, 16384)).toThrow('"slot"');
    expect(() => sameSlot({} as Htab, table, 0)).toThrow('"a"');
    expect(() => sameSlot(table, {} as Htab, 0)).toThrow('"b"');
  });
});

describe('what is wrong with a table', () => {
  const group = primaryGroup(encodeSegment({ ea: 0, vsid: PAGE.vsid, segmentSize: PAGE.segmentSize }), PAGE.offset, 18);
  const secondary = otherGroup(group, 18);
  const page = encodeHpte(PAGE);

  it('is said in words', () => {
    const table = new Htab(20);
    const home = primaryGroup(
      encodeSegment({ ea: 0, vsid: PAGE.vsid, segmentSize: PAGE.segmentSize }),
      PAGE.offset,
      20,
    );
    // V doesn't tell the eleven bits of the hash below; this one it does.
    const astray = home ^ (1 << 11);
    table.set(home * 8 + 2, page);
    table.set(home * 8 + 7, page);
    table.set(astray * 8 + 1, page);
    table.set(8000, hpte((1n << 63n) | 1n, 0));
    table.set(8001, hpte(5, 0xab_2000));
    expect(Object.fromEntries([...verifyHtab(table)].map(({ slot, message }) => [slot, message]))).toEqual({
      [home * 8 + 7]: `slot ${home * 8 + 2} maps the same virtual page`,
      [astray * 8 + 1]: `the hash of its virtual page does not lead to group ${astray}`,
      8000: 'B = 1x is reserved',
      8001: 'LP 0xb2 is no page size',
    });
    expect(() => verifyHtab({} as Htab)).toThrow('"table"');
  });

  it('are twins: two valid entries for one page, in its group or its other one', () => {
    const twins = (...entries: [slot: number, entry: typeof page][]) => {
      const table = new Htab(18);
      for (const [slot, entry] of entries) table.set(slot, entry);
      return [...verifyHtab(table)].map(({ slot, problem }) => [slot, problem]);
    };
    const other = encodeHpte({ ...PAGE, secondary: true });
    const [first, last] = [Math.min(group, secondary), Math.max(group, secondary)];
    const at = (which: number) => (which === group ? page : other);
    expect(twins([first * 8 + 7, at(first)], [last * 8, at(last)])).toEqual([[last * 8, 'duplicate']]);
    expect(twins([first * 8, at(first)], [last * 8 + 7, at(last)])).toEqual([[last * 8 + 7, 'duplicate']]);
    expect(twins([group * 8, page], [group * 8 + 7, page])).toEqual([[group * 8 + 7, 'duplicate']]);
    expect(twins([secondary * 8 + 6, other], [secondary * 8 + 7, other])).toEqual([[secondary * 8 + 7, 'duplicate']]);
    // One that isn't valid, another AVPN, another segment, another size of pages.
    const large = { baseShift: 16, ra: 0x1_0000 } as const;
    for (const more of [{ valid: false }, { offset: PAGE.offset + 2 ** 23 }, { vsid: 9 + 2 ** 32 }, large]) {
      const entry = encodeHpte({ ...PAGE, ...more });
      expect(twins([group * 8, entry], [group * 8 + 1, page]).filter(([, problem]) => problem === 'duplicate')).toEqual(
        [],
      );
    }
    // The software's and KVM's own bits, protection and the real page make no other page.
    const entry = encodeHpte({ ...PAGE, bolted: true, ra: 0x9000, pp: 3, key: 7, changed: true });
    expect(twins([group * 8, entry], [group * 8 + 1, page])).toEqual([[group * 8 + 1, 'duplicate']]);
  });
});
