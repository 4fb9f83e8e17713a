import { hex, hexRange } from '../base/errors.ts';
import { MEM } from '../uapi/flags.ts';
import { asIdOf, slotIdOf } from '../uapi/slot-word.ts';
import type { Rule } from './rule.ts';

/** The arguments of SET_USER_MEMORY_REGION (version 1) or REGION2 (2), as u64 values where the structure has them. */
export interface MemslotRequest {
  readonly version: 1 | 2;
  /** as_id << 16 | id, as in the structure. */
  readonly slot: number;
  readonly flags: number;
  readonly gpa: bigint;
  readonly size: bigint;
  readonly hva: bigint;
  readonly guestMemfdOffset: bigint;
}

/** A memslot that exists, as far as the rules look at it. */
export interface KnownMemslot {
  readonly id: number;
  readonly baseGfn: number;
  readonly npages: number;
  readonly flags: number;
  readonly hva: bigint;
}

/** What a VM allows; it differs between architectures, kernels and VM types. */
export interface MemslotLimits {
  readonly pageSize: number;
  /** NR_MEMSLOTS of the VM. */
  readonly userSlots: number;
  /** MULTI_ADDRESS_SPACE, or 1. */
  readonly addressSpaces: number;
  readonly readonlyMem: boolean;
  /** VMs with private memory take GUEST_MEMFD. */
  readonly guestMemfd: boolean;
  /** Since 6.8 the first version refuses flags of the second before looking at the slot id. */
  readonly version1RefusesFlags: boolean;
  /** First address that is not a user-space address of the process. */
  readonly hvaLimit: bigint;
  /** Further checks of the architecture, made last, and not when a slot is deleted. */
  readonly prepare: readonly Rule<MemslotContext>[];
}

/** What the rules of SET_USER_MEMORY_REGION look at. */
export interface MemslotContext {
  readonly request: MemslotRequest;
  readonly limits: MemslotLimits;
  /** The slot with that id in that address space. */
  readonly existing: KnownMemslot | undefined;
  /** Sum of the pages of all slots of the VM. */
  readonly totalPages: number;
  /** Another slot of the address space that has pages in the range. */
  readonly overlapping: (baseGfn: number, npages: number) => KnownMemslot | undefined;
  /** Whether a range of the process has memory that it may not write; absent where nobody knows. */
  readonly hasUnwritable?: (hva: bigint, size: bigint) => boolean;
}

const U64 = 1n << 64n;
/** Most pages that one slot holds (`KVM_MEM_MAX_NR_PAGES`). */
export const MAX_SLOT_PAGES = 2 ** 31 - 1;
const V1_FLAGS = MEM.LOG_DIRTY_PAGES | MEM.READONLY;

export type MemslotChange = 'create' | 'delete' | 'move' | 'flags-only' | 'none';

/** What a request that breaks no rule does. */
export function memslotChange({ request, existing, limits }: MemslotContext): MemslotChange {
  if (request.size === 0n) return 'delete';
  if (existing === undefined) return 'create';
  if (gfnOf(request.gpa, limits) !== existing.baseGfn) return 'move';
  return request.flags === existing.flags ? 'none' : 'flags-only';
}

/** The frame of an address, in the VM's pages; also a size in pages. */
export const gfnOf = (address: bigint, { pageSize }: MemslotLimits): number => Number(address / BigInt(pageSize));
const unaligned = (value: bigint, pageSize: number): boolean => value % BigInt(pageSize) !== 0n;

function validFlags({ readonlyMem, guestMemfd }: MemslotLimits, flags: number): number {
  const privateSlot = guestMemfd && (flags & MEM.GUEST_MEMFD) !== 0;
  let valid: number = guestMemfd ? MEM.GUEST_MEMFD : 0;
  if (!privateSlot) valid |= MEM.LOG_DIRTY_PAGES | (readonlyMem ? MEM.READONLY : 0);
  return valid;
}

function flagNames(flags: number): string {
  const names = Object.entries(MEM)
    .filter(([, bit]) => (flags & bit) !== 0)
    .map(([name]) => name);
  const unknown = flags & ~(MEM.LOG_DIRTY_PAGES | MEM.READONLY | MEM.GUEST_MEMFD);
  if (unknown !== 0) names.push(hex(unknown >>> 0));
  return names.join(' | ');
}

