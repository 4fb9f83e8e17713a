import { describe, expect, it } from 'vitest';
import {
  type AccessKind,
  allowsRead,
  allowsWrite,
  denial,
  describeStep,
  encodeHpte,
  encodeSegment,
  explainTranslation,
  type HpteFields,
  Htab,
  primaryGroup,
  protectionContext,
  translate,
} from '../../../../../lib/arch/ppc64/model/index.ts';

/** PP0 || PP: what supervisor (key clear) and problem state (key set) may do. Power ISA 2.07 Book III-S 5.7.9. */
const permissions: readonly [pp: number, clear: string, set: string][] = [
  [0, 'rw', ''],
  [1, 'rw', 'r'],
  [2, 'rw', 'rw'],
  [3, 'r', 'r'],
  [6, 'r', ''],
];

describe('permission', () => {
  it.each(permissions)('of PP %i', (pp, clear, set) => {
    expect([allowsRead(pp, false), allowsWrite(pp, false)]).toEqual([clear.includes('r'), clear.includes('w')]);
    expect([allowsRead(pp, true), allowsWrite(pp, true)]).toEqual([set.includes('r'), set.includes('w')]);
  });

  const seg = encodeSegment({ ea: 0, vsid: 1, segmentSize: '1T', kp: true });
  const entry = (fields: Partial<HpteFields>) =>
    encodeHpte({ vsid: 1, segmentSize: '1T', offset: 0, ra: 0, ...fields });
  const check = (
    fields: Partial<HpteFields>,
    access: AccessKind,
    state: Parameters<typeof protectionContext>[0] = {},
  ) => denial(seg, entry(fields).rHi, entry(fields).rLo, access, protectionContext(state));

  it('takes Kp in problem state and Ks in supervisor state', () => {
    expect(check({ pp: 0 }, 'load')).toBeUndefined();
    expect(check({ pp: 0 }, 'load', { problemState: true })).toBe('protection');
    expect(check({ pp: 1 }, 'load', { problemState: true })).toBeUndefined();
    expect(check({ pp: 1 }, 'store', { problemState: true })).toBe('protection');
  });

  it.each([0, 1, 5, 15, 16, 17, 30, 31])('takes both AMR bits of key %i', (key) => {
    const denyLoads = 1n << BigInt(62 - 2 * key);
    expect(check({ key }, 'load', { amr: denyLoads })).toBe('key');
    expect(check({ key }, 'store', { amr: denyLoads })).toBeUndefined();
    expect(check({ key }, 'load', { amr: denyLoads << 1n })).toBeUndefined();
    expect(check({ key }, 'store', { amr: denyLoads << 1n })).toBe('key');
    expect(check({ key: key ^ 1 }, 'load', { amr: denyLoads | (denyLoads << 1n) })).toBeUndefined();
    expect(check({ key }, 'fetch', { amr: (1n << 64n) - 1n })).toBeUndefined();
    expect(check({ key }, 'fetch', { iamr: denyLoads })).toBe('key');
    expect(check({ key }, 'load', { iamr: (1n << 64n) - 1n })).toBeUndefined();
  });

  it('denies fetches by N, by G, by N of the segment and by PP, in that order before the key', () => {
    expect(check({ noExecute: true }, 'fetch')).toBe('no-execute');
    expect(check({ noExecute: true }, 'load')).toBeUndefined();
    expect(check({ wimg: 5 }, 'fetch')).toBe('no-execute');
    expect(check({ wimg: 4 }, 'fetch')).toBeUndefined();
    expect(check({ pp: 0 }, 'fetch', { problemState: true, iamr: (1n << 64n) - 1n })).toBe('protection');
    const noFetch = encodeSegment({ ea: 0, vsid: 1, segmentSize: '1T', noExecute: true });
    expect(denial(noFetch, entry({}).rHi, entry({}).rLo, 'fetch', protectionContext())).toBe('no-execute');
    expect(check({ pp: 3 }, 'store', { amr: (1n << 64n) - 1n })).toBe('protection');
  });
});

describe('translation', () => {
  const seg = encodeSegment({ ea: 0xd000_0000_0000_0000n, vsid: 0x4_2131, segmentSize: '1T', baseShift: 16 });
  const table = new Htab(20);
  const ea = 0xd000_0012_3456_789an;
  const offset = 0x12_3456_789a;
  const slot = primaryGroup(seg, offset, 20) * 8 + 6;
  table.set(
    slot,
    encodeHpte({
      vsid: 0x4_2131,
      segmentSize: '1T',
      offset,
      ra: 0x7f00_0000n,
      baseShift: 16,
      shift: 24,
      key: 4,
      pp: 3,
    }),
  );

  it('adds the offset in the actual page, which may be larger than the segment’s', () => {
    expect(translate(table, [seg], ea)).toMatchObject({ ok: true, ra: 0x7f56_789an, slot });
  });

  it('says why there is none', () => {
    expect(translate(table, [], ea)).toEqual({ ok: false, fault: 'no-segment' });
    expect(translate(table, [seg], ea + 0x1_0000n)).toMatchObject({ ok: false, fault: 'no-hpte', segment: seg });
    expect(translate(table, [seg], ea, { access: 'store' })).toMatchObject({ ok: false, fault: 'protection', slot });
    const context = protectionContext({ amr: 1n << 54n });
    expect(translate(table, [seg], ea, { context })).toMatchObject({ ok: false, fault: 'key', slot });
    expect(() => translate(table, [seg], -1)).toThrow(RangeError);
  });

  it('is explained in sentences', () => {
    const lines = explainTranslation(table, [seg], ea).steps.map(describeStep);
    expect(lines[0]).toBe('segment 0xd000000000000000 1T vsid 0x42131 64K pages -----');
    expect(lines[1]).toMatch(/^page 0x123456 of the segment: primary group \d+, secondary group \d+$/);
    expect(lines.slice(2, 8)).toEqual(Array.from({ length: 6 }, (_, i) => `slot ${slot - 6 + i}: invalid`));
    expect(lines[8]).toMatch(new RegExp(`^slot ${slot}: match \\(HPTE `));
    expect(lines.slice(9)).toEqual(['load: allowed', 'real address 0x000000007f56789a, in a page of 16M']);
    const denied = explainTranslation(table, [seg], ea, { access: 'store' }).steps.map(describeStep);
    expect(denied.slice(-2)).toEqual(['store: denied by PP 3', 'no translation: protection']);
    expect(explainTranslation(table, [], ea).steps.map(describeStep)).toEqual([
      'no valid SLB entry covers the address',
      'no translation: no-segment',
    ]);
  });
});
