/** KVM_S390_MEM_OP as the kernel carries it out (`arch/s390/kvm/kvm-s390.c`, `gaccess.c`). */

import type { U64 } from '../../../calls/kvm-calls.ts';
import { copyIn, copyOut } from '../../../emulated/user-memory.ts';
import { refusal } from '../../../rules/rule.ts';
import { ERRNO } from '../../../uapi/errno.ts';
import { MEMOP, MEMOP_FLAG } from '../../../uapi/flags.ts';
import { keyPermits, PGM_ADDRESSING, PGM_PROTECTION } from '../model/index.ts';
import {
  ABSOLUTE_RULES,
  CMPXCHG_RULES,
  LOGICAL_RULES,
  LOGICAL_RULES_BEFORE_6_3,
  MEM_OP_MAX_SIZE,
  type MemOpContext,
  SIDA_RULES,
  WRONG_FD_RULES,
} from '../rules.ts';
import type { S390xVcpu } from './vcpu-state.ts';
import type { S390xVm } from './vm-state.ts';

/** One KVM_S390_MEM_OP with plain values. */
export interface MemOp {
  readonly op: number;
  readonly gaddr: U64;
  readonly size: number;
  readonly flags: U64;
  readonly buf: Uint8Array | null;
  readonly ar: number;
  readonly key: number;
  readonly oldValue: Uint8Array | null;
  readonly sidaOffset: number;
}

/** Absolute addresses beyond 2^64 would wrap, but no slot ends there: frame numbers may go past 2^52. */
const gfnOf = (gaddr: U64): number => (typeof gaddr === 'number' ? Math.floor(gaddr / 4096) : Number(gaddr >> 12n));
const offsetOf = (gaddr: U64): number => (typeof gaddr === 'number' ? gaddr % 4096 : Number(gaddr & 0xfffn));

const LOGICAL_FLAGS = MEMOP_FLAG.CHECK_ONLY | MEMOP_FLAG.INJECT | MEMOP_FLAG.SKEY;
const ABSOLUTE_FLAGS = MEMOP_FLAG.CHECK_ONLY | MEMOP_FLAG.SKEY;

/** Asked only when no unknown flags are set. */
const isSet = (mop: MemOp, flag: number): boolean => (Number(mop.flags) & flag) !== 0;

/** Without SKEY the key byte is ignored; key 0 opens everything. */
const accessKey = (mop: MemOp): number => (isSet(mop, MEMOP_FLAG.SKEY) ? mop.key : 0);

function context(mop: MemOp, vcpu: S390xVcpu | undefined): MemOpContext {
  // The field is the breaking-event address of an unprotected vCPU; the kernel takes its low byte for a size.
  const sidaSize = vcpu === undefined ? 0 : (Number(vcpu.breakingEvent & 0xffn) + 1) * 4096;
  const { op, flags, size, ar, key, sidaOffset } = mop;
  return { op, flags, size, ar, key, sidaOffset, sidaSize };
}

/** MEM_OP on a vCPU fd. */
export function vcpuMemOp(vm: S390xVm, vcpu: S390xVcpu, mop: MemOp): number {
  switch (mop.op) {
    case MEMOP.LOGICAL_READ:
    case MEMOP.LOGICAL_WRITE:
      return logical(vm, vcpu, mop);
    case MEMOP.SIDA_READ:
    case MEMOP.SIDA_WRITE:
      return refusal(SIDA_RULES, context(mop, vcpu));
    default:
      return refusal(WRONG_FD_RULES, context(mop, vcpu));
  }
}

/** Whether no rule of a logical or absolute access can be broken, so that none has to be asked. */
function isOrdinary({ flags, size, key, ar }: MemOp, known: number): boolean {
  return (
    typeof flags === 'number' &&
    (flags & ~known) === 0 &&
    flags <= known &&
    size - 1 < MEM_OP_MAX_SIZE &&
    size > 0 &&
    key < 16 &&
    ar < 16
  );
}

function logical(vm: S390xVm, vcpu: S390xVcpu, mop: MemOp): number {
  if (!isOrdinary(mop, LOGICAL_FLAGS)) {
    const rules = vm.release.since(6, 3) ? LOGICAL_RULES : LOGICAL_RULES_BEFORE_6_3;
    const refused = refusal(rules, context(mop, vcpu));
    if (refused !== 0) return refused;
  }
  const store = mop.op === MEMOP.LOGICAL_WRITE;
  vcpu.loadAccessRegisters();
  const { access } = vcpu;
  access.begin(mop.gaddr, mop.ar, store, accessKey(mop));
  let result: number;
  if (isSet(mop, MEMOP_FLAG.CHECK_ONLY)) result = access.check(mop.size);
  else if (!store) {
    const data = bufferOf(mop);
    result = access.move(data, mop.size) || (data === mop.buf ? 0 : copyOut(data, mop.buf));
  } else if (mop.buf === null || mop.buf.length < mop.size) return -ERRNO.EFAULT;
  else result = access.move(mop.buf, mop.size);
  if (result > 0 && isSet(mop, MEMOP_FLAG.INJECT)) vcpu.pending = access.interruption(result);
  return result;
}

/** Where a read goes, which the kernel makes before it looks at the caller's buffer. */
function bufferOf({ buf, size }: MemOp): Uint8Array {
  return buf !== null && buf.length >= size ? buf : new Uint8Array(size);
}

