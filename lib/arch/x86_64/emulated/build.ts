/** How one x86_64 KVM is built, where that shows. */
export interface X86_64Build {
  /** CONFIG_KVM_SMM: two address spaces. Debian has it. */
  readonly smm: boolean;
  /** CONFIG_KVM_SW_PROTECTED_VM: VM type 1 with private memory. Distributions don't have it. */
  readonly swProtectedVm: boolean;
  /** CONFIG_KVM_GENERIC_MEMORY_ATTRIBUTES, which distributions have for confidential guests' sake. */
  readonly memoryAttributes: boolean;
  /** Bits of a guest physical address. */
  readonly guestPhysicalBits: number;
  /** The MMU translates guest physical addresses itself (nested paging), so memory can be faulted in beforehand. */
  readonly tdp: boolean;
  /** It is AMD's SVM and not Intel's VMX that runs guests: some segments of a new vCPU are others. */
  readonly svm: boolean;
  /** Real mode goes through KVM's instruction emulator (kvm_pvm; Intel processors before unrestricted guest). */
  readonly emulatesRealMode: boolean;
}

/** Debian's KVM on a processor with nested paging. */
export const DEBIAN_BUILD: X86_64Build = {
  smm: true,
  swProtectedVm: false,
  memoryAttributes: true,
  guestPhysicalBits: 48,
  tdp: true,
  svm: true,
  emulatesRealMode: false,
};
