/** Interlocked updates of a scripted s390x guest. */

import type { GuestResult } from '../../../emulated/guest.ts';
import { PGM_PROTECTION, PGM_SPECIFICATION } from '../model/index.ts';
import type { Guest, Instruction } from './guest-instruction.ts';
import { programInterruption, translateGuestAccess } from './run.ts';

/** CS, CSG, CDS and CDSG by the bytes that they exchange; the problem state may use them. */
export const COMPARE_AND_SWAP: ReadonlyMap<string, Instruction> = new Map<string, Instruction>(
  Object.entries({ CS: 4, CSG: 8, CDS: 8, CDSG: 16 }).map(([name, size]) => [name, compareAndSwap(size)]),
);

function compareAndSwap(size: number): Instruction {
  return (guest, [expected = 0n, replacement = 0n, address = 0n]) => {
    if (address % BigInt(size) !== 0n) throw programInterruption(PGM_SPECIFICATION, address);
    return exchangeIfEqual(guest, address, size, expected, replacement);
  };
}

/**
 * Exchanges what is at a logical address if it is what is expected. It is a store for keys and protection, whether it
 * exchanges or not.
 * @param address a multiple of `size`
 * @returns the condition code, and what was there
 */
export function exchangeIfEqual(
  { vm, state }: Guest,
  address: bigint,
  size: number,
  expected: bigint,
  replacement: bigint,
): GuestResult {
  const absolute = translateGuestAccess(vm, state, address, true);
  const move = (bytes: Buffer, store: boolean): void => {
    const code = vm.storage.move(Math.floor(absolute / 4096), absolute % 4096, bytes, 0, size, store);
    // The frame is there: only the host can forbid it.
    if (code !== 0) throw programInterruption(PGM_PROTECTION, address);
  };
  const bytes = Buffer.alloc(size);
  move(bytes, false);
  const found = BigInt(`0x${bytes.toString('hex')}`);
  if (found !== BigInt.asUintN(8 * size, expected)) return [1n, found];
  const digits = BigInt.asUintN(8 * size, replacement).toString(16);
  move(Buffer.from(digits.padStart(2 * size, '0'), 'hex'), true);
  return [0n, found];
}
