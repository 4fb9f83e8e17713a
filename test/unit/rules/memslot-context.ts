import type { KnownMemslot, MemslotContext, MemslotLimits, MemslotRequest } from '../../../lib/rules/memslot.ts';

export const LIMITS: MemslotLimits = {
  pageSize: 4096,
  userSlots: 8,
  addressSpaces: 2,
  readonlyMem: true,
  guestMemfd: true,
  version1RefusesFlags: true,
  hvaLimit: 1n << 47n,
  prepare: [],
};
const REQUEST: MemslotRequest = {
  version: 2,
  slot: 3,
  flags: 0,
  gpa: 0x10_0000n,
  size: 0x4000n,
  hva: 0x7000_0000n,
  guestMemfdOffset: 0n,
};
const SLOT: KnownMemslot = { id: 3, baseGfn: 0x100, npages: 4, flags: 0, hva: 0x7000_0000n };

/** What is otherwise than in a request for slot 3 that is right. */
export interface MemslotChanges {
  request?: Partial<MemslotRequest>;
  limits?: Partial<MemslotLimits>;
  existing?: Partial<KnownMemslot>;
  totalPages?: number;
  others?: KnownMemslot[];
}

export function memslotContext({
  request,
  limits,
  existing,
  totalPages = 0,
  others = [],
}: MemslotChanges): MemslotContext {
  return {
    request: { ...REQUEST, ...request },
    limits: { ...LIMITS, ...limits },
    existing: existing && { ...SLOT, ...existing },
    totalPages,
    overlapping: (gfn, npages) =>
      others.find((slot) => slot.baseGfn < gfn + npages && gfn < slot.baseGfn + slot.npages),
  };
}
