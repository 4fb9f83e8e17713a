/** What the explanation of a translation says, line by line: tables and addresses of the other tests, sentences by hand. */

import { expect, it } from 'vitest';
import {
  type AbsoluteMemory,
  type CpuStateInit,
  cpuState,
  explainTranslation,
  type TranslateOptions,
} from '../../../../../lib/arch/s390x/model/index.ts';
import { ALET, accessList, DUCT, SPACE } from './access-list.ts';
import { CR0, fiveLevels, PAGES, R1, R3, SEGMENTS, VA, withEntry } from './five-levels.ts';
import { Storage } from './storage.ts';

const DAT = 0x0400_0000_0000_0000n;
const AMODE64 = 0x1_8000_0000n;
const ASCE = R1 | 0xfn;
const FRAME_TEXT = '4 KiB frame at real 0x0000000000200000';

function explain(
  storage: AbsoluteMemory,
  address: bigint,
  { cr = { 0: CR0, 1: ASCE }, ...init }: CpuStateInit = {},
  options: TranslateOptions = {},
) {
  return explainTranslation(cpuState({ cr, ...init }), storage, address, options);
}

const inSpace = (bits: bigint, register: number, asce: bigint): CpuStateInit => ({
  pswMask: DAT | AMODE64 | (bits << 46n),
  cr: { 0: CR0, [register]: asce },
});

it('a walk is a line for the address, one for the space, one for each entry, and its end', () => {
  const explained = explain(fiveLevels(), VA);
  expect(explained.text.split('\n')).toEqual([
    'fetch at 0x0020040080101345: effective address 0x0020040080101345 (64-bit)',
    'primary space from CR1: ASCE 0x000000000010000f, region-first table at 0x0000000000100000, TL 3',
    'R1 0x0000000000100008: 0x000000000011000f region-second table at 0x0000000000110000, TF 0, TL 3',
    'R2 0x0000000000110008: 0x000000000012000b region-third table at 0x0000000000120000, TF 0, TL 3',
    'R3 0x0000000000120008: 0x0000000000130007 segment table at 0x0000000000130000, TF 0, TL 3',
    'S  0x0000000000130008: 0x0000000000140800 page table at 0x0000000000140800',
    `P  0x0000000000140808: 0x0000000000200000 ${FRAME_TEXT}`,
    'absolute 0x0000000000200345',
  ]);
  expect({ ...explained, steps: explained.steps.slice(4), text: '' }).toStrictEqual({
    code: 0,
    address: VA,
    asce: ASCE,
    steps: [{ level: 'P', address: PAGES + 8n, entry: 0x20_0000n, says: FRAME_TEXT }],
    absolute: 0x20_0345n,
    outcome: 'absolute 0x0000000000200345',
    text: '',
  });
});

it('without DAT there are no tables and no ASCE', () => {
  const outcome = 'absolute 0x0000000000004123 by prefixing';
  expect(explain(new Storage(0x1_0000n), 0x1_0500_0123n, { pswMask: 0, prefix: 0x4000 })).toStrictEqual({
    code: 0,
    address: 0x123n,
    steps: [],
    absolute: 0x4123n,
    outcome,
    text: [
      'fetch at 0x0000000105000123: effective address 0x0000000000000123 (24-bit)',
      'DAT is off: the address is real',
      outcome,
    ].join('\n'),
  });
  const reason = 'no storage at absolute 0x0000000070001000';
  expect(explain(new Storage(0x1_0000n), 0xf000_1234n, { pswMask: 0x8000_0000 }, { access: 'store' })).toStrictEqual({
    code: 5,
    address: 0x7000_1234n,
    steps: [],
    outcome: `0x5 (addressing): ${reason}`,
    reason,
    text: [
      'store at 0x00000000f0001234: effective address 0x0000000070001234 (31-bit)',
      'DAT is off: the address is real',
      `0x5 (addressing): ${reason}`,
    ].join('\n'),
  });
});

it.each<[string, CpuStateInit]>([
  [
    'secondary space from CR7: ASCE 0x000000000010010f, region-first table at 0x0000000000100000, TL 3, private',
    inSpace(2n, 7, ASCE | 0x100n),
  ],
  [
    'home space from CR13: ASCE 0x0000000000130002, segment table at 0x0000000000130000, TL 2',
    inSpace(3n, 13, SEGMENTS | 2n),
  ],
  ['primary space from CR1: ASCE 0x0000000000000020, real space: the address is not translated', inSpace(0n, 1, 0x20n)],
  [
    'primary space from CR1: ASCE 0x0000000000000120, real space: the address is not translated, private',
    inSpace(0n, 1, 0x120n),
  ],
])('%s', (line, init) => {
  expect(explain(fiveLevels(), 0x10_1000n, init).text.split('\n')[1]).toBe(line);
});

it('instructions are not fetched from the secondary space', () => {
  const init = { pswMask: DAT | AMODE64 | (2n << 46n), cr: { 0: CR0, 1: ASCE, 7: 0x20 } };
  const { text } = explain(fiveLevels(), VA, init, { access: 'instruction-fetch' });
  expect(text).toMatch(/^instruction-fetch at .*\nprimary space from CR1: /);
});

const INDEX_512 = (VA & ~(0x7ffn << 20n)) | (512n << 20n);

