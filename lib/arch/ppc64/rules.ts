import { hex } from '../../base/errors.ts';
import type { Rule } from '../../rules/rule.ts';
import { HTAB, MMUV3 } from '../../uapi/flags.ts';
import { HPT_ORDER } from './model/hash.ts';
import { pageSizeName } from './model/page-sizes.ts';

/** The vCPUs that keep the table from being changed: those inside KVM_RUN. */
export interface HptUse {
  readonly runningVcpus: readonly number[];
}

const inUse = (what: string): Rule<HptUse> => ({
  errno: 'EBUSY',
  broken: ({ runningVcpus }) => runningVcpus.length > 0,
  why: ({ runningVcpus }) =>
    `${what} only while no vCPU is inside KVM_RUN, and vCPU ${runningVcpus.join(', ')} is: kick it, and wait for its run to end`,
});

const orderInRange = (order: number): boolean => order >= HPT_ORDER.MIN && order <= HPT_ORDER.MAX;

/** A KVM_PPC_ALLOCATE_HTAB. */
export interface AllocateHtabContext extends HptUse {
  readonly order: number;
  /** The host is itself a guest of another hypervisor. */
  readonly nested: boolean;
  /** Largest order that the host has contiguous memory for. */
  readonly hostOrder: number;
}

/** What ALLOCATE_HTAB checks while the old table is still there. */
export const ALLOCATE_HTAB_RULES: readonly Rule<AllocateHtabContext>[] = [
  {
    errno: 'EOPNOTSUPP',
    broken: ({ nested }) => nested,
    why: () => 'this host is itself a guest (pseries), and its KVM runs radix guests only',
  },
  inUse('the table can be allocated'),
];

/** What it checks for a table of another order than there is, when that one is gone. */
export const NEW_HTAB_RULES: readonly Rule<AllocateHtabContext>[] = [
  {
    errno: 'EINVAL',
    broken: ({ order }) => !orderInRange(order),
    why: ({ order }) =>
      `order ${order} is not ${HPT_ORDER.MIN} to ${HPT_ORDER.MAX} (256 KiB to 64 TiB); the table that was there is freed all the same`,
  },
  {
    errno: 'ENOMEM',
    broken: ({ order, hostOrder }) => order > hostOrder,
    why: ({ order }) =>
      `the host has no ${pageSizeName(order)} of contiguous memory for a table of order ${order}; the table that was there is freed all the same`,
  },
];

/** A KVM_PPC_RESIZE_HPT_PREPARE or _COMMIT. */
export interface ResizeHptContext {
  readonly flags: bigint;
  readonly order: number;
  readonly radix: boolean;
}

export const RESIZE_HPT_RULES: readonly Rule<ResizeHptContext>[] = [
  {
    errno: 'EINVAL',
    broken: ({ flags }) => flags !== 0n,
    why: ({ flags }) => `flags ${hex(flags)}: none are known`,
  },
  {
    errno: 'EINVAL',
    broken: ({ radix }) => radix,
    why: () => 'there is no hashed page table (a VM begins with radix on POWER9): allocate one first',
  },
  {
    errno: 'EINVAL',
    broken: ({ order }) => order !== 0 && !orderInRange(order),
    why: ({ order }) =>
      `order ${order} is neither ${HPT_ORDER.MIN} to ${HPT_ORDER.MAX} nor 0, which takes back what was prepared`,
  },
];

export interface CommitHptContext extends ResizeHptContext {
  /** Whether a vCPU has run on the table, or entries for real mode were written. */
  readonly ready: boolean;
  /** The order that was prepared. */
  readonly prepared: number | undefined;
}

