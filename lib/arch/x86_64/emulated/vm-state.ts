import type { ArchVm } from '../../../emulated/arch-state.ts';
import type { EmulatedVm } from '../../../emulated/vm.ts';
import { ERRNO } from '../../../uapi/errno.ts';

/** What x86_64 keeps of a VM. */
export class X86_64Vm implements ArchVm {
  irqchip = false;
  /** Frames that are mapped writable for the guest, though their log may have write-protected them since. */
  readonly mapped = new Set<number>();
  readonly #vm: EmulatedVm;

  constructor(vm: EmulatedVm) {
    this.#vm = vm;
  }

  get hasVcpus(): boolean {
    return this.#vm.vcpus.size !== 0;
  }

  createIrqchip(): number {
    if (this.irqchip) return -ERRNO.EEXIST;
    if (this.hasVcpus) return -ERRNO.EINVAL;
    this.irqchip = true;
    return 0;
  }

  pagesInvalidated(first: number, end: number): void {
    for (const gfn of this.mapped) if (gfn >= first && gfn < end) this.mapped.delete(gfn);
  }

  /** A slot that goes or moves takes everything that is mapped with it. */
  memslotFlushed(): void {
    this.mapped.clear();
  }
}
