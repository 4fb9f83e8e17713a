export { type OpenOptions, openCalls } from './calls/open.ts';
export type { Capability } from './capabilities.ts';
export { KvmError, type KvmErrorInfo, ProgramInterruption, type ProgramInterruptionInfo } from './errors.ts';
export { EventFd, Registration } from './eventfd.ts';
export type * from './exits.ts';
export type { GuestMemfd } from './guest-memfd.ts';
export { type CreateVmOptions, Kvm } from './kvm.ts';
export { AddressSpace, type Hole, type Region, type RegionOptions } from './memory/address-space.ts';
export type { CoalescedWrite } from './memory/coalesced-mmio.ts';
export type { DirtyPages, DirtyRun } from './memory/dirty-pages.ts';
export type { AtomicSize } from './memory/guest-memory.ts';
export type { Translation } from './memory/located-memory.ts';
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
export { MmioBus, type MmioHandlers, type MmioRegion } from './memory/mmio-bus.ts';
export type { MemoryRegion } from './memory/region.ts';
export { type MappedPiece, Reservation } from './memory/reservation.ts';
export type { ExplainedTranslation } from './ppc64/explained-translation.ts';
export type { HtabChunkBytes, HtabSlot } from './ppc64/htab-chunk.ts';
export type { HtabCopyOptions, HtabCopyPass } from './ppc64/htab-copy.ts';
export type { HtabReadBudget, HtabReader, HtabWriter } from './ppc64/htab-fd.ts';
export type { HtabReadStreamOptions, HtabWriteStreamOptions } from './ppc64/htab-node-streams.ts';
export type { HtabReaderOptions, ResizeOptions, V3MmuConfig, VmHpt } from './ppc64/vm-hpt.ts';
export {
  type AddressSpaceOptions,
  addressSpaceRanges,
  type DumpedMemory,
  dumpMemory,
  dumpStorageKeys,
} from './s390x/guest-tools.ts';
export type { AccessCheck, AccessOptions, LogicalAccessOptions } from './s390x/mem-op.ts';
export { formatRange } from './s390x/ranges.ts';
export type { VcpuMemOp } from './s390x/vcpu-mem-op.ts';
export { CMMA_NO_DAT, CMMA_USAGE, type CmmaValues, type VmCmma } from './s390x/vm-cmma.ts';
export type { CompareExchangeOptions, CompareExchangeResult, VmMemOp } from './s390x/vm-mem-op.ts';
export type { VmStorageKeys } from './s390x/vm-storage-keys.ts';
export { type Arch, CAP, DIRTY_LOG, EXIT, MADV, MEM, MEMORY_ATTRIBUTE_PRIVATE, PROT } from './uapi/index.ts';
export type { RunOptions, RunSyncOptions, Vcpu } from './vcpu.ts';
export type { IoeventfdOptions, IrqfdOptions, Vm } from './vm.ts';
export type { X86DescriptorTable, X86Regs, X86Segment, X86Sregs } from './x86-registers.ts';