/** What COMMIT checks besides; what became of the preparation, and of rehashing (ENOSPC), follows. */
export const COMMIT_HPT_RULES: readonly Rule<CommitHptContext>[] = [
  ...RESIZE_HPT_RULES,
  {
    errno: 'EIO',
    broken: ({ ready }) => !ready,
    why: ({ order }) =>
      `the table is not in use yet, for no vCPU has run: allocate one of order ${order} instead of resizing`,
  },
  {
    errno: 'ENXIO',
    broken: ({ order, prepared }) => order !== prepared,
    why: ({ order, prepared }) =>
      `order ${order} was not prepared${prepared === undefined ? '' : `; order ${prepared} was`}`,
  },
];

/** Why rehashing fails when everything was prepared. */
export const REHASH_COLLISION =
  'two bolted entries would fall into the same slot of the smaller table; the guest has to remove some, or the table must be larger';

/** A KVM_PPC_CONFIGURE_V3_MMU. */
export interface ConfigureV3Context {
  readonly flags: bigint;
  readonly processTable: bigint;
}

/** GR of the process table's doubleword: the guest uses radix. */
export const PATB_GR = 1n << 63n;
/** Size of the process table: 2^(12 + this) bytes. */
const PRTS_MASK = 0x1fn;
const PRTS_MAX = 24n;

export const CONFIGURE_V3_RULES: readonly Rule<ConfigureV3Context>[] = [
  {
    errno: 'EINVAL',
    broken: ({ flags }) => (flags & ~(MMUV3.RADIX | MMUV3.GTSE)) !== 0n,
    why: ({ flags }) => `flags ${hex(flags)}: only RADIX (1) and GTSE (2) are known`,
  },
  {
    errno: 'EINVAL',
    broken: ({ flags, processTable }) => ((processTable & PATB_GR) !== 0n) !== ((flags & MMUV3.RADIX) !== 0n),
    why: ({ processTable }) =>
      `bit 63 (GR) of the process table ${hex(processTable)} must be set for radix, and for radix only`,
  },
  {
    errno: 'EINVAL',
    broken: ({ processTable }) => (processTable & PRTS_MASK) > PRTS_MAX,
    why: ({ processTable }) => `size ${processTable & PRTS_MASK} of the process table is more than ${PRTS_MAX}`,
  },
];

/** Changing between radix and hash. */
export const SWITCH_MMU_RULES: readonly Rule<HptUse>[] = [inUse('a VM changes between radix and hash')];

/** A KVM_PPC_GET_HTAB_FD. */
export const HTAB_FD_RULES: readonly Rule<{ readonly flags: bigint }>[] = [
  {
    errno: 'EINVAL',
    broken: ({ flags }) => (flags & ~BigInt(HTAB.BOLTED_ONLY | HTAB.WRITE)) !== 0n,
    why: ({ flags }) => `flags ${hex(flags)}: only BOLTED_ONLY (1) and WRITE (2) are known`,
  },
];

/** A write(2) to an HTAB fd. */
export interface HtabWriteContext extends HptUse {
  readonly radix: boolean;
}

/** What is checked before the first chunk. */
export const HTAB_WRITE_RULES: readonly Rule<HtabWriteContext>[] = [
  {
    errno: 'EINVAL',
    broken: ({ radix }) => radix,
    why: () => 'the VM has no hashed page table (it begins with radix on POWER9): allocate one first',
  },
  inUse('entries can be written'),
];

/** A chunk of such a write. */
export interface HtabChunkContext {
  readonly index: number;
  readonly nValid: number;
  readonly nInvalid: number;
  /** 0 without a table. */
  readonly entryCount: number;
}

export const HTAB_CHUNK_RULES: readonly Rule<HtabChunkContext>[] = [
  {
    errno: 'EINVAL',
    broken: ({ index, nValid, nInvalid, entryCount }) => index >= entryCount || index + nValid + nInvalid > entryCount,
    why: ({ index, nValid, nInvalid, entryCount }) =>
      entryCount === 0
        ? 'the VM has no hashed page table'
        : `slots ${index} to ${index + nValid + nInvalid - 1} are not in a table of ${entryCount} entries`,
  },
];
