import { ARCH_FACTS, type Arch } from './arch.ts';

/** Byte offsets in `struct kvm_run` (uAPI `linux/kvm.h`); integers are in the host's byte order. */
export const KVM_RUN = {
  request_interrupt_window: 0,
  immediate_exit: 1,
  exit_reason: 8,
  ready_for_interrupt_injection: 12,
  /** Where the union of exit descriptions begins. */
  union: 32,
  io: { direction: 32, size: 33, port: 34, count: 36, data_offset: 40 },
  mmio: { phys_addr: 32, data: 40, len: 48, is_write: 52 },
  memory_fault: { flags: 32, gpa: 40, size: 48 },
  /** Of ARM_NISV and ARM_LDST64B. */
  arm_nisv: { esr_iss: 32, fault_ipa: 40 },
  arm_sea: { flags: 32, esr: 40, gva: 48, gpa: 56 },
  snp_req_certs: { gpa: 32, npages: 40, ret: 48 },
  /** What follows `ret` depends on `nr`. */
  tdx: { flags: 32, nr: 40, ret: 48, data: 56 },
  /** With nine arguments. */
  papr_hcall: { nr: 32, ret: 40, args: 48 },
  internal: { suberror: 32 },
  fail_entry: { reason: 32, cpu: 40 },
  kvm_valid_regs: 288,
  kvm_dirty_regs: 296,
  s: 304,
} as const;

/** The same for s390x, where the PSW stands before the union (uAPI `linux/kvm.h`, `__KVM_S390`). */
export const KVM_RUN_S390X = {
  immediate_exit: 1,
  exit_reason: 8,
  psw_mask: 32,
  psw_addr: 40,
  union: 48,
  s390_sieic: { icptcode: 48, ipa: 50, ipb: 52 },
  kvm_valid_regs: 304,
  kvm_dirty_regs: 312,
  /** `struct kvm_sync_regs`: prefix, gprs, access registers, control registers. */
  s: 320,
  /** The half of the prefix's u64 that has it. */
  prefix: 324,
  gprs: 328,
  acrs: 456,
  crs: 520,
} as const;

/** Arguments of `kvm_run.papr_hcall`, 8 bytes each. */
export const PAPR_HCALL_ARGS = 9;

/** Bits of `kvm_valid_regs` and `kvm_dirty_regs` on s390x (uAPI `KVM_SYNC_*`). */
export const KVM_SYNC = {
  PREFIX: 1,
  GPRS: 2,
  ACRS: 4,
  CRS: 8,
  ARCH0: 0x10,
  PFAULT: 0x20,
  VRS: 0x40,
  RICCB: 0x80,
  FPRS: 0x100,
  GSCB: 0x200,
  BPBC: 0x400,
  ETOKEN: 0x800,
  DIAG318: 0x1000,
} as const;

/** Values of `kvm_run.io.direction`. */
export const IO_DIRECTION = { IN: 0, OUT: 1 } as const;

/** Layout of one dirty-ring entry (`struct kvm_dirty_gfn`). */
export const KVM_DIRTY_GFN = { flags: 0, slot: 4, offset: 8, size: 16 } as const;

/** Layout of the coalesced-MMIO ring page (`struct kvm_coalesced_mmio_ring`). */
export const KVM_COALESCED_MMIO = {
  first: 0,
  last: 4,
  entries: 8,
  entrySize: 24,
  phys_addr: 0,
  len: 8,
  pio: 12,
  data: 16,
} as const;

/** Layout of the structure of KVM_S390_KEYOP (`struct kvm_s390_keyop`, 7.0); the key goes in and comes out. */
export const KVM_S390_KEYOP = { guest_addr: 0, key: 8, operation: 9, structSize: 16 } as const;

/** Layout of the structure of KVM_PPC_GET_COMPAT_CAPS (`struct kvm_ppc_compat_caps`, 7.3); `size` goes in. */
export const KVM_PPC_COMPAT_CAPS = { size: 0, flags: 8, compat_capabilities: 16, structSize: 24 } as const;

/** Layout of `struct kvm_regs` on ppc64, as far as it is looked at: 32 general-purpose registers at the end. */
export const KVM_REGS_PPC64 = { pc: 0, cr: 8, msr: 40, pid: 64, gpr: 136 } as const;

/** Layout of `struct kvm_sregs` on ppc64, as far as it is looked at: the processor's version, and the 64 pairs of doublewords of the SLB. */
export const KVM_SREGS_PPC64 = { pvr: 0, slb: 16, slbEntries: 64 } as const;

/** Layout of `struct kvm_sregs` on s390x: 16 access registers of 4 bytes, 16 control registers of 8. */
export const KVM_SREGS_S390X = { acrs: 0, crs: 64 } as const;

/** Layout of `struct kvm_ppc_smmu_info`: up to eight base page sizes (`sps`), each with up to eight page sizes (`enc`). */
export const KVM_PPC_SMMU_INFO = {
  flags: 0,
  slb_size: 8,
  data_keys: 12,
  instr_keys: 14,
  sps: 16,
  structSize: 592,
  maxSizes: 8,
  /** Of one in `sps`. */
  segment: { page_shift: 0, slb_enc: 4, enc: 8, structSize: 72 },
  /** Of one in `enc`. */
  page: { page_shift: 0, pte_enc: 4, structSize: 8 },
} as const;

/** Layout of `struct kvm_sregs` on x86_64 behind its segments: descriptor tables, and control registers of 8 bytes each. */
export const KVM_SREGS_X86_64 = {
  gdt: 192,
  idt: 208,
  cr0: 224,
  cr3: 240,
  cr4: 248,
  cr8: 256,
  efer: 264,
  apic_base: 272,
  interrupt_bitmap: 280,
} as const;

/** Layout of `struct kvm_segment` (x86_64); from `type` on each field is a byte. */
export const KVM_SEGMENT = { base: 0, limit: 8, selector: 12, type: 14, structSize: 24 } as const;

/** Layout of `struct kvm_dtable` (x86_64). */
export const KVM_DTABLE = { base: 0, limit: 8, structSize: 16 } as const;

/** Layout of `struct kvm_vcpu_init` (aarch64); `features` are seven words of bits. */
export const KVM_VCPU_INIT = { target: 0, features: 4, structSize: 32 } as const;

/** Size of `struct kvm_regs` on aarch64, whose fields are got one by one. */
export const KVM_REGS_AARCH64 = { structSize: 864 } as const;

/** Sizes of the register structures of GET/SET_REGS and GET/SET_SREGS; absent where the architecture has none. */
export const REGS_SIZE: Readonly<Record<Arch, { readonly regs?: number; readonly sregs?: number }>> = ARCH_FACTS;

/** Field order of x86_64's `struct kvm_regs`: each a u64, in this order. */
export const X86_64_REGS = [
  'rax',
  'rbx',
  'rcx',
  'rdx',
  'rsi',
  'rdi',
  'rsp',
  'rbp',
  'r8',
  'r9',
  'r10',
  'r11',
  'r12',
  'r13',
  'r14',
  'r15',
  'rip',
  'rflags',
] as const;

/** Field order of x86_64's segment registers at the start of `struct kvm_sregs`, each a `struct kvm_segment`. */
export const X86_64_SEGMENTS = ['cs', 'ds', 'es', 'fs', 'gs', 'ss', 'tr', 'ldt'] as const;
