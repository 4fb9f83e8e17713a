import type { Arch } from '../../uapi/arch.ts';

// Lines of at most 60 characters, to be copied as they are.
const EVERYWHERE = `  vm.memory.addRam(0, kvm.mapAnonymous(16 << 20)) // 16 MiB
  .mem
  vm.memory.writeU32(0x1000, 0xcafe)
  .xp/16xb 0x1000
  vm.dirtyPages.start()
  vm.memory.writeCString(0x4000, 'hello, guest')
  .dirty
  .find "hello"
  vm.setUserMemoryRegion({ // refused, and why
    slot: 9, guestPhysAddr: 0x1234,
    memorySize: 4096, userspaceAddr: 0,
  })
  .explain EINVAL
  .caps DIRTY
`;

const REGISTERS = `  const vcpu = vm.createVcpu()
  .regs
`;

/** What there is to try beside that; else registers alone. */
const MORE: Partial<Record<Arch, string>> = {
  x86_64: `${REGISTERS}  Kvm.open({ arch: 's390x' }) // another kernel, emulated
`,
  s390x: `  vm.storageKeys.setBytes(0, Uint8Array.of(0x10, 0x36))
  .keys 0 4
  const vcpu = vm.createVcpu()
  .walk 0x2000
  vm.memOp.readAbsolute(0x1000, 4, { key: 0 })
`,
  ppc64: `  vm.hpt.allocate(18)
  .hpt
  .walk 0x2000
${REGISTERS}`,
  aarch64: `  const vcpu = vm.createVcpu()
  vcpu.aarch64.init()
  .regs
`,
};

/** Lines to try, for the architecture at hand. */
export const examplesFor = (arch: Arch): string => `${EVERYWHERE}${MORE[arch] ?? REGISTERS}`;
