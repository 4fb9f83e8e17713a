import { expect, it } from 'vitest';
import { DIRTY_RING_MAX_BYTES, DIRTY_RING_RULES, type DirtyRingContext } from '../../../lib/rules/dirty-ring.ts';
import { answer } from './answer.ts';

const FINE: DirtyRingContext = { bytes: 4096n, pageSize: 4096, maxBytes: DIRTY_RING_MAX_BYTES, enabled: 0, vcpus: 0 };
const small = (bytes: number, page: number): string =>
  `EINVAL: the ring's size, ${bytes} bytes, is smaller than a page (${page}) or than its 64 reserved entries of 16 bytes`;

it.each<[string, Partial<DirtyRingContext>, string | undefined]>([
  ['what is right', {}, undefined],
  ['the largest', { bytes: 0x10_0000n }, undefined],
  ['no rings', { maxBytes: 0 }, 'EINVAL: this architecture has no such dirty ring'],
  ['no bytes', { bytes: 0n }, "EINVAL: the ring's size, 0 bytes, is not a power of two"],
  ['no power of two', { bytes: 12288n }, "EINVAL: the ring's size, 12288 bytes, is not a power of two"],
  ['less than a page', { bytes: 4096n, pageSize: 65536 }, small(4096, 65536)],
  ['less than what is reserved', { bytes: 512n, pageSize: 512 }, small(512, 512)],
  ['as much as is reserved', { bytes: 1024n, pageSize: 512 }, undefined],
  [
    'more than the largest',
    { bytes: 0x20_0000n },
    "E2BIG: the ring's size, 0x200000 bytes, is above the largest, 0x100000",
  ],
  ['twice', { enabled: 4096 }, 'EINVAL: a ring of 4096 bytes was enabled before; it can be set once'],
  ['vCPUs', { vcpus: 2 }, 'EINVAL: the VM has 2 vCPUs already; enable the ring before the first'],
])('%s', (_, change, expected) => {
  expect(answer(DIRTY_RING_RULES, { ...FINE, ...change })).toBe(expected);
});
