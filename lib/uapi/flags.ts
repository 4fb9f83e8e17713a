import { checkWord } from './argument-errors.ts';

/** What GET_API_VERSION answers (uAPI `KVM_API_VERSION`). */
export const API_VERSION = 12;

/** Flags of a memslot (uAPI `KVM_MEM_*`). */
export const MEM = { LOG_DIRTY_PAGES: 1, READONLY: 2, GUEST_MEMFD: 4 } as const;

/** Flags of CREATE_GUEST_MEMFD since 6.18 (uAPI `GUEST_MEMFD_FLAG_*`), as KVM_CAP_GUEST_MEMFD_FLAGS tells them. */
export const GUEST_MEMFD_FLAG = {
  /** The guest_memfd can be mapped, and its pages that are shared be touched. */
  MMAP: 1,
  /** Its pages are shared from the beginning, not private to the guest. */
  INIT_SHARED: 2,
} as const;

/** `KVM_MEMORY_ATTRIBUTE_PRIVATE`, the one memory attribute there is. */
export const MEMORY_ATTRIBUTE_PRIVATE = 8;

/** Flags of a MEMORY_FAULT exit (6.8; uAPI `KVM_MEMORY_EXIT_FLAG_*`): the access was to private memory. */
export const MEMORY_EXIT_FLAG = { PRIVATE: 8 } as const;

/** What `args[0]` of ENABLE_CAP(MANUAL_DIRTY_LOG_PROTECT2) may contain (uAPI `KVM_DIRTY_LOG_*`). */
export const DIRTY_LOG = { MANUAL_PROTECT_ENABLE: 1, INITIALLY_SET: 2 } as const;

/** Flags of a dirty-ring entry (uAPI `KVM_DIRTY_GFN_F_*`). */
export const DIRTY_GFN = { DIRTY: 1, RESET: 2 } as const;

/** Page offset at which the data of port I/O is mapped on a vCPU fd (uAPI `KVM_PIO_PAGE_OFFSET`, x86). */
export const PIO_PAGE_OFFSET = 1;

/** Page offset at which the dirty ring is mapped on a vCPU fd (uAPI `KVM_DIRTY_LOG_PAGE_OFFSET`). */
export const DIRTY_LOG_PAGE_OFFSET = 64;

/** Flags of IOEVENTFD (uAPI `KVM_IOEVENTFD_FLAG_*`). */
export const IOEVENTFD = { DATAMATCH: 1, PIO: 2, DEASSIGN: 4, VIRTIO_CCW_NOTIFY: 8, FAST_MMIO: 0x10 } as const;

/** Flags of IRQFD (uAPI `KVM_IRQFD_FLAG_*`). */
export const IRQFD = { DEASSIGN: 1, RESAMPLE: 2 } as const;

/** Values of `kvm_run.exit_reason` (uAPI `KVM_EXIT_*`). */
export const EXIT = {
  UNKNOWN: 0,
  EXCEPTION: 1,
  IO: 2,
  HYPERCALL: 3,
  DEBUG: 4,
  HLT: 5,
  MMIO: 6,
  IRQ_WINDOW_OPEN: 7,
  SHUTDOWN: 8,
  FAIL_ENTRY: 9,
  INTR: 10,
  SET_TPR: 11,
  TPR_ACCESS: 12,
  S390_SIEIC: 13,
  S390_RESET: 14,
  DCR: 15,
  NMI: 16,
  INTERNAL_ERROR: 17,
  OSI: 18,
  PAPR_HCALL: 19,
  S390_UCONTROL: 20,
  WATCHDOG: 21,
  S390_TSCH: 22,
  EPR: 23,
  SYSTEM_EVENT: 24,
  S390_STSI: 25,
  IOAPIC_EOI: 26,
  HYPERV: 27,
  ARM_NISV: 28,
  X86_RDMSR: 29,
  X86_WRMSR: 30,
  DIRTY_RING_FULL: 31,
  AP_RESET_HOLD: 32,
  X86_BUS_LOCK: 33,
  XEN: 34,
  RISCV_SBI: 35,
  RISCV_CSR: 36,
  NOTIFY: 37,
  LOONGARCH_IOCSR: 38,
  MEMORY_FAULT: 39,
  TDX: 40,
  ARM_SEA: 41,
  ARM_LDST64B: 42,
  SNP_REQ_CERTS: 43,
} as const;

