import type { ArchVm } from '../../../emulated/arch-state.ts';
import type { EmulatedMemslot } from '../../../emulated/memslots.ts';
import type { EmulatedVm } from '../../../emulated/vm.ts';
import { CAP } from '../../../uapi/capabilities.ts';
import { ERRNO } from '../../../uapi/errno.ts';
import { HashMmu } from './hash-mmu.ts';
import { isImplemented } from './hcalls.ts';

/** What ppc64 keeps of a VM: its MMU. */
export class Ppc64Vm implements ArchVm {
  readonly mmu: HashMmu;
  readonly #vm: EmulatedVm;
  /** Frames of a slot that a radix guest has touched since the slot's mappings were last dropped. */
  readonly #mapped = new WeakMap<EmulatedMemslot, Set<number>>();

  constructor(vm: EmulatedVm) {
    this.#vm = vm;
    this.mmu = new HashMmu(vm);
  }

  /** PPC_ENABLE_HCALL: whether KVM answers a hypercall itself. */
  enableCap(cap: number, args: readonly bigint[]): number {
    const [nr = 0n, enable = 0n] = args;
    if (cap !== CAP.PPC_ENABLE_HCALL || enable > 1n || !isImplemented(Number(nr))) return -ERRNO.EINVAL;
    this.mmu.enabledHcalls[Number(nr)] = Number(enable);
    return 0;
  }

  /** A radix guest's first access of any kind maps the page, writable and dirty if the host's is writable. */
  radixAccess(gpa: number): void {
    const vm = this.#vm;
    const gfn = Math.floor(gpa / vm.pageSize);
    const slot = vm.usableSlot(gfn);
    if (slot === undefined || !vm.memory.canAccess(vm.hostAddress(slot, gfn), true)) return;
    let mapped = this.#mapped.get(slot);
    if (mapped === undefined) {
      mapped = new Set();
      this.#mapped.set(slot, mapped);
    }
    if (mapped.has(gfn)) return;
    mapped.add(gfn);
    vm.dirtyLog.mark(slot, gfn);
  }

  memslotCommitted(slot: EmulatedMemslot): void {
    // Logging begins and ends with no page mapped.
    this.#mapped.delete(slot);
  }

  memslotFlushed(slot: EmulatedMemslot): void {
    this.#mapped.delete(slot);
    this.mmu.hpt?.unmapMemslot(slot);
  }

  syncDirtyLog(slot: EmulatedMemslot): void {
    this.mmu.hpt?.harvestDirty(slot);
  }
}
