import { EmulatedKernel } from '../../../lib/backends/emulated.ts';
import type { Arch } from '../../../lib/raw.ts';

/** A kernel of a release, with a VM, and what it says of capabilities. */
export function machineOf(arch: Arch, release: string) {
  const kernel = new EmulatedKernel({ arch, release });
  const kvm = kernel.openKvm();
  const vm = kernel.createVm(kvm, 0);
  return {
    kernel,
    kvm,
    vm,
    answers: (...caps: number[]): number[] => caps.map((cap) => kernel.checkExtension(kvm, cap)),
  };
}
