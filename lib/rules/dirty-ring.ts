import { hex } from '../base/errors.ts';
import { counted } from '../base/text.ts';
import { KVM_DIRTY_GFN } from '../uapi/structs.ts';
import type { Rule } from './rule.ts';

/** What the rules of ENABLE_CAP(DIRTY_LOG_RING or _ACQ_REL) look at. */
export interface DirtyRingContext {
  readonly bytes: bigint;
  readonly pageSize: number;
  /** What CHECK_EXTENSION says is the largest ring, in bytes; 0 where the architecture has none. */
  readonly maxBytes: number;
  /** Size of a ring that was enabled before, or 0. */
  readonly enabled: number;
  readonly vcpus: number;
}

/** Entries of a ring that are kept free for what one exit may still push (`KVM_DIRTY_RING_RSVD_ENTRIES`). */
export const DIRTY_RING_RESERVED = 64;
const ENTRY_BYTES = KVM_DIRTY_GFN.size;
/** The largest ring, where there are any (`KVM_DIRTY_RING_MAX_ENTRIES`). */
export const DIRTY_RING_MAX_BYTES = 65536 * ENTRY_BYTES;

/** The checks of enabling a dirty ring, in order (`kvm_vm_ioctl_enable_dirty_log_ring`). */
export const DIRTY_RING_RULES: readonly Rule<DirtyRingContext>[] = [
  {
    errno: 'EINVAL',
    broken: ({ maxBytes }) => maxBytes === 0,
    why: () => 'this architecture has no such dirty ring',
  },
  {
    errno: 'EINVAL',
    broken: ({ bytes }) => bytes === 0n || (bytes & (bytes - 1n)) !== 0n,
    why: ({ bytes }) => `the ring's size, ${bytes} bytes, is not a power of two`,
  },
  {
    errno: 'EINVAL',
    broken: ({ bytes, pageSize }) => bytes < BigInt(Math.max(DIRTY_RING_RESERVED * ENTRY_BYTES, pageSize)),
    why: ({ bytes, pageSize }) =>
      `the ring's size, ${bytes} bytes, is smaller than a page (${pageSize}) or than its ${DIRTY_RING_RESERVED} reserved entries of ${ENTRY_BYTES} bytes`,
  },
  {
    errno: 'E2BIG',
    broken: ({ bytes, maxBytes }) => bytes > BigInt(maxBytes),
    why: ({ bytes, maxBytes }) => `the ring's size, ${hex(bytes)} bytes, is above the largest, ${hex(maxBytes)}`,
  },
  {
    errno: 'EINVAL',
    broken: ({ enabled }) => enabled !== 0,
    why: ({ enabled }) => `a ring of ${enabled} bytes was enabled before; it can be set once`,
  },
  {
    errno: 'EINVAL',
    broken: ({ vcpus }) => vcpus !== 0,
    why: ({ vcpus }) => `the VM has ${counted(vcpus, 'vCPU')} already; enable the ring before the first`,
  },
];
