import { describe, expect, it } from 'vitest';
import { CLEAR_DIRTY_LOG_RULES, type ClearDirtyLogContext, getDirtyLogRules } from '../../../lib/rules/dirty-log.ts';
import { MEM } from '../../../lib/uapi/flags.ts';
import { answer } from './answer.ts';

const slot = { id: 3, baseGfn: 16, npages: 100, flags: MEM.LOG_DIRTY_PAGES, hva: 0x1000n };
const FINE: ClearDirtyLogContext = {
  slot: 3,
  userSlots: 8,
  addressSpaces: 2,
  ringOnly: false,
  existing: slot,
  firstPage: 0n,
  numPages: 100,
};
type Change = Partial<ClearDirtyLogContext>;

describe.each([
  ['GET_DIRTY_LOG', getDirtyLogRules('x86_64')],
  ['GET_DIRTY_LOG of aarch64', getDirtyLogRules('aarch64')],
  ['CLEAR_DIRTY_LOG', CLEAR_DIRTY_LOG_RULES],
] as const)('%s', (_, rules) => {
  it.each<[string, Change, string | undefined]>([
    ['what is right', {}, undefined],
    ['another address space', { slot: 0x1_0007 }, undefined],
    [
      'a ring',
      { ringOnly: true },
      'ENXIO: this VM has a dirty ring instead of dirty bitmaps: harvest the rings of its vCPUs',
    ],
    ['a slot', { slot: 8 }, 'EINVAL: slot 8 of address space 0 cannot be: there are 8 slots and 2 address spaces'],
    [
      'a space',
      { slot: 0x2_0001 },
      'EINVAL: slot 1 of address space 2 cannot be: there are 8 slots and 2 address spaces',
    ],
    ['no slot', { slot: 0x1_0003, existing: undefined }, 'ENOENT: there is no slot 3 in address space 1'],
    ['no log', { existing: { ...slot, flags: MEM.READONLY } }, 'ENOENT: slot 3 was made without LOG_DIRTY_PAGES'],
  ])('%s', (_case, change, expected) => {
    expect(answer(rules as typeof CLEAR_DIRTY_LOG_RULES, { ...FINE, ...change })).toBe(expected);
  });
});

it.each(['s390x', 'ppc64'] as const)('GET_DIRTY_LOG of %s knows one address space', (arch) => {
  const ask = (change: Change) => answer(getDirtyLogRules(arch), { ...FINE, ...change });
  expect(ask({ slot: 7 })).toBe(undefined);
  expect(ask({ slot: 8 })).toBe('EINVAL: the slot word 0x8 is beyond the last slot, 7');
  expect(ask({ slot: 0x1_0003 })).toBe('EINVAL: the slot word 0x10003 is beyond the last slot, 7');
  expect(ask({ ringOnly: true, existing: undefined })).toBe('ENOENT: there is no slot 3 in address space 0');
});

it('GET_DIRTY_LOG of the others knows more', () => {
  expect(answer(getDirtyLogRules('riscv64'), { ...FINE, slot: 0x1_0003 })).toBe(undefined);
});

it.each<[bigint, number, string | undefined]>([
  [64n, 36, undefined],
  [0n, 64, undefined],
  [0n, 0, undefined],
  [64n, 0, undefined],
  [1n, 0, 'first_page 1 is not a multiple of 64'],
  [128n, 0, 'first_page 128 is beyond slot 3, which has 100 pages'],
  [64n, 37, 'pages 64 to 101 reach beyond slot 3, which has 100 pages'],
  [64n, 35, 'num_pages 35 is neither a multiple of 64 nor up to the end of the slot (100 pages)'],
  [0n, 36, 'num_pages 36 is neither a multiple of 64 nor up to the end of the slot (100 pages)'],
])('CLEAR_DIRTY_LOG from page %s, %i pages', (firstPage, numPages, why) => {
  expect(answer(CLEAR_DIRTY_LOG_RULES, { ...FINE, firstPage, numPages })).toBe(why && `EINVAL: ${why}`);
});

it('the end of a slot of whole words is a page to begin with', () => {
  const existing = { ...slot, npages: 128 };
  expect(answer(CLEAR_DIRTY_LOG_RULES, { ...FINE, existing, firstPage: 128n, numPages: 0 })).toBe(undefined);
});
