import { describe, expect, it } from 'vitest';
import {
  ABSOLUTE_RULES,
  CMPXCHG_RULES,
  type CmmaContext,
  GET_CMMA_RULES,
  LOGICAL_RULES,
  LOGICAL_RULES_BEFORE_6_3,
  type MemOpContext,
  SET_CMMA_RULES,
  SIDA_RULES,
  SKEYS_COUNT_RULES,
  SKEYS_FLAGS_RULES,
  s390xMemslotRules,
  WRONG_FD_RULES,
} from '../../../../lib/arch/s390x/rules.ts';
import type { MemslotRequest } from '../../../../lib/rules/memslot.ts';
import { MEMOP_FLAG } from '../../../../lib/uapi/flags.ts';
import { answer } from '../../rules/answer.ts';
import { memslotContext } from '../../rules/memslot-context.ts';

const FINE: MemOpContext = { op: 0, flags: 0, size: 8, ar: 0, key: 0, sidaOffset: 0, sidaSize: 4096 };
const { CHECK_ONLY, INJECT, SKEY } = MEMOP_FLAG;
const badAr = 'EINVAL: access register 16 is not 0 to 15 (checked even when the vCPU is not in access-register mode)';
const tooBig = 'E2BIG: size 65537 is more than the 65536 bytes one MEM_OP moves';
const badKey = 'EINVAL: access key 16 is not 0 to 15';
type Change = Partial<MemOpContext>;

describe.each([
  ['logical', LOGICAL_RULES, CHECK_ONLY | INJECT | SKEY],
  ['logical before 6.3', LOGICAL_RULES_BEFORE_6_3, CHECK_ONLY | INJECT | SKEY],
  ['absolute', ABSOLUTE_RULES, CHECK_ONLY | SKEY],
  ['compare-exchange', CMPXCHG_RULES, SKEY],
  ['secure-instruction data', SIDA_RULES.slice(0, 1), 0],
] as const)('a MEM_OP: %s', (_, rules, known) => {
  const unknown = 7 & ~known;
  it.each<[string, Change, string | undefined]>([
    ['what is right', { flags: known, key: 15 }, undefined],
    ['as a bigint', { flags: BigInt(known), key: 15 }, undefined],
    ['no size', { size: 0 }, 'EINVAL: size is 0'],
    ['no size, and a flag', { size: 0, flags: 99 }, 'EINVAL: size is 0'],
    [
      'a flag',
      { flags: known | 8 },
      `EINVAL: flags 0x${(known | 8).toString(16)}: this operation knows only 0x${known}`,
    ],
    ['a flag above 32 bits', { flags: 2 ** 32 }, `EINVAL: flags 0x100000000: this operation knows only 0x${known}`],
    ['and as a bigint', { flags: 1n << 63n }, `EINVAL: flags 0x8000000000000000: this operation knows only 0x${known}`],
    ...(unknown === 0
      ? []
      : [
          [
            'a flag of others',
            { flags: unknown },
            `EINVAL: flags 0x${unknown}: this operation knows only 0x${known}`,
          ] as [string, Change, string],
        ]),
  ])('%s', (_case, change, expected) => {
    expect(answer(rules, { ...FINE, ...change })).toBe(expected);
  });
});

it.each<[string, Change, string | undefined, string | undefined]>([
  ['a size', { size: 65537 }, tooBig, tooBig],
  ['the largest', { size: 65536 }, undefined, undefined],
  ['a key', { key: 16, flags: SKEY }, badKey, badKey],
  ['a key that is not used', { key: 16 }, undefined, undefined],
  ['a key that is not used either', { key: 16, flags: CHECK_ONLY | INJECT }, undefined, undefined],
  ['an access register', { ar: 16 }, badAr, badAr],
  ['the last', { ar: 15 }, undefined, undefined],
  ['both', { ar: 16, size: 65537 }, tooBig, badAr],
  ['key and access register', { ar: 16, key: 16, flags: SKEY }, badKey, badAr],
])('a logical MEM_OP: %s', (_, change, now, before) => {
  expect(answer(LOGICAL_RULES, { ...FINE, ...change })).toBe(now);
  expect(answer(LOGICAL_RULES_BEFORE_6_3, { ...FINE, ...change })).toBe(before);
});

it('absolute MEM_OPs have no access register; compare-exchange has 16 bytes at most', () => {
  const ask = (rules: typeof ABSOLUTE_RULES, change: Change) => answer(rules, { ...FINE, ...change });
  expect(ask(ABSOLUTE_RULES, { ar: 16 })).toBe(undefined);
  expect([ask(ABSOLUTE_RULES, { size: 65537 }), ask(CMPXCHG_RULES, { size: 65537 })]).toEqual([tooBig, tooBig]);
  expect(ask(ABSOLUTE_RULES, { key: 16, flags: SKEY })).toBe(badKey);
  expect(ask(CMPXCHG_RULES, { key: 16, flags: SKEY })).toBe(badKey);
  expect(ask(CMPXCHG_RULES, { size: 16 })).toBe(undefined);
  expect(ask(CMPXCHG_RULES, { size: 17 })).toBe('EINVAL: size 17: compare-exchange is on 1, 2, 4, 8 or 16 bytes');
});

