import { ERRNO } from '../uapi/errno.ts';
import { DIRTY_LOG_PAGE_OFFSET, MAP } from '../uapi/flags.ts';
import type { MapSource, SharedArea } from './backing.ts';
import type { EmulatedDirtyRing } from './dirty-ring.ts';
import type { EmulatedVm } from './vm.ts';

/** What of a vCPU can be mapped. */
export interface VcpuPages {
  readonly vm: EmulatedVm;
  /** kvm_run, and the pages behind it. */
  readonly area: SharedArea;
  readonly ring: EmulatedDirtyRing | undefined;
}

/** What mmap of a vCPU shows from an offset on: kvm_run, the ring of coalesced stores, or the dirty ring; −EINVAL. */
export function vcpuPages(
  { vm, area, ring }: VcpuPages,
  offset: number,
  flags: number,
  length: number,
): MapSource | number {
  const { pageSize, coalescedMmioPage } = vm.machine;
  const page = offset / pageSize;
  const ringStart = DIRTY_LOG_PAGE_OFFSET * pageSize;
  const dirty = ring?.area.backing;
  const isDirtyRing = (at: number): boolean => dirty !== undefined && at >= ringStart && at < ringStart + dirty.size();
  // KVM looks at the first and the last page.
  if ((flags & MAP.SHARED) === 0 && (isDirtyRing(offset) || isDirtyRing(offset + length - 1))) return -ERRNO.EINVAL;
  if (dirty !== undefined && page >= DIRTY_LOG_PAGE_OFFSET) return { backing: dirty, offset: offset - ringStart };
  if (page === coalescedMmioPage && page !== 0) return { backing: vm.bus.ring!.area.backing, offset: 0 };
  return { backing: area.backing, offset };
}
