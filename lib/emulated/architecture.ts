import type { Ppc64Calls, S390xCalls, X86Calls } from '../calls/kvm-calls.ts';
import type { MemslotContext } from '../rules/memslot.ts';
import type { Rule } from '../rules/rule.ts';
import type { Arch } from '../uapi/arch.ts';
import type { GuestFault, GuestInstruction, GuestResult } from './guest.ts';
import type { HostMemory } from './host-memory.ts';
import type { EmulatedMemslot } from './memslots.ts';
import type { OpenFile } from './open-file.ts';
import type { Release } from './release.ts';
import type { EmulatedVcpu } from './vcpu.ts';
import type { EmulatedVm } from './vm.ts';

/** The kernel's file descriptors, for the architectures' own calls. Each lookup gives −errno for a wrong fd. */
export interface KernelFiles {
  readonly memory: HostMemory;
  vm(fd: number): EmulatedVm | number;
  vcpu(fd: number): EmulatedVcpu | number;
  /** A new descriptor, or −errno. */
  open(file: OpenFile): number;
}

/** The groups of {@link KvmCalls} that an architecture has. */
export interface ArchitectureCalls {
  readonly x86_64?: X86Calls;
  readonly s390x?: S390xCalls;
  readonly ppc64?: Ppc64Calls;
}

/** What an architecture's kernel does differently; one folder each implements it. */
export interface EmulatedArchitecture {
  readonly arch: Arch;
  readonly release: Release;
  readonly pageSize: number;
  readonly littleEndian: boolean;
  readonly vcpuMmapSize: number;
  /** Page of the vCPU's mapping that holds the coalesced-MMIO ring; 0 where there is none. */
  readonly coalescedMmioPage: number;
  /** What an unknown request on a VM fd gets. */
  readonly unknownVmRequest: number;
  /** What an unknown request on a vCPU fd gets. */
  readonly unknownVcpuRequest: number;
  /** Bits that MANUAL_DIRTY_LOG_PROTECT2 knows; 0 where there is no CLEAR_DIRTY_LOG. */
  readonly manualProtect: number;
  readonly readonlyMem: boolean;
  readonly addressSpaces: number;
  readonly userSlots: number;
  readonly hvaLimit: bigint;
  /** Guest code goes through KVM's instruction emulator, to which a page that the host lacks looks like a device. */
  readonly emulatesGuestCode: boolean;
  /** What IRQFD gets on a VM without an interrupt controller. */
  readonly irqfdWithoutIrqchip: number;

  /** Flags that CREATE_GUEST_MEMFD knows; −1 where the kernel has no guest_memfd. */
  readonly guestMemfdFlags: number;
  readonly hasMemoryAttributes: boolean;
  /** errno of GET_ONE_REG and SET_ONE_REG for an id that isn't there. */
  readonly unknownOneReg: number;