it.each<[Change, string]>([
  [{ size: 0xffff_fff0, sidaOffset: 16 }, 'EINVAL: size 4294967280 + sida_offset 16 exceeds 32 bits'],
  [{ size: 0xffff_fff0, sidaOffset: 15 }, 'E2BIG: size 4294967280 + sida_offset 15 exceeds 4096 bytes'],
  [{ sidaOffset: 4089 }, 'E2BIG: size 8 + sida_offset 4089 exceeds 4096 bytes'],
  [
    { sidaOffset: 4088 },
    'EINVAL: the vCPU is not in protected (secure execution) mode, so it has no secure-instruction data area',
  ],
])('a MEM_OP on secure-instruction data %o', (change, expected) => {
  expect(answer(SIDA_RULES, { ...FINE, ...change })).toBe(expected);
});

it('operations that a descriptor doesn’t know', () => {
  expect(answer(WRONG_FD_RULES, { ...FINE, op: 3 })).toBe(
    'EINVAL: operation 3 belongs to the other kind of descriptor',
  );
  expect(answer(WRONG_FD_RULES, { ...FINE, op: 99 })).toBe('EINVAL: there is no operation 99');
});

it('storage keys: no flags, 1 to 1048576 keys', () => {
  const count = (n: bigint) => answer(SKEYS_COUNT_RULES, { flags: 0, count: n });
  expect(answer(SKEYS_FLAGS_RULES, { flags: 0, count: 0n })).toBe(undefined);
  expect(answer(SKEYS_FLAGS_RULES, { flags: 5, count: 1n })).toBe('EINVAL: flags 0x5: none are known');
  expect([count(1n), count(1048576n)]).toEqual([undefined, undefined]);
  expect(count(0n)).toBe('EINVAL: count 0 is not 1 to 1048576');
  expect(count(1048577n)).toBe('EINVAL: count 1048577 is not 1 to 1048576');
});

const CMMA: CmmaContext = { enabled: true, flags: 0, count: 1048576n, migrating: true };
const cmmaOff =
  'ENXIO: CMMA is not enabled: set the VM attribute MEM_CTRL / ENABLE_CMMA before the first vCPU is created';

it.each<[Partial<CmmaContext>, string | undefined, string | undefined]>([
  [{}, undefined, undefined],
  [{ enabled: false, flags: 9 }, cmmaOff, cmmaOff],
  [{ flags: 1 }, undefined, 'EINVAL: flags 0x1: none are known'],
  [{ flags: 1, migrating: false }, undefined, 'EINVAL: flags 0x1: none are known'],
  [{ flags: 3 }, 'EINVAL: flags 0x3: only PEEK (1) is known', 'EINVAL: flags 0x3: none are known'],
  [
    { migrating: false },
    'EINVAL: without PEEK, CMMA values are given only in migration mode, and it is off',
    undefined,
  ],
  [{ count: 1048577n }, undefined, 'EINVAL: count 1048577 is more than 1048576'],
])('CMMA values %o', (change, get, set) => {
  expect(answer(GET_CMMA_RULES, { ...CMMA, ...change })).toBe(get);
  expect(answer(SET_CMMA_RULES, { ...CMMA, ...change })).toBe(set);
});

const before7 = 'which s390x requires before Linux 7.0';

const beyond = "EINVAL: [0x7ff01000, 0x80001000) ends beyond the VM's memory limit, 0x80000000";

it.each<[Partial<MemslotRequest>, string | undefined, string | undefined]>([
  [{}, undefined, undefined],
  [{ hva: 0x8000n }, `EINVAL: userspace_addr 0x8000 is not a multiple of 1 MiB, ${before7}`, undefined],
  [{ size: 0x18_0000n }, `EINVAL: memory_size 0x180000 is not a multiple of 1 MiB, ${before7}`, undefined],
  [{ gpa: 0x7ff0_0000n }, undefined, undefined],
  [{ gpa: 0x7ff0_1000n }, beyond, beyond],
])('a memslot %o', (request, segments, pages) => {
  const limit = (): bigint => 1n << 31n;
  const placed = memslotContext({ request: { size: 0x10_0000n, ...request } });
  expect(answer(s390xMemslotRules(true, limit), placed)).toBe(segments);
  expect(answer(s390xMemslotRules(false, limit), placed)).toBe(pages);
});

it('a memslot that stays where it is isn’t looked at', () => {
  const stays = { request: { hva: 0x8000n, size: 0x1000n, flags: 1 }, existing: { hva: 0x8000n, npages: 1 } };
  expect(
    answer(
      s390xMemslotRules(true, () => 0n),
      memslotContext(stays),
    ),
  ).toBe(undefined);
});
