import type { MemslotContext } from '../rules/memslot.ts';
import type { Rule } from '../rules/rule.ts';
import type { RequestName } from '../uapi/requests.ts';
import type { GuestFault, GuestInstruction, GuestResult } from './guest.ts';
import type { EmulatedMemslot } from './memslots.ts';

/** Requests over a structure for which there is no call of their own: 0 or −errno. */
type OwnRequests = Partial<Record<RequestName, (struct: Uint8Array) => number>>;

/**
 * What an architecture keeps of a VM and does for it (`kvm->arch` and the `kvm_arch_…` functions). What is absent, the
 * architecture's kernel does not do or leaves to the generic part.
 */
export interface ArchVm {
  /** There is an interrupt controller in the kernel. */
  readonly irqchip?: boolean;
  readonly requests?: OwnRequests;
  /** KVM_CREATE_IRQCHIP. */
  createIrqchip?(): number;
  /** ENABLE_CAP for a capability that isn't generic: 0 or −errno. */
  enableCap?(cap: number, args: readonly bigint[]): number;
  setDeviceAttr?(group: number, attr: bigint, value: Uint8Array | null): number;
  getDeviceAttr?(group: number, attr: bigint, value: Uint8Array | null): number;
  hasDeviceAttr?(group: number, attr: bigint): number;

  /** The architecture's memslot checks, where they are the VM's own and not those of every VM of the machine. */
  readonly memslotRules?: readonly Rule<MemslotContext>[];
  /** A slot is about to lose its old place (deleted or moved): guest mappings through it are dropped. */
  memslotFlushed?(slot: EmulatedMemslot): void;
  /** A slot was created, moved or changed its flags. */
  memslotCommitted?(slot: EmulatedMemslot): void;
  /** User space's pages behind guest frames, [first, end), are others, or gone. */
  pagesInvalidated?(first: number, end: number): void;
  /** Nobody has a descriptor of the VM any more. */
  released?(): void;
  /** Before GET_DIRTY_LOG: what is dirty by the architecture's own tables is put into the log. */
  syncDirtyLog?(slot: EmulatedMemslot): void;
}

/** The requests on a vCPU's descriptor that an architecture answers in its own way. */
interface VcpuRequests {
  readonly requests?: OwnRequests;
  /** Before GET_ONE_REG and SET_ONE_REG: 0 or −errno. */
  refusesOneReg?(): number;
  /** Whether SET_ONE_REG takes a value of a register that there is. Where something else is kept of it, it is changed in place. */
  acceptsOneReg?(id: bigint, value: Uint8Array): boolean;
  /** GET_MP_STATE, where it isn't the state alone. */
  getMpState?(): number;
  enableCap?(cap: number, flags: number, args: readonly bigint[]): number;
  /** KVM_PRE_FAULT_MEMORY: `range` is [gpa, size], updated. */
  preFaultMemory?(range: BigUint64Array, flags: bigint): number;
  /** SET_MP_STATE: 0 or −errno. */
  setMpState(state: number): number;
  /** Before GET_REGS and GET_SREGS. */
  registersAsked?(): void;
  /** SET_REGS was carried out. */
  regsSet?(): void;
  /** Whether SET_SREGS takes these; likewise. */
  acceptsSregs?(sregs: Uint8Array): boolean;
  /** SET_SREGS was carried out. */
  sregsSet?(): void;
}

/** What an architecture's processor and KVM do while a scripted guest runs. */
interface GuestExecution {
  /** A scripted guest was loaded. */
  loaded?(): void;
  /** Before the guest goes on: 0, or −errno with which KVM_RUN ends. */
  beforeRun?(): number;
  /**
   * There is no memory where the guest's next instruction is: fills kvm_run, and gives the exit's reason. Without this the guest goes on.
   * @param again there was none at the exit before, either
   */
  noCode?(again: boolean): number;
  /** What the guest takes when it is run again after that. */
  missingCode?(): GuestFault;
  /** A halted vCPU makes an exit, as its waking is user space's affair. */
  readonly exitsOnHalt?: boolean;
  /**
   * Where a guest's access goes: a guest physical address, or −errno, with which KVM_RUN ends. A fault that the guest
   * itself sees is a GuestFault, thrown.
   * Absent where scripted guests name guest physical addresses.
   */
  translate?(address: number, size: number, write: boolean): number;
  /** The guest loaded from a page of a slot, or stored to it; by default a store makes the page dirty. */
  pageAccessed?(slot: EmulatedMemslot, gfn: number, write: boolean): void;
  /** The guest's instruction at an address, if it is a load or store. A fault of the fetch is a GuestFault, thrown. */
  guestCode?(address: number): GuestInstruction | undefined;
  /**
   * What KVM emulates when the instruction at `address` found no memory at `ea`; undefined where it resumes the guest. What
   * the guest sees of one that it doesn't emulate is a GuestFault, thrown.
   */
  emulatedCode?(address: number, ea: number, write: boolean): GuestInstruction | undefined;
  /** An instruction by its mnemonic: its result, or `'retry'` when it has to wait for somebody else. */
  instruction?(name: string, operands: readonly bigint[]): GuestResult | 'retry';
  /** A hypercall that the kernel answers itself; undefined where user space gets it. */
  hypercall?(nr: number, args: readonly bigint[]): readonly bigint[] | undefined;
  /** Fills kvm_run for a hypercall that user space gets, and reads its answer back. */
  hypercallExit?(nr: number, args: readonly bigint[]): () => readonly bigint[];
}

/** What an architecture keeps of a vCPU and does for it (`vcpu->arch`). */
export interface ArchVcpu extends VcpuRequests, GuestExecution {}
