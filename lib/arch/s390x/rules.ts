import { hex, hexRange } from '../../base/errors.ts';
import type { U64 } from '../../base/u64.ts';
import { isPlaced, type MemslotContext } from '../../rules/memslot.ts';
import type { Rule } from '../../rules/rule.ts';
import { CMMA_PEEK, MEMOP, MEMOP_FLAG, S390_SKEYS_MAX } from '../../uapi/flags.ts';
import { SEGMENT_SIZE } from './model/dat-entries.ts';

/** Largest transfer of one KVM_S390_MEM_OP: the value of KVM_CAP_S390_MEM_OP. */
export const MEM_OP_MAX_SIZE = 65536;

/** A KVM_S390_MEM_OP as its rules look at it. */
export interface MemOpContext {
  readonly op: number;
  readonly flags: U64;
  readonly size: number;
  readonly ar: number;
  readonly key: number;
  readonly sidaOffset: number;
  /** Bytes of the secure-instruction data area, as the kernel computes them for this vCPU. */
  readonly sidaSize: number;
}

const { CHECK_ONLY, INJECT, SKEY } = MEMOP_FLAG;

function hasUnknown(flags: U64, known: number): boolean {
  return typeof flags === 'number' ? flags > 0xffff_ffff || (flags & ~known) !== 0 : (flags & ~BigInt(known)) !== 0n;
}

function flagsOrSize(allowed: number): Rule<MemOpContext> {
  return {
    errno: 'EINVAL',
    broken: ({ flags, size }) => size === 0 || hasUnknown(flags, allowed),
    why: ({ flags, size }) =>
      size === 0 ? 'size is 0' : `flags ${hex(flags)}: this operation knows only ${hex(allowed)}`,
  };
}

const tooBig: Rule<MemOpContext> = {
  errno: 'E2BIG',
  broken: ({ size }) => size > MEM_OP_MAX_SIZE,
  why: ({ size }) => `size ${size} is more than the ${MEM_OP_MAX_SIZE} bytes one MEM_OP moves`,
};

const badKey: Rule<MemOpContext> = {
  errno: 'EINVAL',
  broken: ({ flags, key }) => key > 15 && (Number(flags) & SKEY) !== 0,
  why: ({ key }) => `access key ${key} is not 0 to 15`,
};

const badAr: Rule<MemOpContext> = {
  errno: 'EINVAL',
  broken: ({ ar }) => ar > 15,
  why: ({ ar }) => `access register ${ar} is not 0 to 15 (checked even when the vCPU is not in access-register mode)`,
};

const wrongFd: Rule<MemOpContext> = {
  errno: 'EINVAL',
  broken: () => true,
  why: ({ op }) => {
    const known = Object.values<number>(MEMOP).includes(op);
    return known ? `operation ${op} belongs to the other kind of descriptor` : `there is no operation ${op}`;
  },
};

/** LOGICAL_READ and LOGICAL_WRITE since 6.3. */
export const LOGICAL_RULES: readonly Rule<MemOpContext>[] = [
  flagsOrSize(CHECK_ONLY | INJECT | SKEY),
  tooBig,
  badKey,
  badAr,
];

/** The same before 6.3, where ar is compared with the flags. */
export const LOGICAL_RULES_BEFORE_6_3: readonly Rule<MemOpContext>[] = [
  flagsOrSize(CHECK_ONLY | INJECT | SKEY),
  badAr,
  tooBig,
  badKey,
];

/** SIDA_READ and SIDA_WRITE of a vCPU that isn't protected: refused in any case, but not always with one errno. */
export const SIDA_RULES: readonly Rule<MemOpContext>[] = [
  flagsOrSize(0),
  {
    errno: 'EINVAL',
    broken: ({ size, sidaOffset }) => size + sidaOffset > 0xffff_ffff,
    why: ({ size, sidaOffset }) => `size ${size} + sida_offset ${sidaOffset} exceeds 32 bits`,
  },
  {
    errno: 'E2BIG',
    broken: ({ size, sidaOffset, sidaSize }) => size + sidaOffset > sidaSize,
    why: ({ size, sidaOffset, sidaSize }) => `size ${size} + sida_offset ${sidaOffset} exceeds ${sidaSize} bytes`,
  },
  {
    errno: 'EINVAL',
    broken: () => true,
    why: () => 'the vCPU is not in protected (secure execution) mode, so it has no secure-instruction data area',
  },
];

/** ABSOLUTE_READ and ABSOLUTE_WRITE. */
export const ABSOLUTE_RULES: readonly Rule<MemOpContext>[] = [flagsOrSize(CHECK_ONLY | SKEY), tooBig, badKey];