  /** CHECK_EXTENSION; `vm` is undefined on the /dev/kvm fd. */
  checkExtension(cap: number, vm: EmulatedVm | undefined): number;
  /** 0 or −errno for a VM type. */
  checkVmType(type: bigint): number;
  /** Whether VMs of a type take guest_memfd slots. */
  guestMemfd(type: bigint): boolean;
  /** Whether VMs of a type tell private pages from shared ones. */
  privateMemory(type: bigint): boolean;
  vmCreated(vm: EmulatedVm): void;
  /** The architecture's own memslot checks for this VM. */
  memslotRules(vm: EmulatedVm): readonly Rule<MemslotContext>[];
  /** A slot is about to lose its old place (deleted or moved): guest mappings through it are dropped. */
  memslotFlushed?(vm: EmulatedVm, slot: EmulatedMemslot): void;
  /** A slot was created, moved or changed its flags. */
  memslotCommitted?(vm: EmulatedVm, slot: EmulatedMemslot): void;
  /** The guest loads from a page of a slot, or stores to it. */
  pageTouched?(vcpu: EmulatedVcpu, slot: EmulatedMemslot, gfn: number): void;
  /** User space's pages behind guest frames, [first, end), are others, or gone. */
  pagesInvalidated?(vm: EmulatedVm, first: number, end: number): void;
  /** Whether the guest's stores are noted in page tables of the architecture's, from which its GET_DIRTY_LOG takes them. */
  storesNotedInPageTables?(vm: EmulatedVm): boolean;
  /** The architecture's GET_DIRTY_LOG, where it isn't the generic one. */
  getDirtyLog?(vm: EmulatedVm, slot: number, bitmap: Uint8Array | null): number;
  /** ENABLE_CAP on the VM fd for a capability that isn't generic: 0 or −errno. */
  enableVmCap(vm: EmulatedVm, cap: number, args: readonly bigint[]): number;
  /** ENABLE_CAP on a vCPU fd. */
  enableVcpuCap(vcpu: EmulatedVcpu, cap: number, flags: number, args: readonly bigint[]): number;
  /** Refuses a vCPU id, or 0. */
  checkVcpuId(vm: EmulatedVm, id: bigint): number;
  vcpuCreated(vcpu: EmulatedVcpu): void;
  /** Whether KVM_RUN may run at all, or −errno. */
  beforeRun?(vcpu: EmulatedVcpu): number;
  createIrqchip(vm: EmulatedVm): number;
  /** KVM_PRE_FAULT_MEMORY: `range` is [gpa, size], updated. */
  preFaultMemory(vcpu: EmulatedVcpu, range: BigUint64Array, flags: bigint): number;
  /** SET_MP_STATE, where not every state will do: 0 or −errno. */
  setMpState?(vcpu: EmulatedVcpu, state: number): number;
  /** Before GET_REGS and GET_SREGS. */
  registersAsked?(vcpu: EmulatedVcpu): void;
  /** SET_REGS was carried out. */
  regsSet?(vcpu: EmulatedVcpu): void;
  /** SET_SREGS was carried out. */
  sregsSet?(vcpu: EmulatedVcpu): void;
  setDeviceAttr(vm: EmulatedVm, group: number, attr: bigint, value: Uint8Array | null): number;
  getDeviceAttr(vm: EmulatedVm, group: number, attr: bigint, value: Uint8Array | null): number;
  hasDeviceAttr(vm: EmulatedVm, group: number, attr: bigint): number;
  /**
   * Where a guest's access goes: a guest physical address, or −errno, with which KVM_RUN ends. A fault that the guest
   * itself sees is a GuestFault, thrown.
   * Absent where scripted guests name guest physical addresses.
   */
  translate?(vcpu: EmulatedVcpu, address: number, size: number, write: boolean): number;
  /** The guest's instruction at an address, if it is a load or store. A fault of the fetch is a GuestFault, thrown. */
  guestCode?(vcpu: EmulatedVcpu, address: number): GuestInstruction | undefined;
  /**
   * What KVM emulates when the instruction at `address` found no memory at `ea`; undefined where it resumes the guest. What
   * the guest sees of one that it doesn't emulate is a GuestFault, thrown.
   */
  emulatedCode?(vcpu: EmulatedVcpu, address: number, ea: number, write: boolean): GuestInstruction | undefined;
  /** What a guest sees that accesses an address without memory on an architecture without MMIO exits. */
  missingMemory?(vcpu: EmulatedVcpu, gpa: number): GuestFault;
  /** An instruction by its mnemonic: its result, or `'retry'` when it has to wait for somebody else. */
  instruction?(vcpu: EmulatedVcpu, name: string, operands: readonly bigint[]): GuestResult | 'retry';
  /** A hypercall that the kernel answers itself; undefined where user space gets it. */
  hypercall?(vcpu: EmulatedVcpu, nr: number, args: readonly bigint[]): readonly bigint[] | undefined;
  /** Fills kvm_run for a hypercall that user space gets, and reads its answer back. */
  hypercallExit?(vcpu: EmulatedVcpu, nr: number, args: readonly bigint[]): () => readonly bigint[];
  /** The architecture's own group of calls. */
  calls(files: KernelFiles): ArchitectureCalls;
}
