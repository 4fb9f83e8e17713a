import { CAP } from '../../../lib/uapi/capabilities.ts';
import { DIRTY_GFN, DIRTY_LOG_PAGE_OFFSET, MAP, PROT } from '../../../lib/uapi/flags.ts';
import { KVM_DIRTY_GFN } from '../../../lib/uapi/structs.ts';
import type { ScenarioHost } from '../../scenarios/scenario.ts';
import { type Kinds, n, type Round } from './kind.ts';

/** Of 256 entries: no round fills it. */
const RING_BYTES = 4096;
const ENTRIES = RING_BYTES / KVM_DIRTY_GFN.size;

/** A ring is asked for before the first vCPU is made, */
export function enableRing({ calls }: ScenarioHost, vm: number): void {
  calls.enableCap(vm, CAP.DIRTY_LOG_RING_ACQ_REL, 0, [RING_BYTES]);
}

/** and shown when that is there. */
export function showRing({ s: { calls }, vcpu, own }: Round): void {
  const at = DIRTY_LOG_PAGE_OFFSET * calls.pageSize;
  own.set('ring', calls.mmap(RING_BYTES, PROT.READ | PROT.WRITE, MAP.SHARED, vcpu, at, 0, 0));
}

/** A vCPU's ring of dirty pages, which its reader gives back. */
export const DIRTY_RING: Kinds = {
  harvest: {
    weight: 14,
    make: (random) => [random.below(6)],
    apply: ({ s: { calls }, own }, o) => {
      const ring = own.get('ring')!;
      if (ring < 0) return;
      const entry = new Uint8Array(KVM_DIRTY_GFN.size);
      for (let count = 0; count < n(o, 0); count++) {
        const next = own.get('next') ?? 0;
        calls.readMemory(ring + next * entry.length, entry);
        if ((entry[0]! & DIRTY_GFN.DIRTY) === 0) return;
        calls.writeMemory(ring + next * entry.length, Uint8Array.of(DIRTY_GFN.RESET, 0, 0, 0));
        own.set('next', (next + 1) % ENTRIES);
      }
    },
  },
  resetRings: {
    weight: 8,
    make: () => [],
    apply: ({ s: { calls }, vm }) => {
      calls.resetDirtyRings(vm);
    },
  },
};
