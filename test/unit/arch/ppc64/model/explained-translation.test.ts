/** What the explanation of a translation says, step by step. */

import { inspect } from 'node:util';
import { expect, it } from 'vitest';
import { ExplainedHashTranslation } from '../../../../../lib/arch/ppc64/model/explained-translation.ts';
import {
  describeStep,
  encodeHpte,
  encodeSegment,
  explainTranslation,
  findSegment,
  type HpteFields,
  Htab,
  hpte,
  protectionContext,
  realAddress,
  type TranslateOptions,
  translate,
} from '../../../../../lib/arch/ppc64/model/index.ts';
import { checkTranslation } from '../../../../../lib/arch/ppc64/model/translate.ts';

const ORDER = 18;
const VSID = 0x123;
/** Page 5 of a 256 MiB segment: its hash is 0x123 ^ 5 = 0x126, and the complement of that in 2048 groups is 0x6d9. */
const SEGMENT = encodeSegment({ ea: 0x1000_0000, vsid: VSID, segmentSize: '256M' });
const EA = 0x1000_5678n;
const [PRIMARY, SECONDARY] = [0x126, 0x6d9];
const PAGE = { vsid: VSID, segmentSize: '256M', offset: 0x5000, ra: 0x7_8000 } as const;

function tableWith(entries: Readonly<Record<number, Partial<HpteFields>>>): Htab {
  const table = new Htab(ORDER);
  for (const [slot, fields] of Object.entries(entries)) table.set(Number(slot), encodeHpte({ ...PAGE, ...fields }));
  return table;
}

const sentences = (table: Htab, options: TranslateOptions = {}, segment = SEGMENT): string[] =>
  explainTranslation(table, [segment], EA, options).steps.map(describeStep);