/** ABSOLUTE_CMPXCHG, before the operands are copied in. */
export const CMPXCHG_RULES: readonly Rule<MemOpContext>[] = [
  flagsOrSize(SKEY),
  tooBig,
  badKey,
  {
    errno: 'EINVAL',
    broken: ({ size }) => size > 16,
    why: ({ size }) => `size ${size}: compare-exchange is on 1, 2, 4, 8 or 16 bytes`,
  },
];

/** An operation that the descriptor doesn't know. */
export const WRONG_FD_RULES: readonly Rule<MemOpContext>[] = [wrongFd];

/** GET_SKEYS and SET_SKEYS. */
export interface SkeysContext {
  readonly flags: number;
  readonly count: bigint;
}

/** Unknown flags; the first rule of GET_SKEYS and SET_SKEYS. */
export const SKEYS_FLAGS_RULES: readonly Rule<SkeysContext>[] = [
  {
    errno: 'EINVAL',
    broken: ({ flags }) => flags !== 0,
    why: ({ flags }) => `flags ${hex(flags)}: none are known`,
  },
];

/** The count; GET_SKEYS looks at it only if the guest uses keys. */
export const SKEYS_COUNT_RULES: readonly Rule<SkeysContext>[] = [
  {
    errno: 'EINVAL',
    broken: ({ count }) => count < 1n || count > BigInt(S390_SKEYS_MAX),
    why: ({ count }) => `count ${count} is not 1 to ${S390_SKEYS_MAX}`,
  },
];

/** GET_CMMA_BITS and SET_CMMA_BITS. */
export interface CmmaContext {
  readonly enabled: boolean;
  readonly flags: number;
  readonly count: bigint;
  readonly migrating: boolean;
}

const cmmaOff: Rule<CmmaContext> = {
  errno: 'ENXIO',
  broken: ({ enabled }) => !enabled,
  why: () => 'CMMA is not enabled: set the VM attribute MEM_CTRL / ENABLE_CMMA before the first vCPU is created',
};

export const GET_CMMA_RULES: readonly Rule<CmmaContext>[] = [
  cmmaOff,
  {
    errno: 'EINVAL',
    broken: ({ flags }) => (flags & ~CMMA_PEEK) !== 0,
    why: ({ flags }) => `flags ${hex(flags)}: only PEEK (1) is known`,
  },
  {
    errno: 'EINVAL',
    broken: ({ flags, migrating }) => (flags & CMMA_PEEK) === 0 && !migrating,
    why: () => 'without PEEK, CMMA values are given only in migration mode, and it is off',
  },
];

export const SET_CMMA_RULES: readonly Rule<CmmaContext>[] = [
  cmmaOff,
  {
    errno: 'EINVAL',
    broken: ({ flags }) => flags !== 0,
    why: ({ flags }) => `flags ${hex(flags)}: none are known`,
  },
  {
    errno: 'EINVAL',
    broken: ({ count }) => count > BigInt(S390_SKEYS_MAX),
    why: ({ count }) => `count ${count} is more than ${S390_SKEYS_MAX}`,
  },
];

const SEGMENT = BigInt(SEGMENT_SIZE);

/** Up to 6.19, whose guests share page tables with the process: slots are made of whole segments of it. */
const SEGMENT_RULES: readonly Rule<MemslotContext>[] = [
  {
    errno: 'EINVAL',
    broken: (context) => isPlaced(context) && context.request.hva % SEGMENT !== 0n,
    why: ({ request }) =>
      `userspace_addr ${hex(request.hva)} is not a multiple of 1 MiB, which s390x requires before Linux 7.0`,
  },
  {
    errno: 'EINVAL',
    broken: (context) => isPlaced(context) && context.request.size % SEGMENT !== 0n,
    why: ({ request }) =>
      `memory_size ${hex(request.size)} is not a multiple of 1 MiB, which s390x requires before Linux 7.0`,
  },
];

/**
 * The architecture's checks of a memslot (`kvm_arch_prepare_memory_region`), for slots that are created or moved.
 * @param segments whether slots are made of whole segments
 */
export function s390xMemslotRules(segments: boolean, memoryLimit: () => bigint): readonly Rule<MemslotContext>[] {
  return [
    ...(segments ? SEGMENT_RULES : []),
    {
      errno: 'EINVAL',
      broken: (context) => isPlaced(context) && context.request.gpa + context.request.size > memoryLimit(),
      why: ({ request }) =>
        `${hexRange(request.gpa, request.size)} ends beyond the VM's memory limit, ${hex(memoryLimit())}`,
    },
  ];
}
