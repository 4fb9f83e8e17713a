export type { Aarch64RegName, Aarch64Regs, VcpuAarch64 } from './arch/aarch64/handles/vcpu.ts';
export type { HtabCopyOptions, HtabCopyPass } from './arch/ppc64/handles/htab-copy.ts';
export type { HtabReadBudget, HtabReader, HtabWriter } from './arch/ppc64/handles/htab-fd.ts';
export type { HtabReadStreamOptions, HtabWriteStreamOptions } from './arch/ppc64/handles/htab-node-streams.ts';
export type { HtabReaderOptions, ResizeOptions, V3MmuConfig, VmHpt } from './arch/ppc64/handles/vm-hpt.ts';
export type { ExplainedHashTranslation } from './arch/ppc64/model/explained-translation.ts';
export type { HtabChunkBytes, HtabSlot } from './arch/ppc64/model/htab-chunk.ts';
export type { Ppc64RegName, Ppc64Regs } from './arch/ppc64/model/registers.ts';
export type { Riscv64RegName, Riscv64Regs, VcpuRiscv64 } from './arch/riscv64/handles/vcpu.ts';
export {
  type AddressSpaceRangesOptions,
  addressSpaceRanges,
  type DumpedMemory,
  dumpMemory,
  dumpStorageKeys,
} from './arch/s390x/handles/guest-tools.ts';
export type { AccessCheck, AccessOptions, LogicalAccessOptions } from './arch/s390x/handles/mem-op.ts';
export type { VcpuMemOp } from './arch/s390x/handles/vcpu-mem-op.ts';
export type { CmmaValues, VmCmma } from './arch/s390x/handles/vm-cmma.ts';
export type { CompareExchangeOptions, CompareExchangeResult, VmMemOp } from './arch/s390x/handles/vm-mem-op.ts';
export type { VmStorageKeys } from './arch/s390x/handles/vm-storage-keys.ts';
export { CMMA_NO_DAT, CMMA_USAGE } from './arch/s390x/model/cmma.ts';
export { formatRange } from './arch/s390x/model/ranges.ts';
export type { S390xRegName, S390xRegs } from './arch/s390x/model/registers.ts';
export type { X86_64DescriptorTable, X86_64Regs, X86_64Segment, X86_64Sregs } from './arch/x86_64/model/registers.ts';
export { type OpenOptions, openCalls } from './backends/open.ts';
export { KvmError, type KvmErrorInfo, ProgramInterruption, type ProgramInterruptionInfo } from './base/errors.ts';
export { type Range, RangeTable } from './base/range-table.ts';
export type { SomeRegisters } from './base/registers.ts';
export type { AttachedVm, VcpuToken } from './handles/attached-vm.ts';
export type { Capability } from './handles/capabilities.ts';
export type { GuestMemfd } from './handles/guest-memfd.ts';
export { type CreateVmOptions, Kvm } from './handles/kvm.ts';
export type * from './handles/kvm-run.ts';
export { Registration } from './handles/registration.ts';
export type { RunOptions, RunSyncOptions } from './handles/run-loop.ts';
export { Vcpu } from './handles/vcpu.ts';
export type { Vm } from './handles/vm.ts';
export type { IoeventfdOptions, IrqfdOptions, VmIo } from './handles/vm-io.ts';
export type { CoalescedWrite } from './memory/coalesced-mmio.ts';
export type { DirtyPages, DirtyRun, RemovedPages } from './memory/dirty-pages.ts';
export { type AtomicSize, GuestMemory, type GuestMemoryOptions } from './memory/guest-memory.ts';
export type { GpaTranslation, HostMemory, MemoryLookup, MemoryRange } from './memory/lookup.ts';
export {
  type AddressOptions,
  type DeviceMappingOptions,
  type FileMappingOptions,
  Mapping,
  type MappingKind,
  type MappingOptions,
  type MemfdMappingOptions,
} from './memory/mapping.ts';
export type { DeviceOptions, FileOptions, MemfdOptions, MemoryKind, MemoryOptions } from './memory/mapping-source.ts';
export type { Memslot, Memslots, UserMemoryRegion } from './memory/memslots.ts';
export { type HandledRegion, HandlerError, MmioBus, type MmioHandlers, type MmioRegion } from './memory/mmio-bus.ts';
export { type FaultedPage, type PageContents, type PageFaultHandlers, PageFaults } from './memory/page-faults.ts';
export type { GuestPages, MemoryRegion, RegionOptions, StoreHandler } from './memory/region.ts';
export type { Hole, Region, RegionSet, RegionSetOptions } from './memory/region-set.ts';
export { type MappedPiece, Reservation } from './memory/reservation.ts';
export type { SpaceChange } from './memory/space-user.ts';
export { TrackedWrites, type WrittenRun } from './memory/tracked-writes.ts';
export {
  AddressSpace,
  type AddressSpaceOptions,
  type BindOptions,
  type ShareOptions,
  type SpaceToken,
} from './sharing/address-space.ts';
export { Binding } from './sharing/binding.ts';
export { Descriptor } from './sharing/descriptor.ts';
export { EventFd, type WaitOptions } from './sharing/eventfd.ts';
export type { GuestBinding } from './sharing/guest-binding.ts';
export { type PeerCredentials, UnixConnection, UnixListener, type UnixSocketOptions } from './sharing/socket.ts';
export type { AttachOptions, SpaceEnd } from './sharing/table/attached-space.ts';
export type { Consumer, ConsumerEvent } from './sharing/table/consumers.ts';
export { SharedDirtyLog } from './sharing/table/dirty-log.ts';
export type { TableOptions } from './sharing/table/space-table.ts';
export type { BoundMemory, BoundRange, Revocation, Vmap, VmapOptions } from './sharing/vmap.ts';
export {
  type Arch,
  CAP,
  DIRTY_LOG,
  EXIT,
  GUEST_MEMFD_FLAG,
  MADV,
  MEM,
  MEMORY_ATTRIBUTE_PRIVATE,
  MEMORY_EXIT_FLAG,
  PROT,
} from './uapi/index.ts';
