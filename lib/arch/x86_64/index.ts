import { readFileSync } from 'node:fs';
import type { KvmCalls } from '../../calls/kvm-calls.ts';
import type { ArchParts } from '../parts.ts';
import { x86_64Architecture } from './emulated/architecture.ts';
import { x86_64MemslotRules } from './rules.ts';

export const x86_64: ArchParts = {
  emulated: (release, build) => x86_64Architecture(release, build.x86_64),
  memslotRules: (calls) => x86_64MemslotRules(2 ** (guestPhysicalBits(calls) - 12) - 1),
};

const GUEST_PHYSICAL_BITS = 48;

/** Bits of a guest physical address: those of the host's own with nested paging. */
function guestPhysicalBits(calls: KvmCalls): number {
  if (calls.backend !== 'native') return GUEST_PHYSICAL_BITS;
  try {
    const bits = /^address sizes\s*:\s*(\d+) bits physical/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1];
    return bits === undefined ? GUEST_PHYSICAL_BITS : Number(bits);
  } catch {
    return GUEST_PHYSICAL_BITS;
  }
}
