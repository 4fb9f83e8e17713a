import { beforeEach, expect, it } from 'vitest';
import { ERRNO, loadNative } from '../../../lib/raw.ts';
import { hostCalls } from '../sharing/host.ts';

// Their results are compared with those in TypeScript where these are tested: here is what only the addon looks at.

beforeEach((test) => void hostCalls(test));

const loops = () => loadNative() as Extract<ReturnType<typeof loadNative>, { readonly calls: unknown }>;

it('the loop over addresses refuses places outside of its arrays, and addresses beyond 2^53', () => {
  const { addresses } = loops();
  const [gpas, into, most] = [new Float64Array(4), new Float64Array(4), Number.MAX_SAFE_INTEGER];
  expect(addresses.place(gpas, 0, into, 0, 4, 0, 0, 0)).toBe(4);
  for (const [from, at, count, low, high, hva] of [
    [0, 0, 5, 0, 0, 0],
    [1, 0, 4, 0, 0, 0],
    [5, 0, 0, 0, 0, 0],
    [0, 1, 4, 0, 0, 0],
    [0, 5, 0, 0, 0, 0],
    [0, 0, most, 0, 0, 0],
    [0, 0, 4, 0, 1, most],
  ] as const) {
    expect(addresses.place(gpas, from, into, at, count, low, high, hva)).toBe(-ERRNO.EINVAL);
  }
});

it('the loop over storage keys refuses arrays of two lengths', () => {
  const { storageKeys } = loops();
  expect(storageKeys.note(new Uint8Array(8), new Uint8Array(9))).toBe(-ERRNO.EINVAL);
  expect(storageKeys.note(new Uint8Array(9), new Uint8Array(8))).toBe(-ERRNO.EINVAL);
});
