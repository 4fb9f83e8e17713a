import type { ArchVm } from '../../../emulated/arch-state.ts';
import { MappedPages } from '../../../emulated/mapped-pages.ts';
import type { EmulatedMemslot } from '../../../emulated/memslots.ts';
import { ERRNO } from '../../../uapi/errno.ts';
import { ARM_TARGET_GENERIC_V8 } from '../../../uapi/flags.ts';
import { KVM_VCPU_INIT } from '../../../uapi/structs.ts';

/**
 * What aarch64 keeps of a VM. No attribute of one has to do with memory; and its interrupt controller is none of version 2, as on the
 * recorded machine.
 */
export class Aarch64Vm implements ArchVm {
  /** In the second stage of its guest's address translation. */
  readonly mapped = new MappedPages();

  readonly requests = {
    KVM_ARM_PREFERRED_TARGET: (struct: Uint8Array): number => {
      struct.fill(0);
      struct[KVM_VCPU_INIT.target] = ARM_TARGET_GENERIC_V8;
      return 0;
    },
  };

  createIrqchip(): number {
    return -ERRNO.ENODEV;
  }

  hasDeviceAttr(): number {
    return -ERRNO.ENXIO;
  }

  setDeviceAttr(): number {
    return -ERRNO.ENXIO;
  }

  pagesInvalidated(first: number, end: number): void {
    this.mapped.unmap(first, end);
  }

  memslotFlushed({ baseGfn, npages }: EmulatedMemslot): void {
    this.mapped.unmap(baseGfn, baseGfn + npages);
  }
}
