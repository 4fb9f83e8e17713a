import type { ArchVm } from '../../../emulated/arch-state.ts';
import { MappedPages } from '../../../emulated/mapped-pages.ts';
import type { EmulatedVm } from '../../../emulated/vm.ts';
import { ERRNO } from '../../../uapi/errno.ts';

/** What x86_64 keeps of a VM. */
export class X86_64Vm implements ArchVm {
  irqchip = false;
  readonly mapped = new MappedPages();
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
    this.mapped.unmap(first, end);
  }

  /** A slot that goes or moves takes everything that is mapped with it. */
  memslotFlushed(): void {
    this.mapped.unmapAll();
  }
}
