import { expect, it } from 'vitest';
import { GUEST_MEMFD_RULES, type GuestMemfdContext } from '../../../lib/rules/guest-memfd.ts';
import { answer } from './answer.ts';

const FINE: GuestMemfdContext = { size: 0x1000n, flags: 0n, known: 0n, pageSize: 4096 };
const size = (bytes: string): string =>
  `EINVAL: size ${bytes} is not a multiple of the page size, 0x1000, from that to below 2^63`;

it.each<[string, Partial<GuestMemfdContext>, string | undefined]>([
  ['what is right', {}, undefined],
  ['a flag that is known', { flags: 1n, known: 3n }, undefined],
  [
    'one that is not',
    { flags: 3n, known: 1n },
    "EINVAL: flags 0x3 have bits that this VM's guest_memfd doesn't know (MMAP = 1, INIT_SHARED = 2; known: 0x1)",
  ],
  ['no size', { size: 0n }, size('0x0')],
  ['part of a page', { size: 0x1001n }, size('0x1001')],
  ['the largest', { size: (1n << 63n) - 0x1000n }, undefined],
  ['a negative loff_t', { size: 1n << 63n }, size('0x8000000000000000')],
])('%s', (_, change, expected) => {
  expect(answer(GUEST_MEMFD_RULES, { ...FINE, ...change })).toBe(expected);
});
