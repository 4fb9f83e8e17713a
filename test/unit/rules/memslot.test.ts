import { describe, expect, it } from 'vitest';
import { isPlaced, type KnownMemslot, memslotChange, memslotRules } from '../../../lib/rules/memslot.ts';
import { MEM } from '../../../lib/uapi/flags.ts';
import { answer } from './answer.ts';
import { LIMITS, type MemslotChanges, memslotContext } from './memslot-context.ts';

const OTHER: KnownMemslot = { id: 5, baseGfn: 0x102, npages: 8, flags: 0, hva: 0n };
const { LOG_DIRTY_PAGES: LOG, READONLY, GUEST_MEMFD } = MEM;
const live = (text: string): string => `EINVAL: slot 3 ${text}`;

describe.each<[string, [string, MemslotChanges, string | undefined][]]>([
  [
    'flags',
    [
      ['all that there are', { request: { flags: LOG | READONLY } }, undefined],
      [
        'of the second version in the first',
        { request: { version: 1, flags: GUEST_MEMFD | LOG } },
        'EINVAL: flags LOG_DIRTY_PAGES | GUEST_MEMFD are not for KVM_SET_USER_MEMORY_REGION, which takes LOG_DIRTY_PAGES and READONLY',
      ],
      [
        'unknown to both',
        { request: { version: 1, flags: 0x8000_0000 | 0 } },
        'EINVAL: flags 0x80000000 are not for KVM_SET_USER_MEMORY_REGION, which takes LOG_DIRTY_PAGES and READONLY',
      ],
      ['of the first version in the first', { request: { version: 1, flags: LOG | READONLY } }, undefined],
      [
        'before 6.8: looked at after the slot',
        { request: { version: 1, flags: GUEST_MEMFD, slot: 8 }, limits: { version1RefusesFlags: false } },
        'EINVAL: slot id 8 is beyond the last one, 7 (KVM_CAP_NR_MEMSLOTS is 8)',
      ],
      [
        'no READONLY on this VM',
        { request: { flags: READONLY | LOG }, limits: { readonlyMem: false, guestMemfd: false } },
        'EINVAL: flags READONLY are not possible on this VM, which takes LOG_DIRTY_PAGES',
      ],
      [
        'no guest_memfd on this VM',
        { request: { flags: GUEST_MEMFD }, limits: { guestMemfd: false } },
        'EINVAL: flags GUEST_MEMFD are not possible on this VM, which takes LOG_DIRTY_PAGES | READONLY',
      ],
      [
        'others beside GUEST_MEMFD',
        { request: { flags: GUEST_MEMFD | LOG | READONLY } },
        'EINVAL: flags LOG_DIRTY_PAGES | READONLY are not possible on this VM, which takes GUEST_MEMFD',
      ],
      [
        'unknown ones',
        { request: { flags: 0x10 | LOG } },
        'EINVAL: flags 0x10 are not possible on this VM, which takes LOG_DIRTY_PAGES | READONLY | GUEST_MEMFD',
      ],
    ],
  ],
  [
    'the slot word',
    [
      ['the last slot', { request: { slot: 0x1_0007 } }, undefined],
      ['behind it', { request: { slot: 8 } }, 'EINVAL: slot id 8 is beyond the last one, 7 (KVM_CAP_NR_MEMSLOTS is 8)'],
      [
        'an address space that is not there',
        { request: { slot: 0x2_0003 } },
        'EINVAL: address space 2 (slot word 0x20003) is not there: this VM has 2',
      ],
    ],
  ],
  [
    'alignment',
    [
      ['size', { request: { size: 0x4001n } }, 'EINVAL: memory_size 0x4001 is not a multiple of the page size, 0x1000'],
      ['gpa', { request: { gpa: 8n } }, 'EINVAL: guest_phys_addr 0x8 is not a multiple of the page size, 0x1000'],
      ['hva', { request: { hva: 9n } }, 'EINVAL: userspace_addr 0x9 is not a multiple of the page size, 0x1000'],
      [
        'of larger pages',
        { request: { size: 0x1_0000n, gpa: 0x1000n }, limits: { pageSize: 65536 } },
        'EINVAL: guest_phys_addr 0x1000 is not a multiple of the page size, 0x10000',
      ],
    ],
  ],
  [
    'ranges',
    [
      ['up to the end of user space', { request: { hva: (1n << 47n) - 0x4000n } }, undefined],
      [
        'beyond it',
        { request: { hva: (1n << 47n) - 0x3000n } },
        'EINVAL: the host range [0x7fffffffd000, 0x800000001000) is not inside user space, which ends at 0x800000000000',
      ],
      ['up to the end of guest addresses but one page', { request: { gpa: 2n ** 64n - 0x5000n } }, undefined],
      [
        'up to the end',
        { request: { gpa: 2n ** 64n - 0x4000n } },
        'EINVAL: guest_phys_addr 0xffffffffffffc000 + memory_size 0x4000 wraps 64 bits',
      ],
      [
        'as many pages as a slot holds',
        { request: { size: BigInt(2 ** 31 - 1) * 0x1000n }, limits: { hvaLimit: 1n << 60n } },
        undefined,
      ],
      [
        'one more',
        { request: { size: 0x1000n << 31n }, limits: { hvaLimit: 1n << 60n } },
        'EINVAL: memory_size 0x80000000000 is 2147483648 pages; one slot holds at most 2147483647',
      ],
      ['the most pages of all slots', { totalPages: 2 ** 64 - 4096 }, undefined],
      [
        'one more than fits',
        { totalPages: 2 ** 64 - 2048, request: { size: 0x80_0000n } },
        'EINVAL: the number of pages in all slots would wrap 64 bits',
      ],
      ['too many of them', { totalPages: 2 ** 64 }, 'EINVAL: the number of pages in all slots would wrap 64 bits'],
      ['which a slot that is there has been counted in', { totalPages: 2 ** 64, existing: {} }, undefined],
    ],
  ],
  [
    'guest_memfd',
    [
      ['fine', { request: { flags: GUEST_MEMFD, guestMemfdOffset: 0x1000n } }, undefined],
      [
        'an offset',
        { request: { flags: GUEST_MEMFD, guestMemfdOffset: 1n } },
        'EINVAL: guest_memfd_offset 0x1 is not a multiple of 0x1000, or wraps with the size 0x4000',
      ],
      ['nobody looks at', { request: { guestMemfdOffset: 1n } }, undefined],
      ['the last offset', { request: { flags: GUEST_MEMFD, guestMemfdOffset: 2n ** 64n - 0x5000n } }, undefined],
      [
        'one that wraps',
        { request: { flags: GUEST_MEMFD, guestMemfdOffset: 2n ** 64n - 0x4000n } },
        'EINVAL: guest_memfd_offset 0xffffffffffffc000 is not a multiple of 0x1000, or wraps with the size 0x4000',
      ],
      [
        'on a slot that is there',
        { request: { flags: GUEST_MEMFD }, existing: {} },
        live('exists, and a slot with guest_memfd can only be created or deleted'),
      ],
      ['not named when the slot goes', { request: { size: 0n }, existing: { flags: GUEST_MEMFD } }, undefined],
      [
        'of a slot that goes',
        { request: { flags: GUEST_MEMFD, size: 0n }, existing: { flags: GUEST_MEMFD } },
        undefined,
      ],
      [
        'dropped',
        { existing: { flags: GUEST_MEMFD } },
        live('has guest_memfd, which cannot be dropped from a live slot'),
      ],
    ],
  ],
  [
    'a slot that is there',
    [
      ['goes', { request: { size: 0n, hva: 0n, flags: READONLY }, existing: {} }, undefined],
      [
        'or is not',
        { request: { size: 0n, slot: 0x1_0003 } },
        'EINVAL: memory_size 0 deletes a slot, and there is no slot 3 in address space 1',
      ],
      ['goes from the last page', { request: { size: 0n, gpa: 2n ** 64n - 0x1000n }, existing: {} }, undefined],
      ['other flags', { request: { flags: LOG }, existing: {} }, undefined],
      [
        'other memory',
        { request: { hva: 0x7000_1000n }, existing: {} },
        live('is backed by 0x70000000, not 0x70001000: delete it and create it anew'),
      ],
      [
        'another size',
        { request: { size: 0x5000n }, existing: {} },
        live('has size 0x4000, not 0x5000: a slot cannot be resized, delete it and create it anew'),
      ],
      [
        'becomes read-only',
        { request: { flags: READONLY }, existing: {} },
        live('is writable, and READONLY cannot change on a live slot: delete it and create it anew'),
      ],
      [
        'becomes writable',
        { existing: { flags: READONLY } },
        live('is read-only, and READONLY cannot change on a live slot: delete it and create it anew'),
      ],
    ],
  ],
  [
    'overlaps',
    [
      ['made', { others: [OTHER] }, 'EEXIST: slot 3 [0x100000, 0x104000) overlaps slot 5 [0x102000, 0x10a000)'],
      [
        'moved',
        { request: { gpa: 0x10_1000n }, existing: {}, others: [OTHER] },
        'EEXIST: slot 3 [0x101000, 0x105000) overlaps slot 5 [0x102000, 0x10a000)',
      ],
      ['beside', { request: { gpa: 0xf_e000n }, others: [OTHER] }, undefined],
      ['of a slot that stays', { existing: {}, others: [OTHER] }, undefined],
      ['of a slot that goes', { request: { size: 0n }, existing: {}, others: [OTHER] }, undefined],
    ],
  ],
])('%s', (_, cases) => {
  it.each(cases)('%s', (_case, change, expected) => {
    const asked = memslotContext(change);
    expect(answer(memslotRules(asked.limits), asked)).toBe(expected);
  });
});

it.each<[string, MemslotChanges, boolean]>([
  ['create', {}, true],
  ['delete', { request: { size: 0n }, existing: {} }, false],
  ['move', { request: { gpa: 0x10_1000n }, existing: {} }, true],
  ['flags-only', { request: { flags: LOG }, existing: {} }, false],
  ['none', { existing: {} }, false],
])('%s is what a request does', (expected, change, placed) => {
  expect([memslotChange(memslotContext(change)), isPlaced(memslotContext(change))]).toEqual([expected, placed]);
});

it('an architecture’s own rules come last', () => {
  const last = { errno: 'EPERM', broken: () => true, why: () => 'because' } as const;
  const limits = { ...LIMITS, prepare: [last] };
  expect(answer(memslotRules(limits), memslotContext({ limits }))).toBe('EPERM: because');
  expect(answer(memslotRules(limits), memslotContext({ limits, request: { gpa: 8n } }))).toMatch(/^EINVAL: guest_phys/);
});
