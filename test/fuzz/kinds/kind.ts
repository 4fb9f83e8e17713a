import type { EmulatedKernelOptions } from '../../../lib/backends/emulated.ts';
import type { ScenarioHost } from '../../scenarios/scenario.ts';
import type { Random } from '../random.ts';

/** Host memory that slots are cut from, in units; guest memory spans twice as much. */
export const MEMORY_UNITS = 16;
/** How much of the round's file there is at first. */
export const FILE_UNITS = MEMORY_UNITS / 2;
export const GUEST_UNITS = 2 * MEMORY_UNITS;
export const SLOTS = 6;
/** The slot and place of the guest's code, beyond what the operations touch. */
export const CODE_SLOT = 31;
export const CODE_UNIT = GUEST_UNITS + 8;
/** Units of code: more than a round of nothing but runs needs, so that each has a place of its own. */
export const CODE_UNITS = 1024;
export const CODE_BYTES = 256;
/** Where ioeventfds and coalesced zones are in a unit; guests store there as well. */
export const IO_OFFSET = 0x40;

/** What one round works on. */
export interface Round {
  readonly s: ScenarioHost;
  /** How the kernel is built. */
  readonly emulate: EmulatedKernelOptions;
  readonly kvm: number;
  readonly vm: number;
  /** −1 where no vCPU is there. */
  readonly vcpu: number;
  readonly hva: number;
  readonly codeHva: number;
  readonly eventfd: number;
  /** A memfd of FILE_UNITS. */
  readonly file: number;
  /**
   * Offset of the next guest code: never where code was before, of this VM or of those just before it. The labs' processors were
   * seen to execute what they had in their cache.
   */
  nextCode: number;
  /** What a topic needs beside that: descriptors and places, by names of its own. */
  readonly own: Map<string, number>;
}

/** A call with its operands, so plain that it can be printed, sent to a lab, and left out when a sequence is shortened. */
export interface Operation {
  readonly kind: string;
  readonly operands: readonly (number | readonly number[])[];
}

/** How one kind of operation is made up and carried out. */
export interface Kind {
  /** How often it is chosen, relative to the others. */
  readonly weight: number;
  readonly make: (random: Random) => Operation['operands'];
  readonly apply: (round: Round, operands: Operation['operands']) => void;
}

export type Kinds = Readonly<Record<string, Kind>>;

export const n = (operands: Operation['operands'], i: number): number => operands[i] as number;
export const list = (operands: Operation['operands'], i: number): readonly number[] => operands[i] as readonly number[];
