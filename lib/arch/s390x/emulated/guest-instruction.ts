import type { GuestResult } from '../../../emulated/guest.ts';
import type { EmulatedMemslot } from '../../../emulated/memslots.ts';
import { PGM_ADDRESSING, realToAbsolutePfn } from '../model/index.ts';
import { programInterruption } from './run.ts';
import type { S390xVcpu } from './vcpu-state.ts';
import type { S390xVm } from './vm-state.ts';

/** What an instruction works on. */
export interface Guest {
  readonly vm: S390xVm;
  readonly state: S390xVcpu;
}

/** Carries an instruction out. @throws GuestFault what its operands lead to */
export type Instruction = (guest: Guest, operands: readonly bigint[]) => GuestResult;

/** A frame that has a slot. */
export interface SlotFrame {
  readonly gfn: number;
  readonly slot: EmulatedMemslot;
}

/** The frame at an absolute address. @throws GuestFault 5 without storage */
export function frameAtAbsolute({ vm }: Guest, address: bigint): SlotFrame {
  return frame(vm, Number(address >> 12n), address);
}

/** The frame at a real address, which the guest itself gets at. @throws GuestFault 5 without storage */
export function frameAtReal({ vm, state }: Guest, address: bigint): SlotFrame {
  const found = frame(vm, realToAbsolutePfn(Number(address >> 12n), state.cpu.prefixPfn), address);
  vm.link(found.gfn);
  return found;
}

function frame(vm: S390xVm, gfn: number, address: bigint): SlotFrame {
  const slot = vm.storage.slot(gfn);
  if (slot === undefined) throw programInterruption(PGM_ADDRESSING, Number(address));
  return { gfn, slot };
}
