import { hex, hexRange } from '../base/errors.ts';
import { GUEST_MEMFD_FLAG } from '../uapi/flags.ts';
import type { Rule } from './rule.ts';

/** What CREATE_GUEST_MEMFD looks at. */
export interface GuestMemfdContext {
  readonly size: bigint;
  readonly flags: bigint;
  /** Flags that this VM's may have: CHECK_EXTENSION(GUEST_MEMFD_FLAGS), 0 before 6.18. */
  readonly known: bigint;
  readonly pageSize: number;
}

const NAMES = Object.entries(GUEST_MEMFD_FLAG).map(([name, bit]) => `${name} = ${bit}`);

export const GUEST_MEMFD_RULES: readonly Rule<GuestMemfdContext>[] = [
  {
    errno: 'EINVAL',
    broken: ({ flags, known }) => (flags & ~known) !== 0n,
    why: ({ flags, known }) =>
      `flags ${hex(flags)} have bits that this VM's guest_memfd doesn't know (${NAMES.join(', ')}; known: ${hex(known)})`,
  },
  {
    errno: 'EINVAL',
    // The kernel's loff_t is signed.
    broken: ({ size, pageSize }) => BigInt.asIntN(64, size) <= 0n || size % BigInt(pageSize) !== 0n,
    why: ({ size, pageSize }) =>
      `size ${hex(size)} is not a multiple of the page size, ${hex(pageSize)}, from that to below 2^63`,
  },
];

/** What fallocate(2) of a guest_memfd looks at. */
export interface FallocateContext {
  readonly offset: number;
  readonly length: number;
  readonly size: number;
  readonly pageSize: number;
  /** Pages are given back: what is beyond the end is nothing. */
  readonly punches: boolean;
}

export const FALLOCATE_RULES: readonly Rule<FallocateContext>[] = [
  {
    errno: 'EINVAL',
    broken: ({ length }) => length === 0,
    why: () => 'a length of 0 is no range',
  },
  {
    errno: 'EINVAL',
    broken: ({ offset, pageSize }) => offset % pageSize !== 0,
    why: ({ offset, pageSize }) => `offset ${hex(offset)} is not a multiple of the page size, ${hex(pageSize)}`,
  },
  {
    errno: 'EINVAL',
    broken: ({ length, pageSize }) => length % pageSize !== 0,
    why: ({ length, pageSize }) => `length ${hex(length)} is not a multiple of the page size, ${hex(pageSize)}`,
  },
  {
    errno: 'EINVAL',
    broken: ({ offset, length, size, punches }) => !punches && offset + length > size,
    why: ({ offset, length, size }) =>
      `${hexRange(offset, length)} reaches beyond the guest_memfd, which has ${hex(size)} bytes`,
  },
];
