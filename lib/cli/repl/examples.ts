import type { Arch } from '../../uapi/arch.ts';

const EVERYWHERE = `  vm.memory.addRam(0, kvm.mapAnonymous(16 << 20)) // 16 MiB at address 0
  .mem
  vm.memory.writeU32(0x1000, 0xcafe)
  .xp/16xb 0x1000
  vm.dirtyPages.start()
  vm.memory.writeCString(0x4000, 'hello, guest')
  .dirty
  .find "hello"
  vm.setUserMemoryRegion({ slot: 9, guestPhysAddr: 0x1234, memorySize: 4096, userspaceAddr: 0 }) // refused, and why
  .explain EINVAL
  .caps DIRTY
`;

/** Where there is more to try than everywhere. */
const EXAMPLES: Partial<Record<Arch, string>> = {
  x86_64: `${EVERYWHERE}  const vcpu = vm.createVcpu()
  .regs
  Kvm.open({ arch: 's390x' }) // another kernel, emulated
`,
  s390x: `${EVERYWHERE}  vm.storageKeys.setBytes(0, Uint8Array.of(0x10, 0x36))
  .keys 0 4
  const vcpu = vm.createVcpu()
  .walk 0x2000
  vm.memOp.readAbsolute(0x1000, 4, { key: 0 })
`,
  ppc64: `${EVERYWHERE}  vm.hpt.allocate(18)
  .hpt
  .walk 0x2000
  const vcpu = vm.createVcpu()
  .regs
`,
};

/** Lines to try, for the architecture at hand. */
export const examplesFor = (arch: Arch): string => EXAMPLES[arch] ?? EVERYWHERE;
