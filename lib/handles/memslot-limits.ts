import { readFileSync } from 'node:fs';
import { riscv64MemslotRules } from '../arch/riscv64/rules.ts';
import { s390xMemslotRules } from '../arch/s390x/rules.ts';
import { x86_64MemslotRules } from '../arch/x86_64/rules.ts';
import type { KvmCalls } from '../calls/kvm-calls.ts';
import type { MemslotLimits } from '../rules/memslot.ts';
import { ARCH_FACTS } from '../uapi/arch.ts';
import { CAP } from '../uapi/capabilities.ts';
import { S390_VM_ATTRIBUTE } from '../uapi/flags.ts';

const GUEST_PHYSICAL_BITS = 48;

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
    prepare: prepareRules(calls, vm),
  };
}

function prepareRules(calls: KvmCalls, vm: number): MemslotLimits['prepare'] {
  switch (calls.arch) {
    case 's390x':
      // The kernels with KEYOP, 7.0 and later, are those with page tables of KVM's own.
      return s390xMemslotRules(calls.checkExtension(vm, CAP.S390_KEYOP) === 0, () => s390xMemoryLimit(calls, vm));
    case 'x86_64':
      return x86_64MemslotRules(2 ** (guestPhysicalBits(calls) - 12) - 1);
    case 'riscv64':
      return riscv64MemslotRules(calls.checkExtension(vm, CAP.VM_GPA_BITS));
    default:
      return [];
  }
}

/** The highest guest address + 1. */
function s390xMemoryLimit(calls: KvmCalls, vm: number): bigint {
  const limit = new Uint8Array(8);
  const result = calls.getDeviceAttr(vm, ...S390_VM_ATTRIBUTE.MEM_LIMIT_SIZE, limit);
  return result < 0 ? 1n << 64n : new DataView(limit.buffer).getBigUint64(0);
}

/** Bits of a guest physical address on x86_64: those of the host's own with nested paging. */
function guestPhysicalBits(calls: KvmCalls): number {
  if (calls.backend !== 'native') return GUEST_PHYSICAL_BITS;
  try {
    const bits = /^address sizes\s*:\s*(\d+) bits physical/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1];
    return bits === undefined ? GUEST_PHYSICAL_BITS : Number(bits);
  } catch {
    return GUEST_PHYSICAL_BITS;
  }
}
