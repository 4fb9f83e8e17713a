/** PFMF of a scripted s390x guest, as KVM carries it out (`handle_pfmf` of Linux 6.12, which was read). */

import type { GuestResult } from '../../../emulated/guest.ts';
import { CR0_LOW_ADDRESS_PROTECTION } from '../model/control-registers.ts';
import { cr0Low } from '../model/cpu-state.ts';
import {
  effectiveAddress,
  KEY_CHANGE,
  KEY_REFERENCE,
  PGM_ADDRESSING,
  PGM_PROTECTION,
  PGM_SPECIFICATION,
  realToAbsolutePfn,
} from '../model/index.ts';
import { frameAtAbsolute, type Guest } from './guest-instruction.ts';
import { programInterruption } from './run.ts';

const PAGE = 4096n;
const ZEROS = new Uint8Array(Number(PAGE));

/** The first operand. */
const CONTROL = {
  RESERVED: 0xfffc_0101n,
  SET_KEY: 0x2_0000n,
  CLEAR_FRAME: 0x1_0000n,
  FRAME_SIZE: 0x7000n,
  /** In a key that is otherwise the same, R or C needn't be set: with both, or one of them, the key may stay. */
  ANY_REFERENCE: 0x400n,
  ANY_CHANGE: 0x200n,
  KEY: 0xfen,
} as const;

/** By the frame-size code: 4 KiB, 1 MiB, 2 GiB. */
const FRAME_SIZES: readonly bigint[] = [PAGE, 1n << 20n, 1n << 31n];
const GIBIBYTES = FRAME_SIZES[2];

/**
 * PFMF: clears frames and sets their keys, from an address to the end of the large frame that it is in; or those of one
 * frame of 4 KiB, whose address is a real one.
 * @returns the second operand's register: where the next large frame begins, or the address as it was.
 */
export function pfmf(guest: Guest, [control = 0n, address = 0n]: readonly bigint[]): GuestResult {
  const { state } = guest;
  if ((control & CONTROL.RESERVED) !== 0n) throw programInterruption(PGM_SPECIFICATION, address);
  const effective = effectiveAddress(state.pswMask, address & -PAGE);
  const isLow = (effective & ~0x11ffn) === 0n;
  if ((control & CONTROL.CLEAR_FRAME) !== 0n && isLow && (cr0Low(state.cpu) & CR0_LOW_ADDRESS_PROTECTION) !== 0) {
    throw programInterruption(PGM_PROTECTION, effective);
  }
  const size = FRAME_SIZES[Number((control & CONTROL.FRAME_SIZE) >> 12n)];
  // Where addresses have 24 bits there are no frames of 2 GiB.
  const fits = size !== undefined && !(size === GIBIBYTES && effectiveAddress(state.pswMask, 1n << 24n) === 0n);
  if (!fits) throw programInterruption(PGM_SPECIFICATION, address);
  if (size === PAGE) {
    const gfn = realToAbsolutePfn(Number(effective / PAGE), state.cpu.prefixPfn);
    manageFrame(guest, control, BigInt(gfn) * PAGE);
    return address;
  }
  const end = (effective / size + 1n) * size;
  for (let at = effective; at < end; at += PAGE) manageFrame(guest, control, at);
  return nextAddress(state.pswMask, address, end);
}

/** What the register has afterwards: in 24-bit and 31-bit mode its upper half stays. */
function nextAddress(pswMask: bigint, before: bigint, end: bigint): bigint {
  const is64Bit = effectiveAddress(pswMask, 1n << 32n) !== 0n;
  return is64Bit ? BigInt.asUintN(64, end) : (before & ~0xffff_ffffn) | effectiveAddress(pswMask, end);
}

function manageFrame(guest: Guest, control: bigint, absolute: bigint): void {
  const { storage, states } = guest.vm;
  const { gfn, slot } = frameAtAbsolute(guest, absolute);
  const isCleared = (control & CONTROL.CLEAR_FRAME) === 0n || storage.move(gfn, 0, ZEROS, 0, ZEROS.length, true) === 0;
  if (!isCleared) throw programInterruption(PGM_ADDRESSING, absolute);
  if ((control & CONTROL.SET_KEY) === 0n) return;
  if (!storage.isMapped(slot, gfn)) throw programInterruption(PGM_ADDRESSING, absolute);
  states.enableKeys();
  const key = Number(control & CONTROL.KEY);
  if (mustSetKey(states.key(slot, gfn), key, control)) states.setKey(slot, gfn, key);
}

/** Whether the key is another in a bit that matters. */
function mustSetKey(before: number, key: number, control: bigint): boolean {
  const any = control & (CONTROL.ANY_REFERENCE | CONTROL.ANY_CHANGE);
  if (any === 0n) return true;
  const reference = (any & CONTROL.ANY_REFERENCE) === 0n ? KEY_REFERENCE : 0;
  const change = (any & CONTROL.ANY_CHANGE) === 0n ? KEY_CHANGE : 0;
  return ((before ^ key) & (0xf8 | reference | change)) !== 0;
}