/** MEM_OP on a VM fd. */
export function vmMemOp(vm: S390xVm, mop: MemOp): number {
  const known =
    mop.op === MEMOP.ABSOLUTE_READ ||
    mop.op === MEMOP.ABSOLUTE_WRITE ||
    (mop.op === MEMOP.ABSOLUTE_CMPXCHG && vm.release.since(6, 3));
  if (vm.release.since(6, 3)) {
    if (!known) return refusal(WRONG_FD_RULES, context(mop, undefined));
    return mop.op === MEMOP.ABSOLUTE_CMPXCHG ? compareExchange(vm, mop) : absolute(vm, mop);
  }
  // Before 6.3 the operation is looked at last.
  const refused = refusal(ABSOLUTE_RULES, context(mop, undefined));
  if (refused !== 0) return refused;
  if (!vm.storage.hasFrame(gfnOf(mop.gaddr))) return PGM_ADDRESSING;
  return known ? absolute(vm, mop) : -ERRNO.EINVAL;
}

function absolute(vm: S390xVm, mop: MemOp): number {
  if (!isOrdinary(mop, ABSOLUTE_FLAGS)) {
    const refused = refusal(ABSOLUTE_RULES, context(mop, undefined));
    if (refused !== 0) return refused;
  }
  const store = mop.op === MEMOP.ABSOLUTE_WRITE;
  const key = accessKey(mop);
  const checkOnly = isSet(mop, MEMOP_FLAG.CHECK_ONLY);
  const missing = vm.storage.hasFrame(gfnOf(mop.gaddr)) ? 0 : PGM_ADDRESSING;
  if (store && !checkOnly) {
    const shortBuffer = mop.buf === null || mop.buf.length < mop.size ? -ERRNO.EFAULT : 0;
    // 7.0 copies in before it looks at the address.
    const failure = vm.ownsPageTables ? shortBuffer || missing : missing || shortBuffer;
    return failure || moveAbsolute(vm, mop, mop.buf!, true, key);
  }
  if (missing !== 0) return missing;
  if (checkOnly) return checkAbsolute(vm, mop, store, key);
  const data = bufferOf(mop);
  return moveAbsolute(vm, mop, data, false, key) || (data === mop.buf ? 0 : copyOut(data, mop.buf));
}

/** Page by page: what precedes a failing page stays written. A read is all or nothing. */
function moveAbsolute(vm: S390xVm, mop: MemOp, data: Uint8Array, store: boolean, key: number): number {
  const { storage } = vm;
  const start = offsetOf(mop.gaddr);
  const first = gfnOf(mop.gaddr);
  if (key === 0 && storage.moveAcross(first, start, data, 0, mop.size, store)) return 0;
  const pages = Math.ceil((start + mop.size) / 4096);
  if (!store) {
    for (let page = 0; page < pages; page++) {
      const failure = storage.permits(first + page, false, key);
      if (failure !== 0) return failure;
    }
  }
  for (let page = 0, done = 0, length = 0; page < pages; page++, done += length) {
    const offset = page === 0 ? start : 0;
    length = Math.min(4096 - offset, mop.size - done);
    const failure =
      (store ? storage.permits(first + page, true, key) : 0) ||
      storage.move(first + page, offset, data, done, length, store);
    if (failure !== 0) return failure;
  }
  return 0;
}

function checkAbsolute(vm: S390xVm, mop: MemOp, store: boolean, key: number): number {
  const { storage } = vm;
  const first = gfnOf(mop.gaddr);
  const pages = Math.ceil((offsetOf(mop.gaddr) + mop.size) / 4096);
  for (let gfn = first; gfn < first + pages; gfn++) {
    // With key 0 nothing is looked up before 7.0: pages after the first may be missing.
    if (key === 0 && !vm.ownsPageTables) continue;
    const slot = storage.slot(gfn);
    if (slot === undefined) return PGM_ADDRESSING;
    if (key === 0) continue;
    if (!vm.ownsPageTables && !storage.isMapped(slot, gfn)) return -ERRNO.EFAULT;
    if (!keyPermits(key, storage.states.key(slot, gfn), store)) return PGM_PROTECTION;
  }
  return 0;
}

function compareExchange(vm: S390xVm, mop: MemOp): number {
  const refused = refusal(CMPXCHG_RULES, context(mop, undefined));
  if (refused !== 0) return refused;
  const replacement = copyIn(mop.buf, mop.size);
  if (replacement === undefined) return -ERRNO.EFAULT;
  const expected = copyIn(mop.oldValue, mop.size);
  if (expected === undefined) return -ERRNO.EFAULT;

  const gfn = gfnOf(mop.gaddr);
  const offset = offsetOf(mop.gaddr);
  const aligned = (offset & (mop.size - 1)) === 0;
  const present = vm.storage.hasFrame(gfn);
  if (vm.ownsPageTables ? !aligned : present && !aligned) return -ERRNO.EINVAL;
  if (!present) return PGM_ADDRESSING;
  if ((mop.size & (mop.size - 1)) !== 0) return -ERRNO.EINVAL;

  const slot = vm.storage.slot(gfn)!;
  const key = accessKey(mop);
  const current = new Uint8Array(mop.size);
  // From 7.0 on the host's page is made present before the key is looked at.
  if (vm.ownsPageTables && !vm.storage.canStore(slot, gfn)) return -ERRNO.EFAULT;
  // A compare and swap stores, or may: it needs a key and a host page that permit a store.
  const storable = keyPermits(key, vm.storage.states.key(slot, gfn), true) && vm.storage.canStore(slot, gfn);
  if (!storable) return copyOut(current, mop.oldValue) || PGM_PROTECTION;
  const fetched = vm.storage.move(gfn, offset, current, 0, mop.size, false);
  if (fetched !== 0) return fetched;
  if (current.some((byte, i) => byte !== expected[i])) {
    // Whether it exchanged or not, the instruction counts as a store to the page.
    vm.storage.states.accessed(slot, gfn, true);
    return copyOut(current, mop.oldValue);
  }
  return vm.storage.move(gfn, offset, replacement, 0, mop.size, true);
}
