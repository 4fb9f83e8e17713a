import type { Ppc64Calls, S390xCalls, X86_64Calls } from '../calls/kvm-calls.ts';
import type { ArchVcpu, ArchVm } from './arch-state.ts';
import type { EmulatedHostMemory } from './host-memory.ts';
import type { Machine } from './machine.ts';
import type { OpenFile } from './open-file.ts';
import type { EmulatedVcpu } from './vcpu.ts';
import type { EmulatedVm } from './vm.ts';

/** The kernel's file descriptors, for the architectures' own calls. Each lookup gives −errno for a wrong fd. */
export interface KernelFiles<Vm, Vcpu> {
  readonly memory: EmulatedHostMemory;
  /** What the architecture keeps of the VM. */
  vm(fd: number): Vm | number;
  /** What the architecture keeps of the vCPU; −EBUSY while it runs. */
  vcpu(fd: number): Vcpu | number;
  /** A new descriptor, or −errno. */
  open(file: OpenFile): number;
}

/** The groups of {@link KvmCalls} that an architecture has. */
export interface ArchitectureCalls {
  readonly x86_64?: X86_64Calls;
  readonly s390x?: S390xCalls;
  readonly ppc64?: Ppc64Calls;
}

/**
 * One architecture's KVM: its facts, what it keeps of VMs and vCPUs, its own group of calls. All VMs and vCPUs of a
 * kernel have the state that its one architecture made, so what the calls find is theirs.
 */
export interface Architecture<Vm extends ArchVm = ArchVm, Vcpu extends ArchVcpu = ArchVcpu> {
  readonly machine: Machine;
  createVm(vm: EmulatedVm): Vm;
  createVcpu(vcpu: EmulatedVcpu, vm: Vm): Vcpu;
  calls?(files: KernelFiles<Vm, Vcpu>): ArchitectureCalls;
}
