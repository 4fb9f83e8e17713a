/** KVM_S390_GET_SKEYS, SET_SKEYS and KEYOP. */

import { refusal } from '../../rules/rule.ts';
import { SKEYS_COUNT_RULES, SKEYS_FLAGS_RULES } from '../../rules/s390x.ts';
import { KEY_REFERENCE, PGM_ADDRESSING } from '../../s390x/index.ts';
import { ERRNO } from '../../uapi/errno.ts';
import { KEYOP, S390_GET_SKEYS_NONE } from '../../uapi/flags.ts';
import { copyOut } from '../vm.ts';
import type { S390xVm } from './vm-state.ts';

/** Bit 0x01 of a key byte is always 0; SET_SKEYS refuses it. */
const UNUSED_BIT = 1;

export function getSkeys(vm: S390xVm, startGfn: bigint, count: bigint, flags: number, into: Uint8Array | null): number {
  const refused = refusal(SKEYS_FLAGS_RULES, { flags, count });
  if (refused !== 0) return refused;
  if (!vm.states.keysEnabled) return S390_GET_SKEYS_NONE;
  const miscounted = refusal(SKEYS_COUNT_RULES, { flags, count });
  if (miscounted !== 0) return miscounted;
  const keys = new Uint8Array(Number(count));
  for (let i = 0; i < keys.length; i++) {
    const gfn = gfnAt(startGfn, i);
    const slot = vm.storage.slot(gfn);
    if (slot === undefined) return missingFrame(vm);
    if (!vm.storage.isMapped(slot, gfn)) return -ERRNO.EFAULT;
    keys[i] = vm.states.key(slot, gfn);
  }
  return copyOut(keys, into);
}

export function setSkeys(vm: S390xVm, startGfn: bigint, count: bigint, flags: number, from: Uint8Array | null): number {
  const refused = refusal(SKEYS_FLAGS_RULES, { flags, count }) || refusal(SKEYS_COUNT_RULES, { flags, count });
  if (refused !== 0) return refused;
  const length = Number(count);
  if (from === null || from.length < length) return -ERRNO.EFAULT;
  vm.enableKeys();
  if (vm.release.since(7, 0)) {
    for (let i = 0; i < length; i++) if ((from[i]! & UNUSED_BIT) !== 0) return -ERRNO.EINVAL;
  }
  for (let i = 0; i < length; i++) {
    const gfn = gfnAt(startGfn, i);
    const key = from[i]!;
    const slot = vm.storage.slot(gfn);
    // What was set before stays set.
    if (slot === undefined) return missingFrame(vm);
    if ((key & UNUSED_BIT) !== 0) return -ERRNO.EINVAL;
    if (!vm.storage.isMapped(slot, gfn)) return -ERRNO.EFAULT;
    if (vm.release.since(7, 0) || vm.storage.hasPageTable(slot, gfn)) vm.setKey(slot, gfn, key);
    // Up to 6.19 the page is faulted in so that its key can be set, and then it isn't: the key stays 0.
    else if (key !== 0 && !vm.storage.faultIn(slot, gfn, true)) return -ERRNO.EFAULT;
  }
  return 0;
}

/** KVM_S390_KEYOP (7.0): `key` is in and out. */
export function keyOp(vm: S390xVm, guestAddress: bigint, operation: number, key: Uint8Array): number {
  if (!vm.release.since(7, 0)) return -ERRNO.ENOTTY;
  if (key.length < 1) return -ERRNO.EFAULT;
  if (!Object.values<number>(KEYOP).includes(operation)) return -ERRNO.EINVAL;
  const gfn = Number(guestAddress >> 12n);
  const slot = vm.storage.slot(gfn);
  if (slot === undefined) return PGM_ADDRESSING;
  const before = vm.states.key(slot, gfn);
  vm.enableKeys();
  if (operation === KEYOP.RRBE) vm.setKey(slot, gfn, before & ~KEY_REFERENCE);
  if (operation === KEYOP.SSKE) vm.setKey(slot, gfn, key[0]! & ~UNUSED_BIT);
  key[0] = operation === KEYOP.RRBE ? before & 0x06 : before;
  return 0;
}

/** gfns wrap at 64 bits; nothing is ever there. */
function gfnAt(start: bigint, index: number): number {
  return Number(BigInt.asUintN(64, start + BigInt(index)));
}

/** Up to 6.19 EFAULT; 7.0 lets the addressing code through. */
function missingFrame(vm: S390xVm): number {
  return vm.release.since(7, 0) ? PGM_ADDRESSING : -ERRNO.EFAULT;
}
