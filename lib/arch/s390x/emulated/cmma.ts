/** KVM_S390_GET_CMMA_BITS and SET_CMMA_BITS, and the migration mode that makes pages CMMA-dirty. */

import { partOf } from '../../../base/part-of.ts';
import type { EmulatedMemslot } from '../../../emulated/memslots.ts';
import { copyOut } from '../../../emulated/user-memory.ts';
import { refusal } from '../../../rules/rule.ts';
import { ERRNO } from '../../../uapi/errno.ts';
import { CMMA_MASK_SHIFT, CMMA_PEEK, S390_SKEYS_MAX } from '../../../uapi/flags.ts';
import { CMMA_BITS } from '../model/cmma.ts';
import { SEGMENT_PAGES } from '../model/dat-entries.ts';
import { GET_CMMA_RULES, SET_CMMA_RULES } from '../rules.ts';
import type { S390xVm } from './vm-state.ts';

/** A run of values goes on over clean pages while the next dirty one is at most so far ahead. */
const MAX_DISTANCE = 16;

/** GET_CMMA_BITS: `log` is [start_gfn, count, remaining], updated unless the call fails. */
export function getCmmaBits(vm: S390xVm, log: BigUint64Array, flags: number, into: Uint8Array | null): number {
  const count = BigInt.asUintN(32, log[1]!);
  const refused = refusal(GET_CMMA_RULES, { enabled: vm.cmmaEnabled, flags, count, migrating: vm.migrating });
  if (refused !== 0) return refused;
  const peek = (flags & CMMA_PEEK) !== 0;
  const size = Math.min(Number(count), S390_SKEYS_MAX);
  if (size === 0 || !vm.states.cmmaUsed || (!peek && vm.cmmaDirty.count === 0)) {
    log.fill(0n);
    return 0;
  }
  const values = new Uint8Array(size);
  if (!peek && vm.ownsPageTables) return harvestOwn(vm, log, values, into);
  // Pages of slots that are gone still count. The kernel leaves the request as it is, and copies a buffer that nobody has filled.
  if (!peek && vm.slots().length === 0) {
    log[2] = BigInt(vm.cmmaDirty.count);
    return copyOut(values, into);
  }
  const start = peek ? Number(log[0]) : vm.cmmaDirty.next(vm.slots(), Number(log[0]));
  const found = peek ? peekValues(vm, start, values) : harvest(vm, start, values);
  if (found < 0) return found;
  const copied = copyOut(values.subarray(0, found), into);
  if (copied !== 0) return copied;
  log[0] = BigInt(start);
  log[1] = BigInt(found);
  log[2] = BigInt(vm.migrating ? vm.cmmaDirty.count : 0);
  return 0;
}

function peekValues(vm: S390xVm, start: number, values: Uint8Array): number {
  for (let i = 0; i < values.length; i++) {
    const slot = vm.storage.slot(start + i);
    if (slot === undefined) return i === 0 ? -ERRNO.EFAULT : i;
    values[i] = vm.states.cmma(slot, start + i);
  }
  return values.length;
}

function harvest(vm: S390xVm, start: number, values: Uint8Array): number {
  const slots = vm.slots();
  const dirty = vm.cmmaDirty;
  const last = slots.at(-1)!;
  const end = last.baseGfn + last.npages;
  let next = dirty.next(slots, start + 1);
  let found = 0;
  for (let gfn = start; ; gfn++) {
    const slot = vm.storage.slot(gfn);
    if (slot === undefined) break;
    dirty.take(slot, gfn);
    values[found++] = vm.states.cmma(slot, gfn);
    if (next > gfn + MAX_DISTANCE) break;
    if (gfn === next) next = dirty.next(slots, gfn + 1);
    // There is room as far as the next one. One before the start is that of a search from behind the last page, where the run ends.
    if (next >= end || next - start >= values.length) break;
  }
  return found;
}

/** From 7.0 on: from the first dirty page, beginning anew at 0, to the last one before a gap; clean pages are 0. */
function harvestOwn(vm: S390xVm, log: BigUint64Array, values: Uint8Array, into: Uint8Array | null): number {
  const from = Number(log[0]);
  const frames = [...dirtyFrames(vm, from, Number.POSITIVE_INFINITY), ...dirtyFrames(vm, 0, from)];
  // Those of slots that are gone don't count: there is one.
  const start = frames[0]!.gfn;
  let end = start;
  for (const { slot, gfn } of frames) {
    if (gfn < start || gfn - end > MAX_DISTANCE || gfn - start >= values.length) break;
    vm.cmmaDirty.take(slot, gfn);
    values[gfn - start] = vm.states.cmma(slot, gfn);
    end = gfn + 1;
  }
  const copied = copyOut(values.subarray(0, end - start), into);
  if (copied !== 0) return copied;
  log[0] = BigInt(start);
  log[1] = BigInt(end - start);
  log[2] = BigInt(vm.cmmaDirty.count);
  return 0;
}

function* dirtyFrames(vm: S390xVm, from: number, until: number) {
  for (const slot of vm.slots()) {
    const end = Math.min(until, slot.baseGfn + slot.npages);
    for (let gfn = Math.max(from, slot.baseGfn); gfn < end; gfn++)
      if (vm.cmmaDirty.isDirty(slot, gfn)) yield { slot, gfn };
  }
}

/** SET_CMMA_BITS. */
export function setCmmaBits(
  vm: S390xVm,
  startGfn: bigint,
  count: number,
  flags: number,
  mask: bigint,
  from: Uint8Array | null,
): number {
  const wide = BigInt(count);
  const refused = refusal(SET_CMMA_RULES, { enabled: vm.cmmaEnabled, flags, count: wide, migrating: vm.migrating });
  if (refused !== 0 || count === 0) return refused;
  if (from === null || from.length < count) return -ERRNO.EFAULT;
  const settable = Number((mask >> CMMA_MASK_SHIFT) & BigInt(CMMA_BITS));
  if (vm.ownsPageTables) return setOwn(vm, startGfn, partOf(from, 0, count), settable);
  let result = 0;
  for (let i = 0; i < count; i++) {
    const gfn = Number(BigInt.asUintN(64, startGfn + BigInt(i)));
    const slot = vm.storage.slot(gfn);
    if (slot === undefined) {
      result = -ERRNO.EFAULT;
      break;
    }
    vm.states.setCmma(slot, gfn, (vm.states.cmma(slot, gfn) & ~settable) | (from[i]! & settable));
  }
  vm.states.cmmaUsed = true;
  return result;
}

const TABLE_FRAMES = BigInt(SEGMENT_PAGES);

/**
 * From 7.0 on: the whole values, of which nothing but what the mask has is left. All page tables are made first, so that none is
 * set where a slot has nothing in one of them.
 */
function setOwn(vm: S390xVm, startGfn: bigint, values: Uint8Array, settable: number): number {
  vm.states.cmmaUsed = true;
  const end = startGfn + BigInt(values.length);
  for (let table = startGfn - (startGfn % TABLE_FRAMES); table < end; table += TABLE_FRAMES) {
    const reaches = ({ baseGfn, npages }: EmulatedMemslot): boolean =>
      BigInt(baseGfn) < table + TABLE_FRAMES && BigInt(baseGfn + npages) > table;
    if (!vm.slots().some(reaches)) return -ERRNO.EFAULT;
  }
  for (const [i, value] of values.entries()) {
    const gfn = Number(startGfn) + i;
    const slot = vm.storage.slot(gfn);
    if (slot !== undefined) vm.states.setCmma(slot, gfn, value & settable);
  }
  return 0;
}