export type ExitName = keyof typeof EXIT;

const exitNames = new Map<number, ExitName>(Object.entries(EXIT).map(([name, value]) => [value, name as ExitName]));

/** The name of an exit reason without its `KVM_EXIT_` prefix; numbers we don't know give `EXIT_<n>`. */
export function exitName(reason: number): ExitName | `EXIT_${number}` {
  return exitNames.get(checkWord(reason, 'reason')) ?? `EXIT_${reason}`;
}

/**
 * What `mmap` of {@link KvmCalls} takes, with the values of asm-generic on every architecture;
 * the addon translates where an architecture's own differ (powerpc's NORESERVE).
 */
export const PROT = { NONE: 0, READ: 1, WRITE: 2, EXEC: 4 } as const;
export const MAP = { SHARED: 1, PRIVATE: 2, ANONYMOUS: 0x20, NORESERVE: 0x4000, HUGETLB: 0x4_0000 } as const;
/** With HUGETLB: log2 of the page size that is asked for (`MAP_HUGE_MASK << MAP_HUGE_SHIFT`). */
export const MAP_HUGE_BITS = 0xfc00_0000;

/** Flags of memfd_create(2) (`MFD_*`). */
export const MFD = { CLOEXEC: 1 } as const;

/** Modes of `fallocate` that a guest_memfd knows (uAPI `FALLOC_FL_*`). */
export const FALLOC = { KEEP_SIZE: 1, PUNCH_HOLE: 2 } as const;

/** Advice values that `madvise` of {@link KvmCalls} accepts (asm-generic). */
export const MADV = {
  NORMAL: 0,
  WILLNEED: 3,
  DONTNEED: 4,
  REMOVE: 9,
  HUGEPAGE: 14,
  NOHUGEPAGE: 15,
  POPULATE_READ: 22,
  POPULATE_WRITE: 23,
} as const;

/** Events that {@link KvmCalls.poll} waits for and reports (poll.h). */
export const POLL = { IN: 1, OUT: 4, ERR: 8 } as const;

/** Types of Unix sockets (asm-generic). */
export const SOCK = { STREAM: 1, SEQPACKET: 5 } as const;

/** The most descriptors that one message carries over a Unix socket (the kernel's `SCM_MAX_FD`). */
export const SCM_MAX_FD = 253;

/** What can be forbidden to everybody who has a memfd (`F_SEAL_*`). */
export const SEAL = { SEAL: 1, SHRINK: 2, GROW: 4, WRITE: 8 } as const;

/** Values of GET_MP_STATE and SET_MP_STATE (uAPI `KVM_MP_STATE_*`). */
export const MP_STATE = {
  RUNNABLE: 0,
  UNINITIALIZED: 1,
  INIT_RECEIVED: 2,
  HALTED: 3,
  SIPI_RECEIVED: 4,
  STOPPED: 5,
  CHECK_STOP: 6,
  OPERATING: 7,
  LOAD: 8,
  AP_RESET_HOLD: 9,
  SUSPENDED: 10,
} as const;

/** Types of CREATE_VM beside 0 (uAPI `KVM_X86_SW_PROTECTED_VM`, `KVM_VM_S390_UCONTROL`, `KVM_VM_PPC_HV`). */
export const VM_TYPE = { X86_SW_PROTECTED: 1, S390_UCONTROL: 1, PPC_HV: 1 } as const;

/** Operations of KVM_S390_MEM_OP and its flags (uAPI `KVM_S390_MEMOP_*`). */
export const MEMOP = {
  LOGICAL_READ: 0,
  LOGICAL_WRITE: 1,
  SIDA_READ: 2,
  SIDA_WRITE: 3,
  ABSOLUTE_READ: 4,
  ABSOLUTE_WRITE: 5,
  ABSOLUTE_CMPXCHG: 6,
} as const;
export const MEMOP_FLAG = { CHECK_ONLY: 1, INJECT: 2, SKEY: 4 } as const;

