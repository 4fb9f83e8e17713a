import { ERRNO } from '../uapi/errno.ts';

/**
 * KVM_PRE_FAULT_MEMORY as every architecture has it: `range` is [gpa, size], updated to what is left.
 * @param fault makes the page at an address present: the bytes that it did, or −errno
 */
export function preFault(
  range: BigUint64Array,
  flags: bigint,
  pageSize: number,
  fault: (gpa: bigint) => number,
): number {
  const page = BigInt(pageSize);
  const [gpa = 0n, size = 0n] = range;
  const wraps = size === 0n || gpa + size >= 1n << 64n;
  if (flags !== 0n || gpa % page !== 0n || size % page !== 0n || wraps) return -ERRNO.EINVAL;
  for (let left = size; left > 0n; left = range[1]!) {
    const done = fault(range[0]!);
    if (done < 0) return left === size ? done : 0;
    range[0] = range[0]! + BigInt(done);
    range[1] = left - BigInt(done);
  }
  return 0;
}