/** Sentences about slots that aren't empty, without the entry. */
const verdicts = (table: Htab, segment = SEGMENT): string[] =>
  sentences(table, {}, segment)
    .filter((line) => line.startsWith('slot') && line.includes('('))
    .map((line) => line.replace(/ \(.*/, ''));

it('goes through both groups in order', () => {
  const slots = (group: number): string[] => Array.from({ length: 8 }, (_, i) => `slot ${group * 8 + i}: invalid`);
  expect(sentences(new Htab(ORDER))).toEqual([
    'segment 0x0000000010000000 256M vsid 0x123 4K pages -----',
    `page 0x5 of the segment: primary group ${PRIMARY}, secondary group ${SECONDARY}`,
    ...slots(PRIMARY),
    ...slots(SECONDARY),
    'no translation: no-hpte',
  ]);
});

it('says of each entry why it is not the one', () => {
  const table = tableWith({
    [PRIMARY * 8]: { secondary: true },
    [PRIMARY * 8 + 1]: { segmentSize: '1T', vsid: 0 },
    [PRIMARY * 8 + 2]: { vsid: VSID + 1 },
    [PRIMARY * 8 + 3]: { offset: 0x5000 + 2 ** 23 },
    [PRIMARY * 8 + 4]: { baseShift: 16, ra: 0x1_0000 },
    [SECONDARY * 8 + 2]: {},
    [SECONDARY * 8 + 5]: { secondary: true },
  });
  expect(verdicts(table)).toEqual([
    `slot ${PRIMARY * 8}: other hash`,
    `slot ${PRIMARY * 8 + 1}: other segment size`,
    `slot ${PRIMARY * 8 + 2}: other virtual page`,
    `slot ${PRIMARY * 8 + 3}: other virtual page`,
    `slot ${PRIMARY * 8 + 4}: other page size`,
    `slot ${SECONDARY * 8 + 2}: other hash`,
    `slot ${SECONDARY * 8 + 5}: match`,
  ]);
  expect(sentences(table).at(-1)).toBe('real address 0x0000000000078678, in a page of 4K');
});

it('compares the virtual page of a large segment page by its own size', () => {
  const segment = encodeSegment({ ea: 0, vsid: VSID, segmentSize: '1T', baseShift: 24 });
  // Page 0x10 of 16 MiB: 0x1000_5678 >> 24. The hash of a 1 TiB segment has the VSID twice; 2048 groups see the one.
  const group = 0x123 ^ 0x10;
  const large = { segmentSize: '1T', baseShift: 24, ra: 0x300_0000 } as const;
  const table = tableWith({
    [group * 8]: { ...large, offset: 0x1100_0000 },
    [group * 8 + 1]: { ...large, offset: 0x1000_0000 },
  });
  expect(verdicts(table, segment)).toEqual([`slot ${group * 8}: other virtual page`, `slot ${group * 8 + 1}: match`]);
  expect(sentences(table, {}, segment)[1]).toBe(
    `page 0x10 of the segment: primary group ${group}, secondary group ${2047 - group}`,
  );
  expect(translate(table, [segment], EA)).toMatchObject({ ra: 0x300_5678n, slot: group * 8 + 1 });
});

const deny = protectionContext({ amr: (1n << 64n) - 1n, iamr: (1n << 64n) - 1n });

it.each<[string, Partial<HpteFields>, TranslateOptions, noExecute?: true]>([
  ['load: allowed', {}, {}],
  ['store: allowed', {}, { access: 'store' }],
  ['fetch: allowed', {}, { access: 'fetch' }],
  ['store: denied by PP 3', { pp: 3 }, { access: 'store' }],
  ['load: denied by storage key 21', { key: 21 }, { context: deny }],
  ['fetch: denied by N', { noExecute: true }, { access: 'fetch' }],
  ['fetch: denied by N', { noExecute: true, wimg: 1 }, { access: 'fetch' }],
  ['fetch: denied by G (guarded storage)', { wimg: 1 }, { access: 'fetch' }],
  ['fetch: denied by N of the segment', {}, { access: 'fetch' }, true],
])('%s', (sentence, fields, options, noExecute = false as never) => {
  const segment = encodeSegment({ ea: 0x1000_0000, vsid: VSID, segmentSize: '256M', noExecute });
  const lines = sentences(tableWith({ [PRIMARY * 8]: fields }), options, segment);
  expect(lines.at(-2)).toBe(sentence);
});

it('is printed with a line for each step', () => {
  const ea = 0x123n;
  const explained = new ExplainedHashTranslation(ea, explainTranslation(new Htab(ORDER), [SEGMENT], ea));
  expect(inspect(explained).split('\n')).toEqual([
    'effective address 0x0000000000000123',
    '  no valid SLB entry covers the address',
    '  no translation: no-segment',
  ]);
  expect(String(explained)).toBe(inspect(explained));
  expect(explained).toMatchObject({ ea, result: { ok: false, fault: 'no-segment' }, steps: [{}, {}] });
});

it('what is no translation has what was found, and no more', () => {
  const table = tableWith({ [PRIMARY * 8 + 3]: { pp: 3 } });
  expect(translate(table, [], EA)).toStrictEqual({ ok: false, fault: 'no-segment' });
  expect(translate(new Htab(ORDER), [SEGMENT], EA)).toStrictEqual({ ok: false, fault: 'no-hpte', segment: SEGMENT });
  expect(translate(table, [SEGMENT], EA, { access: 'store' })).toStrictEqual({
    ok: false,
    fault: 'protection',
    segment: SEGMENT,
    slot: PRIMARY * 8 + 3,
    entry: table.get(PRIMARY * 8 + 3),
  });
  // The address may be a number or a bigint.
  for (const ea of [EA, Number(EA)]) {
    expect(translate(table, [SEGMENT], ea)).toMatchObject({ ok: true, ea, ra: 0x7_8678n, slot: PRIMARY * 8 + 3 });
  }
});

it('the first of two segments that cover an address counts, an invalid one never', () => {
  const other = encodeSegment({ ea: 0x1000_0000, vsid: 9, segmentSize: '256M' });
  const tera = encodeSegment({ ea: 0, vsid: 9, segmentSize: '1T' });
  expect(findSegment([SEGMENT, other], 0, Number(EA))).toBe(SEGMENT);
  expect(findSegment([other, SEGMENT], 0, Number(EA))).toBe(other);
  expect(findSegment([SEGMENT], 1, Number(EA))).toBeUndefined();
  expect(findSegment([SEGMENT], 0, 0x2000_0000)).toBeUndefined();
  expect([0, 0xff, 0x100].map((hi) => findSegment([tera], hi, -1))).toEqual([tera, tera, undefined]);
  expect(() => findSegment([undefined as never], 0, 0)).toThrow('"slb[0]"');
  expect(() => findSegment({} as never, 0, 0)).toThrow('"slb"');
});

it.each([
  [12, 1n, 0x1234_5000n, 0x1234_5678n],
  [16, 0x7005n, 0x1234_0000n, 0x1234_5678n],
  [24, 0x3_8005n, 0x1200_0000n, 0x1234_5678n],
])('a page of 2^%i bytes takes so many bits of the address', (shift, bits, ra, expected) => {
  const entry = shift === 12 ? hpte(1, ra) : hpte(5, ra | (bits & ~0xfffn));
  expect(entry.shift).toBe(shift);
  expect(realAddress(entry, 0xabcd_0000_1234_5678n)).toBe(expected);
});

it('an address of a 256 MiB segment has 28 bits in it wherever the segment is', () => {
  // The hash of page 5 of this segment: 0x222 ^ 5.
  const segment = encodeSegment({ ea: 0xffff_ffff_e000_0000n, vsid: 0x222, segmentSize: '256M' });
  const slot = (0x222 ^ 5) * 8;
  const table = tableWith({ [slot]: { vsid: 0x222 } });
  expect(translate(table, [segment], 0xffff_ffff_e000_5678n)).toMatchObject({ ok: true, slot, ra: 0x7_8678n });
});

it('options that are none are named', () => {
  const table = new Htab(ORDER);
  const wrong = (options: object) => () => translate(table, [SEGMENT], EA, options);
  const context = { ...protectionContext(), amrHi: '1' };
  for (const given of [wrong({ access: 'read' }), () => checkTranslation([SEGMENT], { access: 'read' as never })]) {
    expect(given).toThrow('"options.access"');
  }
  expect(wrong({ context })).toThrow('"options.context.amrHi"');
  expect(() => checkTranslation([SEGMENT, {} as never], {})).toThrow('"slb[1]"');
});

it('a slot is one of the largest table that there is', () => {
  const hash = (primary: number) => () => describeStep({ step: 'hash', pageIndex: 0, primary, secondary: 1 });
  expect(hash(2 ** 42 - 1)()).toBe(`page 0x0 of the segment: primary group ${2 ** 42 - 1}, secondary group 1`);
  expect(hash(2 ** 42)).toThrow('"step.primary"');
});
