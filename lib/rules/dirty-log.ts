import { hex } from '../base/errors.ts';
import { counted } from '../base/text.ts';
import { ARCH_FACTS, type Arch } from '../uapi/arch.ts';
import { MEM } from '../uapi/flags.ts';
import { asIdOf, slotIdOf } from '../uapi/slot-word.ts';
import type { KnownMemslot } from './memslot.ts';
import type { Rule } from './rule.ts';

/** What the rules of GET_DIRTY_LOG look at. */
export interface DirtyLogContext {
  /** as_id << 16 | id. */
  readonly slot: number;
  readonly userSlots: number;
  readonly addressSpaces: number;
  /** A dirty ring is enabled, and no bitmap beside it. */
  readonly ringOnly: boolean;
  readonly existing: KnownMemslot | undefined;
}

export interface ClearDirtyLogContext extends DirtyLogContext {
  readonly firstPage: bigint;
  readonly numPages: number;
}

const logged = (slot: KnownMemslot | undefined): boolean =>
  slot !== undefined && (slot.flags & MEM.LOG_DIRTY_PAGES) !== 0;

const ringOnly: Rule<DirtyLogContext> = {
  errno: 'ENXIO',
  broken: (context) => context.ringOnly,
  why: () => 'this VM has a dirty ring instead of dirty bitmaps: harvest the rings of its vCPUs',
};

const slotInRange: Rule<DirtyLogContext> = {
  errno: 'EINVAL',
  broken: ({ slot, addressSpaces, userSlots }) => asIdOf(slot) >= addressSpaces || slotIdOf(slot) >= userSlots,
  why: ({ slot, addressSpaces, userSlots }) =>
    `slot ${slotIdOf(slot)} of address space ${asIdOf(slot)} cannot be: there are ${userSlots} slots and ${counted(addressSpaces, 'address space')}`,
};

const hasLog: Rule<DirtyLogContext> = {
  errno: 'ENOENT',
  broken: ({ existing }) => !logged(existing),
  why: ({ slot, existing }) =>
    existing === undefined
      ? `there is no slot ${slotIdOf(slot)} in address space ${asIdOf(slot)}`
      : `slot ${slotIdOf(slot)} was made without LOG_DIRTY_PAGES`,
};

/** The generic KVM_GET_DIRTY_LOG (`virt/kvm/kvm_main.c`). */
const GENERIC: readonly Rule<DirtyLogContext>[] = [ringOnly, slotInRange, hasLog];

const wholeSlotWord: Rule<DirtyLogContext> = {
  errno: 'EINVAL',
  broken: ({ slot, userSlots }) => slot >= userSlots,
  why: ({ slot, userSlots }) => `the slot word ${hex(slot)} is beyond the last slot, ${userSlots - 1}`,
};

/** That of s390x and of Book3S HV: the whole slot word is compared first, so address spaces are refused. */
const ONE_SPACE: readonly Rule<DirtyLogContext>[] = [wholeSlotWord, hasLog];

/** KVM_GET_DIRTY_LOG of an architecture. */
export const getDirtyLogRules = (arch: Arch): readonly Rule<DirtyLogContext>[] =>
  ARCH_FACTS[arch].dirtyLogOfOneSpace === true ? ONE_SPACE : GENERIC;

/** KVM_CLEAR_DIRTY_LOG. */
export const CLEAR_DIRTY_LOG_RULES: readonly Rule<ClearDirtyLogContext>[] = [
  ringOnly,
  slotInRange,
  {
    errno: 'EINVAL',
    broken: ({ firstPage }) => firstPage % 64n !== 0n,
    why: ({ firstPage }) => `first_page ${firstPage} is not a multiple of 64`,
  },
  hasLog,
  {
    errno: 'EINVAL',
    broken: ({ firstPage, existing }) => firstPage > BigInt(existing!.npages),
    why: ({ slot, firstPage, existing }) =>
      `first_page ${firstPage} is beyond slot ${slotIdOf(slot)}, which has ${counted(existing!.npages, 'page')}`,
  },
  {
    errno: 'EINVAL',
    broken: ({ firstPage, numPages, existing }) => BigInt(numPages) > BigInt(existing!.npages) - firstPage,
    why: ({ slot, firstPage, numPages, existing }) =>
      `pages ${firstPage} to ${firstPage + BigInt(numPages)} reach beyond slot ${slotIdOf(slot)}, which has ${counted(existing!.npages, 'page')}`,
  },
  {
    errno: 'EINVAL',
    broken: ({ firstPage, numPages, existing }) =>
      numPages % 64 !== 0 && BigInt(numPages) !== BigInt(existing!.npages) - firstPage,
    why: ({ numPages, existing }) =>
      `num_pages ${numPages} is neither a multiple of 64 nor up to the end of the slot (${counted(existing!.npages, 'page')})`,
  },
];
