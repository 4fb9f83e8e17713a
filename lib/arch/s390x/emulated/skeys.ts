/** KVM_S390_GET_SKEYS, SET_SKEYS and KEYOP. */

import { indexOfBits } from '../../../base/wide-bytes.ts';
import type { EmulatedMemslot } from '../../../emulated/memslots.ts';
import { copyOut } from '../../../emulated/user-memory.ts';
import { refusal } from '../../../rules/rule.ts';
import { ERRNO } from '../../../uapi/errno.ts';
import { KEYOP, S390_GET_SKEYS_NONE } from '../../../uapi/flags.ts';
import { SEGMENT_PAGES } from '../model/dat-entries.ts';
import { KEY_CHANGE, KEY_REFERENCE } from '../model/index.ts';
import { SKEYS_COUNT_RULES, SKEYS_FLAGS_RULES } from '../rules.ts';
import type { S390xVm } from './vm-state.ts';

/** Bit 0x01 of a key byte is always 0; SET_SKEYS refuses it. */
const UNUSED_BIT = 1;

export function getSkeys(vm: S390xVm, startGfn: bigint, count: bigint, flags: number, into: Uint8Array | null): number {
  const refused = refusal(SKEYS_FLAGS_RULES, { flags, count });
  if (refused !== 0) return refused;
  if (!vm.states.keysEnabled) return S390_GET_SKEYS_NONE;
  const miscounted = refusal(SKEYS_COUNT_RULES, { flags, count });
  if (miscounted !== 0) return miscounted;
  const length = Number(count);
  const runs: Run[] = [];
  for (let done = 0; done < length; ) {
    const run = nextRun(vm, startGfn, done, length);
    if (typeof run === 'number') return run;
    if (run.length === 0) return -ERRNO.EFAULT;
    runs.push(run);
    done += run.length;
  }
  const keys = into !== null && into.length >= length ? into : new Uint8Array(length);
  let at = 0;
  for (const run of runs) {
    vm.states.readKeys(run.slot, run.gfn, keys, at, run.length);
    at += run.length;
  }
  return keys === into ? 0 : copyOut(keys, into);
}

export function setSkeys(vm: S390xVm, startGfn: bigint, count: bigint, flags: number, from: Uint8Array | null): number {
  const refused = refusal(SKEYS_FLAGS_RULES, { flags, count }) || refusal(SKEYS_COUNT_RULES, { flags, count });
  if (refused !== 0) return refused;
  const length = Number(count);
  if (from === null || from.length < length) return -ERRNO.EFAULT;
  vm.states.enableKeys();
  if (vm.ownsPageTables) {
    if (validKeys(from, 0, length) < length) return -ERRNO.EINVAL;
  }
  for (let done = 0; done < length; ) {
    const run = nextRun(vm, startGfn, done, length);
    // What was set before stays set.
    if (typeof run === 'number') return run;
    // A bad key is found before a page that isn't there.
    if (run.length === 0) return (from[done]! & UNUSED_BIT) === 0 ? -ERRNO.EFAULT : -ERRNO.EINVAL;
    const good = validKeys(from, done, run.length);
    const failure = setRun(vm, run, from, done, good);
    if (failure !== 0) return failure;
    if (good < run.length) return -ERRNO.EINVAL;
    done += run.length;
  }
  return 0;
}

/** How many of the bytes from `at` on are keys. */
function validKeys(keys: Uint8Array, at: number, length: number): number {
  return indexOfBits(keys, at, at + length, UNUSED_BIT) - at;
}

/** What is looked at, set and noted stays in the processor's caches. */
const RUN_MAX = 32_768;

/** Frames that follow one another in a slot and in user space, up to so many. */
interface Run {
  readonly slot: EmulatedMemslot;
  readonly gfn: number;
  readonly length: number;
}

/**
 * The run from `startGfn + done` on; −EFAULT where there is no slot. Up to 6.19 it is empty where user space has nothing
 * mapped; from 7.0 on keys need no memory.
 */
function nextRun(vm: S390xVm, startGfn: bigint, done: number, count: number): Run | number {
  const gfn = gfnAt(startGfn, done);
  const slot = vm.storage.slot(gfn);
  if (slot === undefined) return -ERRNO.EFAULT;
  const mapped = vm.ownsPageTables ? slot.npages : vm.storage.mappedFrames(slot, gfn);
  return { slot, gfn, length: Math.min(count - done, slot.baseGfn + slot.npages - gfn, mapped, RUN_MAX) };
}

/** Sets the keys of a run; up to 6.19 each segment of user space without a page table loses one. */
function setRun(vm: S390xVm, { slot, gfn }: Run, keys: Uint8Array, at: number, length: number): number {
  if (vm.ownsPageTables) {
    vm.states.writeKeys(slot, gfn, keys, at, length);
    return 0;
  }
  /** What was looked at; and what of it has been set. */
  let i = 0;
  let set = 0;
  let inSegment = vm.storage.framesOfSegment(slot, gfn);
  for (let end = 0; i < length; i = end) {
    end = Math.min(length, i + inSegment);
    inSegment = SEGMENT_PAGES;
    if (vm.storage.hasPageTable(slot, gfn + i)) continue;
    vm.states.writeKeys(slot, gfn + set, keys, at + set, i - set);
    // Keys of 0 are there already. For the first other one the page is faulted in, and then the key isn't set.
    while (i < end && keys[at + i] === 0) i++;
    if (i < end && !vm.storage.faultIn(slot, gfn + i, true)) return -ERRNO.EFAULT;
    set = Math.min(end, i + 1);
  }
  vm.states.writeKeys(slot, gfn + set, keys, at + set, length - set);
  return 0;
}

/** KVM_S390_KEYOP (7.0): `key` is in and out. It doesn't turn keys on. */
export function keyOp(vm: S390xVm, guestAddress: bigint, operation: number, key: Uint8Array): number {
  if (!vm.ownsPageTables) return -ERRNO.ENOTTY;
  if (key.length < 1) return -ERRNO.EFAULT;
  if (!Object.values<number>(KEYOP).includes(operation)) return -ERRNO.EINVAL;
  const gfn = Number(guestAddress >> 12n);
  const slot = vm.storage.slot(gfn);
  if (slot === undefined) return -ERRNO.EFAULT;
  const before = vm.states.key(slot, gfn);
  if (operation === KEYOP.RRBE) vm.states.setKey(slot, gfn, before & ~KEY_REFERENCE);
  if (operation === KEYOP.SSKE) vm.states.setKey(slot, gfn, key[0]! & ~UNUSED_BIT);
  key[0] = operation === KEYOP.RRBE ? before & (KEY_REFERENCE | KEY_CHANGE) : before;
  return 0;
}

/** gfns wrap at 64 bits; nothing is ever there. */
function gfnAt(start: bigint, index: number): number {
  return Number(BigInt.asUintN(64, start + BigInt(index)));
}
