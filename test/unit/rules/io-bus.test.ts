import { expect, it } from 'vitest';
import { IOEVENTFD_RULES, type IoeventfdContext } from '../../../lib/rules/io-bus.ts';
import { IOEVENTFD } from '../../../lib/uapi/flags.ts';
import { answer } from './answer.ts';

const FINE: IoeventfdContext = { addr: 0x1000n, len: 4, flags: 0 };

it.each<[string, Partial<IoeventfdContext>, string | undefined]>([
  ...[0, 1, 2, 4, 8].map(
    (len) => [`${len} bytes`, { len }, undefined] as [string, Partial<IoeventfdContext>, undefined],
  ),
  ['all flags', { flags: Object.values<number>(IOEVENTFD).reduce((all, flag) => all | flag) }, undefined],
  ['3 bytes', { len: 3 }, 'EINVAL: len 3 is none of 0, 1, 2, 4, 8'],
  ['the end', { addr: 2n ** 64n - 5n }, undefined],
  ['beyond', { addr: 2n ** 64n - 4n }, 'EINVAL: addr 0xfffffffffffffffc + len 4 wraps 64 bits'],
  ['an unknown flag', { flags: 0x8000_0001 | 0 }, 'EINVAL: flags 0x80000000 are unknown'],
  ['no length', { len: 0, flags: IOEVENTFD.PIO }, undefined],
  [
    'no length with a value',
    { len: 0, flags: IOEVENTFD.DATAMATCH },
    'EINVAL: len 0 matches any length, so there is no value to match (DATAMATCH)',
  ],
])('%s', (_, change, expected) => {
  expect(answer(IOEVENTFD_RULES, { ...FINE, ...change })).toBe(expected);
});
