import type { Segment } from '../../arch/ppc64/model/index.ts';
import type { DatFacilities } from '../../arch/s390x/model/index.ts';
import type { Vcpu } from '../../handles/vcpu.ts';
import type { Vm } from '../../handles/vm.ts';
import type { CapName } from '../../uapi/capabilities.ts';
import type { Instruction } from './machine-code.ts';

/** A register and what is in it. */
export type Register = readonly [name: string, value: bigint];

/** Where a virtual address leads, and how. */
export interface Walk {
  readonly physical: bigint | undefined;
  /** The steps, a line each. */
  readonly text: string;
}

/** A guest whose virtual addresses are followed, and what its capture says of the machine. */
export interface WalkedGuest {
  readonly vm: Vm;
  readonly facilities?: Partial<DatFacilities>;
  readonly segments?: readonly Segment[];
}

/** Something done to the VM before the tour's guest runs, and what it shows after that. */
export interface ArchPart {
  report(): string;
}

/** What the value of a capability says. */
export type CapabilityMeaning = readonly [CapName, string];

/** What the command line knows of an architecture, in cli.ts of its folder: what isn't there it says, or does without. */
export interface CliArch {
  /** The registers of a vCPU, in the order in which they are shown. */
  readonly registers?: (vcpu: Vcpu) => Register[];
  /** Follows the guest's tables. @throws DotUsageError where that can't be done */
  readonly walk?: (address: bigint, guest: WalkedGuest) => Walk;
  /** The tour's guest for the real kernel. */
  readonly machineCode?: readonly Instruction[];
  /** What a VM of the real kernel needs before its first vCPU. */
  readonly prepareVm?: (vm: Vm) => void;
  /** Makes a vCPU begin at an address without translation, in the mode that the machine code is written for. */
  readonly start?: (vm: Vm, vcpu: Vcpu, pc: number) => void;
  /** An emulated vCPU is started so, too: where a guest's code is fetched from shows, scripted or not. */
  readonly startsScripted?: boolean;
  /** What only this architecture has, made ready for the tour. */
  readonly prepareArchPart?: (vm: Vm, vcpu: Vcpu) => ArchPart;
  /** Runs a guest that only halts, on the vCPU of a VM without memory, prepared by {@link prepareVm}; why it came back. */
  readonly runHalt?: (vm: Vm, vcpu: Vcpu) => string;
  /** Capabilities that only it has, and what their values say. */
  readonly capabilities?: readonly CapabilityMeaning[];
  /** How KVM is loaded on a host that shows this in /proc/cpuinfo; modprobe kvm unless given. */
  readonly howToLoad?: (cpuinfo: string) => string;
}
