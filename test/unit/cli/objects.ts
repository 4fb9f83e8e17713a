import { Kvm } from '../../../lib/index.ts';
import type { Arch } from '../../../lib/raw.ts';

/** Objects of every class that users meet, of the kernel of an architecture. */
export function objectsOf(arch: Arch): object[] {
  const kvm = Kvm.open({ backend: 'emulated', arch });
  const vm = kvm.createVm();
  const mapping = kvm.mapAnonymous(1 << 20);
  const region = vm.memory.addRam(0, mapping);
  if (arch === 'ppc64') {
    vm.hpt.allocate(18);
    return [vm.hpt, vm.hpt.openReader(), vm.hpt.openWriter()];
  }
  const vcpu = vm.createVcpu();
  if (arch === 's390x') return [vm.memOp, vcpu.memOp, vm.storageKeys, vm.cmma];
  const binding = vm.memory.bind();
  const mmio = vm.memory.addMmio(0xd000_0000, 4096, {});
  const own = [
    kvm,
    vm,
    vcpu,
    vcpu.kvmRun,
    vcpu.x86_64,
    vm.memory,
    region,
    mmio,
    binding,
    binding.vmap(0, 16),
    vm.dirtyPages,
  ];
  return [...own, vm.memslots, mapping, kvm.reserve(1 << 20), vm.io, vm.io.ports, kvm.createEventFd()];
}