/** Result of GET_SKEYS when the guest doesn't use storage keys (uAPI `KVM_S390_GET_SKEYS_NONE`). */
export const S390_GET_SKEYS_NONE = 1;

/** Largest count of GET_SKEYS, SET_SKEYS (`KVM_S390_SKEYS_MAX`) and of CMMA bits. */
export const S390_SKEYS_MAX = 1048576;

/** Flag of GET_CMMA_BITS: look without clearing dirty bits (uAPI `KVM_S390_CMMA_PEEK`). */
export const CMMA_PEEK = 1;

/** Where the byte of GET_CMMA_BITS stands in the words that the mask of SET_CMMA_BITS is of (`_PGSTE_GPS_*`). */
export const CMMA_MASK_SHIFT = 24n;

/** Device attributes of an s390x VM: group and attribute (uAPI `KVM_S390_VM_*`). */
export const S390_VM_ATTRIBUTE = {
  MEM_ENABLE_CMMA: [0, 0],
  MEM_CLR_CMMA: [0, 1],
  MEM_LIMIT_SIZE: [0, 2],
  MIGRATION_STOP: [4, 0],
  MIGRATION_START: [4, 1],
  MIGRATION_STATUS: [4, 2],
} as const;

/** Operations of KVM_S390_KEYOP. */
export const KEYOP = { ISKE: 1, RRBE: 2, SSKE: 3 } as const;

/** Bits of `compat_capabilities` of KVM_PPC_GET_COMPAT_CAPS (7.3): the processors that guests can be told they run on. */
export const PPC_COMPAT_CAP = { POWER9: 1n << 62n, POWER10: 1n << 61n, POWER11: 1n << 60n } as const;

/** Bit of a VM's type on arm64 (uAPI `KVM_VM_TYPE_ARM_PROTECTED`); the low eight are the bits of its physical addresses. */
export const VM_TYPE_ARM_PROTECTED = 0x8000_0000;

/** Target of KVM_ARM_VCPU_INIT: the processor that any host can have (uAPI `KVM_ARM_TARGET_GENERIC_V8`). */
export const ARM_TARGET_GENERIC_V8 = 5;

/** Bit of `kvm_run.arm_sea.flags`: `gpa` says where (uAPI `KVM_EXIT_ARM_SEA_FLAG_GPA_VALID`). */
export const ARM_SEA_GPA_VALID = 1;

/** Flags of GET_HTAB_FD (uAPI `KVM_GET_HTAB_*`). */
export const HTAB = { BOLTED_ONLY: 1, WRITE: 2 } as const;

/** Flags of KVM_PPC_CONFIGURE_V3_MMU (uAPI `KVM_PPC_MMUV3_*`): a radix guest; the guest may use tlbie. */
export const MMUV3 = { RADIX: 1n, GTSE: 2n } as const;

/** Flags of `struct kvm_ppc_smmu_info`: pages must be real in the host; segments of 1 TiB; no hash guests (uAPI `KVM_PPC_*`). */
export const SMMU_INFO = { PAGE_SIZES_REAL: 1, '1T_SEGMENTS': 2, NO_HASH: 4 } as const;

/**
 * Ids of registers that GET_ONE_REG and SET_ONE_REG take (uAPI `KVM_REG_*`). Those of ARM64_CORE count in words of the
 * architecture's `struct kvm_regs`, those of RISCV_CORE in doublewords, from the program counter and x1 on.
 */
export const ONE_REG = {
  PPC_DAR: 0x1030_0000_0000_000cn,
  PPC_DSISR: 0x1020_0000_0000_000dn,
  PPC_AMR: 0x1030_0000_0000_000en,
  PPC_UAMOR: 0x1030_0000_0000_000fn,
  S390_CLOCK_COMP: 0x5030_0000_0000_0004n,
  S390_PFTOKEN: 0x5030_0000_0000_0005n,
  S390_PFCOMPARE: 0x5030_0000_0000_0006n,
  S390_PFSELECT: 0x5030_0000_0000_0007n,
  S390_PP: 0x5030_0000_0000_0008n,
  S390_GBEA: 0x5030_0000_0000_0009n,
  ARM64_CORE: 0x6030_0000_0010_0000n,
  RISCV_CORE: 0x8030_0000_0200_0000n,
} as const;
