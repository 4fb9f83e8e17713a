import { ARCH_PARTS } from '../arch/index.ts';
import type { KvmCalls } from '../calls/kvm-calls.ts';
import type { MemslotLimits } from '../rules/memslot.ts';
import { ARCH_FACTS } from '../uapi/arch.ts';
import { CAP } from '../uapi/capabilities.ts';

/** What a VM allows, asked from its kernel. */
export function memslotLimits(calls: KvmCalls, vm: number): MemslotLimits {
  const has = (cap: number): number => calls.checkExtension(vm, cap);
  return {
    pageSize: calls.pageSize,
    userSlots: has(CAP.NR_MEMSLOTS),
    addressSpaces: Math.max(1, has(CAP.MULTI_ADDRESS_SPACE)),
    readonlyMem: has(CAP.READONLY_MEM) > 0,
    guestMemfd: has(CAP.GUEST_MEMFD) > 0,
    version1RefusesFlags: has(CAP.USER_MEMORY2) > 0,
    hvaLimit: ARCH_FACTS[calls.arch].hvaLimit,
    prepare: ARCH_PARTS[calls.arch].memslotRules?.(calls, vm) ?? [],
  };
}
