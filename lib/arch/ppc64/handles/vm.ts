import type { Ppc64Calls } from '../../../calls/kvm-calls.ts';
import type { HtabLoops } from '../model/htab-loops.ts';
import { type HptOwner, VmHpt } from './vm-hpt.ts';

/** What only a VM of ppc64 has: `vm.ppc64`. */
export class VmPpc64 {
  /** The hashed page table. */
  readonly hpt: VmHpt;

  /** Made by the VM. */
  constructor(vm: HptOwner, ppc64: Ppc64Calls, loops: HtabLoops | undefined) {
    this.hpt = new VmHpt(vm, ppc64, loops);
  }

  /** @internal The VM is closed. */
  close(): void {
    this.hpt.close();
  }
}
