import { expect, it } from 'vitest';
import {
  ALLOCATE_HTAB_RULES,
  COMMIT_HPT_RULES,
  CONFIGURE_V3_RULES,
  type CommitHptContext,
  HTAB_CHUNK_RULES,
  HTAB_FD_RULES,
  HTAB_WRITE_RULES,
  NEW_HTAB_RULES,
  RESIZE_HPT_RULES,
  SWITCH_MMU_RULES,
} from '../../../../lib/arch/ppc64/rules.ts';
import { answer } from '../../rules/answer.ts';

const running = (what: string): string =>
  `EBUSY: ${what} only while no vCPU is inside KVM_RUN, and vCPU 1, 2 is: kick it, and wait for its run to end`;
const HTAB = { order: 24, nested: false, hostOrder: 40, runningVcpus: [] as number[] };

it('ALLOCATE_HTAB', () => {
  const ask = (change: Partial<typeof HTAB>) => answer(ALLOCATE_HTAB_RULES, { ...HTAB, ...change });
  const radix = 'EOPNOTSUPP: this host is itself a guest (pseries), and its KVM runs radix guests only';
  expect([ask({}), ask({ nested: true }), ask({ runningVcpus: [1, 2] })]).toEqual([
    undefined,
    radix,
    running('the table can be allocated'),
  ]);
  const make = (change: Partial<typeof HTAB>) => answer(NEW_HTAB_RULES, { ...HTAB, ...change });
  const gone = 'the table that was there is freed all the same';
  const range = (order: number) => `EINVAL: order ${order} is not 18 to 46 (256 KiB to 64 TiB); ${gone}`;
  expect([18, 40].map((order) => make({ order }))).toEqual([undefined, undefined]);
  expect([17, 47].map((order) => make({ order }))).toEqual([range(17), range(47)]);
  expect(make({ order: 46, hostOrder: 46 })).toBe(undefined);
  expect(make({ order: 41 })).toBe(`ENOMEM: the host has no 2T of contiguous memory for a table of order 41; ${gone}`);
});

const RESIZE: CommitHptContext = { flags: 0n, order: 24, radix: false, ready: true, prepared: 24 };

it.each<[string, Partial<CommitHptContext>, string | undefined]>([
  ['what is right', {}, undefined],
  ['the smallest', { order: 18, prepared: 18 }, undefined],
  ['the largest', { order: 46, prepared: 46 }, undefined],
  ['none', { order: 0, prepared: 0 }, undefined],
  ['flags', { flags: 2n }, 'EINVAL: flags 0x2: none are known'],
  [
    'radix',
    { radix: true },
    'EINVAL: there is no hashed page table (a VM begins with radix on POWER9): allocate one first',
  ],
  ['smaller', { order: 17 }, 'EINVAL: order 17 is neither 18 to 46 nor 0, which takes back what was prepared'],
  ['larger', { order: 47 }, 'EINVAL: order 47 is neither 18 to 46 nor 0, which takes back what was prepared'],
])('RESIZE_HPT: %s', (_, change, expected) => {
  expect(answer(RESIZE_HPT_RULES, { ...RESIZE, ...change })).toBe(expected);
  expect(answer(COMMIT_HPT_RULES, { ...RESIZE, ...change })).toBe(expected);
});

it('COMMIT wants a table in use, and the order that was prepared', () => {
  const ask = (change: Partial<CommitHptContext>) => answer(COMMIT_HPT_RULES, { ...RESIZE, ...change });
  expect(ask({ ready: false })).toBe(
    'EIO: the table is not in use yet, for no vCPU has run: allocate one of order 24 instead of resizing',
  );
  expect(ask({ prepared: undefined })).toBe('ENXIO: order 24 was not prepared');
  expect(ask({ prepared: 20 })).toBe('ENXIO: order 24 was not prepared; order 20 was');
});

it.each([
  [0n, 0n, undefined],
  [3n, (1n << 63n) | 24n, undefined],
  [1n, (1n << 63n) | 0xfff0_0000n, undefined],
  [4n, 0n, 'EINVAL: flags 0x4: only RADIX (1) and GTSE (2) are known'],
  [1n, 24n, 'EINVAL: bit 63 (GR) of the process table 0x18 must be set for radix, and for radix only'],
  [
    2n,
    1n << 63n,
    'EINVAL: bit 63 (GR) of the process table 0x8000000000000000 must be set for radix, and for radix only',
  ],
  [0n, 25n, 'EINVAL: size 25 of the process table is more than 24'],
] as const)('CONFIGURE_V3_MMU with flags %i, process table %i', (flags, processTable, expected) => {
  expect(answer(CONFIGURE_V3_RULES, { flags, processTable })).toBe(expected);
});

it('between radix and hash', () => {
  expect(answer(SWITCH_MMU_RULES, { runningVcpus: [] })).toBe(undefined);
  expect(answer(SWITCH_MMU_RULES, { runningVcpus: [1, 2] })).toBe(running('a VM changes between radix and hash'));
});

it('HTAB descriptors', () => {
  expect([0n, 3n].map((flags) => answer(HTAB_FD_RULES, { flags }))).toEqual([undefined, undefined]);
  expect(answer(HTAB_FD_RULES, { flags: 5n })).toBe('EINVAL: flags 0x5: only BOLTED_ONLY (1) and WRITE (2) are known');
  expect(answer(HTAB_WRITE_RULES, { radix: false, runningVcpus: [] })).toBe(undefined);
  expect(answer(HTAB_WRITE_RULES, { radix: false, runningVcpus: [1, 2] })).toBe(running('entries can be written'));
  expect(answer(HTAB_WRITE_RULES, { radix: true, runningVcpus: [1] })).toBe(
    'EINVAL: the VM has no hashed page table (it begins with radix on POWER9): allocate one first',
  );
});

it.each([
  [0, 8, 8, 16, undefined],
  [15, 0, 0, 16, undefined],
  [16, 0, 0, 16, 'slots 16 to 15 are not in a table of 16 entries'],
  [4, 8, 5, 16, 'slots 4 to 16 are not in a table of 16 entries'],
  [0, 0, 0, 0, 'the VM has no hashed page table'],
])('a chunk from %i of %i and %i entries in a table of %i', (index, nValid, nInvalid, entryCount, why) => {
  expect(answer(HTAB_CHUNK_RULES, { index, nValid, nInvalid, entryCount })).toBe(why && `EINVAL: ${why}`);
});