it.each<[string, AbsoluteMemory, bigint, CpuStateInit, TranslateOptions]>([
  [
    '0x38 (ASCE-type): address beyond the designated table, at S',
    fiveLevels(),
    1n << 31n,
    inSpace(0n, 1, SEGMENTS),
    {},
  ],
  [
    '0x10 (segment-translation): index beyond the table length, at S',
    fiveLevels(),
    512n << 20n,
    inSpace(0n, 1, SEGMENTS),
    {},
  ],
  [
    '0x10 (segment-translation): index before the table offset, at S',
    withEntry(R3 + 8n, (entry) => entry | 0x40n),
    VA,
    {},
    {},
  ],
  [
    '0x10 (segment-translation): index beyond the table length, at S',
    withEntry(R3 + 8n, (entry) => entry & ~3n),
    INDEX_512,
    {},
    {},
  ],
  [
    '0x12 (translation-specification): common entry in a private space, at S',
    withEntry(SEGMENTS + 8n, (entry) => entry | 0x10n),
    VA,
    inSpace(0n, 1, ASCE | 0x100n),
    {},
  ],
  [
    '0x12 (translation-specification): bit 52 of the page-table entry is not zero, at P',
    withEntry(PAGES + 8n, (entry) => entry | 0x800n),
    VA,
    {},
    {},
  ],
  ['0x11 (page-translation): entry invalid, at P', withEntry(PAGES + 8n, (entry) => entry | 0x400n), VA, {}, {}],
  [
    '0x4 (protection): low-address protection (CR0) forbids stores at 0 to 511 and 4096 to 4607',
    fiveLevels(),
    0x10n,
    { cr: { 0: 0x1000_0000, 1: ASCE } },
    { access: 'store' },
  ],
  [
    '0x4 (protection): a table entry on the way has the protection bit',
    withEntry(PAGES + 8n, (entry) => entry | 0x200n),
    VA,
    {},
    { access: 'store' },
  ],
  [
    'absolute 0x0000000000200345, protected against stores',
    withEntry(PAGES + 8n, (entry) => entry | 0x200n),
    VA,
    {},
    {},
  ],
  [
    '0x4 (protection): the frame has instruction-execution protection',
    withEntry(PAGES + 8n, (entry) => entry | 0x100n),
    VA,
    {},
    { access: 'instruction-fetch' },
  ],
])('%s', (outcome, storage, address, init, options) => {
  const explained = explain(storage, address, init, options);
  expect(explained.outcome).toBe(outcome);
  expect(explained.text.endsWith(`\n${outcome}`)).toBe(true);
  expect(explained.reason).toBe(outcome.startsWith('absolute') ? undefined : outcome.replace(/^0x\w+ \([^)]+\): /, ''));
});

it('an entry that cannot be read has no content', () => {
  const storage = fiveLevels();
  storage.unreadable.add(PAGES & ~0xfffn);
  const { code, steps, text, outcome } = explain(storage, VA);
  expect(code).toBe(-14);
  expect(steps[4]).toStrictEqual({ level: 'P', address: PAGES + 8n, says: 'cannot be read: EFAULT' });
  expect(text.split('\n')[6]).toBe('P  0x0000000000140808: cannot be read: EFAULT');
  expect(outcome).toBe('EFAULT: table entry not readable, at P');
  expect(explain(fiveLevels(), 0n, inSpace(0n, 1, 0x7000_0000n)).steps).toStrictEqual([
    { level: 'S', address: 0x7000_0000n, says: 'cannot be read: 0x5 (addressing)' },
  ]);
});

it('names the space of an access register, and what was read to find it', () => {
  const init = { pswMask: DAT | AMODE64 | (1n << 46n), cr: { 0: CR0, 2: DUCT }, ar: { 3: ALET } };
  const explained = explain(accessList(), 0n, init, { ar: 3 });
  const lines = explained.text.split('\n');
  expect(lines.slice(1, 4)).toEqual([
    'access-register space from access register 3: ASCE 0x0000000000020000, segment table at 0x0000000000020000, TL 0',
    'AL 0x0000000000010010: 0x0001100100000000 access-register translation',
    'AL 0x0000000000011090: 0x005a000000000000 access-register translation',
  ]);
  expect(explained).toMatchObject({ code: 0, asce: SPACE });
  // The designation of the list, two doublewords of the entry, three of the ASTE, the segment and the page.
  expect(explained.steps.map(({ level }) => level)).toEqual(['AL', 'AL', 'AL', 'AL', 'AL', 'AL', 'S', 'P']);

  const refused = explain(accessList(), 0n, { ...init, ar: { 3: 0x0200_0009 } }, { ar: 3 });
  expect(refused.text.split('\n').slice(1)).toEqual([
    'access-register space from access register 3: no ASCE',
    '0x28 (ALET-specification): access-register translation ended here',
  ]);
  expect('asce' in refused).toBe(false);

  const storage = accessList();
  storage.put(0x1_1090n, storage.get(0x1_1090n) | (0x0200_0000n << 32n));
  expect(explain(storage, 0n, init, { ar: 3, access: 'store' }).outcome).toBe(
    '0x4 (protection): the access-list entry is fetch-only',
  );
});
