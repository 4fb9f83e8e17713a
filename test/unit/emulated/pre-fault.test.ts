import { expect, it } from 'vitest';
import { preFault } from '../../../lib/emulated/pre-fault.ts';
import { ERRNO } from '../../../lib/raw.ts';

const PAGE = 0x1000;
const { EINVAL, ENOENT, EFAULT } = ERRNO;

/** What is answered, what is left of the range, and which pages were asked for. */
function asked(gpa: bigint, size: bigint, fault: (gpa: bigint) => number = () => PAGE, flags = 0n): unknown {
  const range = BigUint64Array.of(gpa, size);
  const pages: bigint[] = [];
  const result = preFault(range, flags, PAGE, (at) => {
    pages.push(at);
    // A range that is no whole pages would never end.
    expect(pages.length).toBeLessThan(8);
    return fault(at);
  });
  return [result, range[0], range[1], pages];
}

it('memory is faulted in beforehand page by page, and what is left is told', () => {
  expect(asked(0x2000n, 0x3000n)).toEqual([0, 0x5000n, 0n, [0x2000n, 0x3000n, 0x4000n]]);
  // What a fault does may be more than a page.
  expect(asked(0x2000n, 0x4000n, () => 2 * PAGE)).toEqual([0, 0x6000n, 0n, [0x2000n, 0x4000n]]);
});

it('the first page that fails is an error, a later one the end', () => {
  const failing = (from: bigint, errno: number) => (at: bigint) => (at >= from ? -errno : PAGE);
  expect(asked(0x2000n, 0x3000n, failing(0n, ENOENT))).toEqual([-ENOENT, 0x2000n, 0x3000n, [0x2000n]]);
  expect(asked(0x2000n, 0x3000n, failing(0x4000n, EFAULT))).toEqual([0, 0x4000n, 0x1000n, [0x2000n, 0x3000n, 0x4000n]]);
});

it('a range is of whole pages below the end of all addresses, and there are no flags', () => {
  const TOP = 1n << 64n;
  for (const [gpa, size, flags] of [
    [0x2000n, 0n, 0n],
    [0x2800n, 0x1000n, 0n],
    [0x2000n, 0x1800n, 0n],
    [TOP - 0x1000n, 0x1000n, 0n],
    [0x2000n, TOP - 0x2000n, 0n],
    [0x2000n, 0x1000n, 1n],
  ] as const)
    expect(asked(gpa, size, undefined, flags)).toEqual([-EINVAL, gpa, size, []]);
  expect(asked(TOP - 0x2000n, 0x1000n)).toEqual([0, TOP - 0x1000n, 0n, [TOP - 0x2000n]]);
});
