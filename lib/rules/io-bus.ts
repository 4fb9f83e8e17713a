import { hex } from '../base/errors.ts';
import { IOEVENTFD } from '../uapi/flags.ts';
import type { Rule } from './rule.ts';

/** What the rules of assigning an IOEVENTFD look at, up to the point where its fd is. */
export interface IoeventfdContext {
  readonly addr: bigint;
  readonly len: number;
  readonly flags: number;
}

const LENGTHS = [0, 1, 2, 4, 8];
const KNOWN =
  IOEVENTFD.DATAMATCH | IOEVENTFD.PIO | IOEVENTFD.DEASSIGN | IOEVENTFD.VIRTIO_CCW_NOTIFY | IOEVENTFD.FAST_MMIO;

/** The checks of KVM_IOEVENTFD, in order (`virt/kvm/eventfd.c`); the fd and collisions (EEXIST) follow. */
export const IOEVENTFD_RULES: readonly Rule<IoeventfdContext>[] = [
  {
    errno: 'EINVAL',
    broken: ({ len }) => !LENGTHS.includes(len),
    why: ({ len }) => `len ${len} is none of ${LENGTHS.join(', ')}`,
  },
  {
    errno: 'EINVAL',
    broken: ({ addr, len }) => addr + BigInt(len) >= 1n << 64n,
    why: ({ addr, len }) => `addr ${hex(addr)} + len ${len} wraps 64 bits`,
  },
  {
    errno: 'EINVAL',
    broken: ({ flags }) => (flags & ~KNOWN) !== 0,
    why: ({ flags }) => `flags ${hex((flags & ~KNOWN) >>> 0)} are unknown`,
  },
  {
    errno: 'EINVAL',
    broken: ({ len, flags }) => len === 0 && (flags & IOEVENTFD.DATAMATCH) !== 0,
    why: () => 'len 0 matches any length, so there is no value to match (DATAMATCH)',
  },
];
