import { hex } from '../base/errors.ts';
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
