/** TPROT of a scripted s390x guest. */

import type { GuestResult } from '../../../emulated/guest.ts';
import { PGM_ADDRESSING, PGM_PROTECTION, PGM_TRANSLATION_SPECIFICATION } from '../model/index.ts';
import type { Guest } from './guest-instruction.ts';
import { programInterruption } from './run.ts';

/**
 * TPROT: what an access key may do at a logical address.
 * @param operands the address, and the key where a second-operand address has it (0xf0)
 * @returns the condition code: 0 fetch and store, 1 fetch, 2 neither, 3 there is no translation
 */
export function tprot({ state }: Guest, [address = 0n, keyOperand = 0n]: readonly bigint[]): GuestResult {
  const key = Number((keyOperand >> 4n) & 0xfn);
  const check = (store: boolean): number => {
    state.access.begin(BigInt.asUintN(64, address), 0, store, key);
    return state.access.check(1);
  };
  state.loadAccessRegisters();
  const storing = check(true);
  if (storing === 0) return 0n;
  const code = storing === PGM_PROTECTION ? check(false) : storing;
  if (code === 0) return 1n;
  if (code === PGM_PROTECTION) return 2n;
  // A table that the host doesn't show ends KVM_RUN of the real kernel; a guest program sees what it would see of a page.
  if (code < 0) throw programInterruption(PGM_PROTECTION, address);
  if (code === PGM_ADDRESSING || code === PGM_TRANSLATION_SPECIFICATION) throw programInterruption(code, address);
  return 3n;
}