const slotRange = (slot: KnownMemslot, { pageSize }: MemslotLimits): string =>
  `slot ${slot.id} ${hexRange(BigInt(slot.baseGfn) * BigInt(pageSize), BigInt(slot.npages) * BigInt(pageSize))}`;

const requestSlot = ({ request }: MemslotContext): string =>
  `slot ${slotIdOf(request.slot)} ${hexRange(request.gpa, request.size)}`;

const deletes = ({ request }: MemslotContext): boolean => request.size === 0n;

/**
 * The checks of KVM_SET_USER_MEMORY_REGION and REGION2 in the order of Linux 6.12 (`virt/kvm/kvm_main.c`), up to the
 * point where guest_memfd is looked at; the architecture's own follow.
 */
const GENERIC: readonly Rule<MemslotContext>[] = [
  {
    errno: 'EINVAL',
    broken: ({ request, limits }) =>
      request.version === 1 && limits.version1RefusesFlags && (request.flags & ~V1_FLAGS) !== 0,
    why: ({ request }) =>
      `flags ${flagNames(request.flags)} are not for KVM_SET_USER_MEMORY_REGION, which takes LOG_DIRTY_PAGES and READONLY`,
  },
  {
    errno: 'EINVAL',
    broken: ({ request, limits }) => slotIdOf(request.slot) >= limits.userSlots,
    why: ({ request, limits }) =>
      `slot id ${slotIdOf(request.slot)} is beyond the last one, ${limits.userSlots - 1} (KVM_CAP_NR_MEMSLOTS is ${limits.userSlots})`,
  },
  {
    errno: 'EINVAL',
    broken: ({ request, limits }) => (request.flags & ~validFlags(limits, request.flags)) !== 0,
    why: ({ request, limits }) =>
      `flags ${flagNames(request.flags & ~validFlags(limits, request.flags))} are not possible on this VM, which takes ${flagNames(validFlags(limits, request.flags))}`,
  },
  {
    errno: 'EINVAL',
    broken: ({ request, limits }) => unaligned(request.size, limits.pageSize),
    why: ({ request, limits }) =>
      `memory_size ${hex(request.size)} is not a multiple of the page size, ${hex(limits.pageSize)}`,
  },
  {
    errno: 'EINVAL',
    broken: ({ request, limits }) => unaligned(request.gpa, limits.pageSize),
    why: ({ request, limits }) =>
      `guest_phys_addr ${hex(request.gpa)} is not a multiple of the page size, ${hex(limits.pageSize)}`,
  },
  {
    errno: 'EINVAL',
    broken: ({ request, limits }) => unaligned(request.hva, limits.pageSize),
    why: ({ request, limits }) =>
      `userspace_addr ${hex(request.hva)} is not a multiple of the page size, ${hex(limits.pageSize)}`,
  },
  {
    errno: 'EINVAL',
    broken: ({ request, limits }) => request.hva + request.size > limits.hvaLimit,
    why: ({ request, limits }) =>
      `the host range ${hexRange(request.hva, request.size)} is not inside user space, which ends at ${hex(limits.hvaLimit)}`,
  },
  {
    errno: 'EINVAL',
    broken: ({ request, limits }) =>
      (request.flags & MEM.GUEST_MEMFD) !== 0 &&
      (unaligned(request.guestMemfdOffset, limits.pageSize) || request.guestMemfdOffset + request.size >= U64),
    why: ({ request, limits }) =>
      `guest_memfd_offset ${hex(request.guestMemfdOffset)} is not a multiple of ${hex(limits.pageSize)}, or wraps with the size ${hex(request.size)}`,
  },
  {
    errno: 'EINVAL',
    broken: ({ request, limits }) => asIdOf(request.slot) >= limits.addressSpaces,
    why: ({ request, limits }) =>
      `address space ${asIdOf(request.slot)} (slot word ${hex(request.slot)}) is not there: this VM has ${limits.addressSpaces}`,
  },
  {
    errno: 'EINVAL',
    broken: ({ request }) => request.gpa + request.size >= U64,
    why: ({ request }) => `guest_phys_addr ${hex(request.gpa)} + memory_size ${hex(request.size)} wraps 64 bits`,
  },
  {
    errno: 'EINVAL',
    broken: ({ request, limits }) => request.size / BigInt(limits.pageSize) > MAX_SLOT_PAGES,
    why: ({ request, limits }) =>
      `memory_size ${hex(request.size)} is ${request.size / BigInt(limits.pageSize)} pages; one slot holds at most ${MAX_SLOT_PAGES}`,
  },
  {
    errno: 'EINVAL',
    broken: (context) => deletes(context) && context.existing === undefined,
    why: ({ request }) =>
      `memory_size 0 deletes a slot, and there is no slot ${slotIdOf(request.slot)} in address space ${asIdOf(request.slot)}`,
  },
  {
    errno: 'EINVAL',
    broken: (context) =>
      !deletes(context) &&
      context.existing === undefined &&
      BigInt(context.totalPages) + context.request.size / BigInt(context.limits.pageSize) >= U64,
    why: () => 'the number of pages in all slots would wrap 64 bits',
  },
  {
    errno: 'EINVAL',
    broken: (context) =>
      !deletes(context) && context.existing !== undefined && (context.request.flags & MEM.GUEST_MEMFD) !== 0,
    why: ({ request }) =>
      `slot ${slotIdOf(request.slot)} exists, and a slot with guest_memfd can only be created or deleted`,
  },
  {
    errno: 'EINVAL',
    broken: ({ request, existing }) => request.size !== 0n && existing !== undefined && existing.hva !== request.hva,
    why: ({ request, existing }) =>
      `slot ${slotIdOf(request.slot)} is backed by ${hex(existing!.hva)}, not ${hex(request.hva)}: delete it and create it anew`,
  },
  {
    errno: 'EINVAL',
    broken: ({ request, existing, limits }) =>
      request.size !== 0n &&
      existing !== undefined &&
      BigInt(existing.npages) * BigInt(limits.pageSize) !== request.size,
    why: ({ request, existing, limits }) =>
      `slot ${slotIdOf(request.slot)} has size ${hex(BigInt(existing!.npages) * BigInt(limits.pageSize))}, not ${hex(request.size)}: a slot cannot be resized, delete it and create it anew`,
  },
  {
    errno: 'EINVAL',
    broken: ({ request, existing }) =>
      request.size !== 0n && existing !== undefined && ((existing.flags ^ request.flags) & MEM.READONLY) !== 0,
    why: ({ request, existing }) =>
      `slot ${slotIdOf(request.slot)} is ${(existing!.flags & MEM.READONLY) !== 0 ? 'read-only' : 'writable'}, and READONLY cannot change on a live slot: delete it and create it anew`,
  },
  {
    errno: 'EINVAL',
    broken: ({ request, existing }) =>
      request.size !== 0n && existing !== undefined && ((existing.flags ^ request.flags) & MEM.GUEST_MEMFD) !== 0,
    why: ({ request }) => `slot ${slotIdOf(request.slot)} has guest_memfd, which cannot be dropped from a live slot`,
  },
  {
    errno: 'EEXIST',
    broken: (context) => overlapOf(context) !== undefined,
    why: (context) => `${requestSlot(context)} overlaps ${slotRange(overlapOf(context)!, context.limits)}`,
  },
];

function overlapOf(context: MemslotContext): KnownMemslot | undefined {
  if (!isPlaced(context)) return undefined;
  const { request, limits } = context;
  return context.overlapping(gfnOf(request.gpa, limits), gfnOf(request.size, limits));
}

/** Whether a request that breaks no rule creates a slot or moves one. */
export function isPlaced(context: MemslotContext): boolean {
  const change = memslotChange(context);
  return change === 'create' || change === 'move';
}

/** All checks for one VM, in order. */
export function memslotRules(limits: MemslotLimits): readonly Rule<MemslotContext>[] {
  return limits.prepare.length === 0 ? GENERIC : [...GENERIC, ...limits.prepare];
}
