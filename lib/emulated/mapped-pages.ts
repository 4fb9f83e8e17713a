import { MEM } from '../uapi/flags.ts';
import type { EmulatedDirtyRing } from './dirty-ring.ts';
import type { EmulatedHostMemory } from './host-memory.ts';
import type { EmulatedMemslot } from './memslots.ts';
import type { EmulatedVm } from './vm.ts';

/** Frames that are mapped writable for a VM's guest, though their log may have write-protected them since. */
export class MappedPages {
  readonly #gfns = new Set<number>();

  /**
   * An access that finds a page unmapped maps it, writable if the host can write it at once; that makes it dirty, though it
   * is only loaded from. Private memory that nobody wrote could not be: what is loaded then is the host's page of zeros.
   */
  map(vm: EmulatedVm, slot: EmulatedMemslot, gfn: number, ring: EmulatedDirtyRing | undefined): void {
    if ((slot.flags & MEM.READONLY) !== 0 || this.#gfns.has(gfn)) return;
    if (!isWritable(vm.memory, vm.hostAddress(slot, gfn))) return;
    this.#gfns.add(gfn);
    vm.dirtyLog.mark(slot, gfn, ring);
  }

  /** Frames of [first, end) are mapped no more. */
  unmap(first: number, end: number): void {
    for (const gfn of this.#gfns) if (gfn >= first && gfn < end) this.#gfns.delete(gfn);
  }

  unmapAll(): void {
    this.#gfns.clear();
  }
}

/** Whether the host can write a page without copying it first. Private memory that was never written is all zeros. */
function isWritable(memory: EmulatedHostMemory, hva: number): boolean {
  if (!memory.canAccess(hva, true)) return false;
  if (memory.isShared(hva)) return true;
  const page = new Uint8Array(memory.pageSize);
  memory.read(hva, page);
  return page.some((byte) => byte !== 0);
}
