import { fromHalves, highHalf, lowHalf } from '../../../base/u64.ts';
import { V_LO } from '../model/hpte.ts';
import type { HashMmu } from './hash-mmu.ts';
import type { Hpt, HptVm } from './hpt.ts';
import { H, HCALL } from './papr.ts';

/** Flags of the hypercalls that say which entry is meant. Unknown ones are ignored. */
const EXACT_HI = 0x80;
const READ_4 = 0x20_0000_0000n;
const AVPN = 0x8000_0000n;
const ANDCOND = 0x4000_0000n;

/** Flags of H_PAGE_INIT: what to do with the page; those that are only hints (instruction cache, page states). */
const ZERO_PAGE = 0x8000n;
const COPY_PAGE = 0x4000n;
const PAGE_INIT_HINTS = 0xf_00c0_0000n;
/** The page that H_PAGE_INIT means, whatever the host's is. */
const INIT_PAGE = 4096;

/** In H_BULK_REMOVE: what each request's first byte says, and what the answer's does. */
const BULK = { REQUEST: 1, END: 3, DONE: 0x80n, NOT_FOUND: 0x90n, BAD: 0xa0n } as const;
const BULK_INDEX = (1n << 56n) - 1n;
const BULK_MAX = 4;

/**
 * The hypercall's registers from r3 on (its return code, then r4 …) when KVM answers it itself; undefined when user
 * space gets it.
 */
export function answerHypercall(mmu: HashMmu, nr: number, args: readonly bigint[]): readonly bigint[] | undefined {
  if (mmu.enabledHcalls[nr] !== 1) return undefined;
  if (nr === HCALL.PAGE_INIT) return [code(pageInit(mmu.context.vm, arg(args, 0), arg(args, 1), arg(args, 2)))];
  const call = CALLS[nr];
  if (call === undefined) return undefined;
  // A VM with radix has none.
  return mmu.hpt === undefined ? [code(H.FUNCTION)] : call(mmu.hpt, args);
}

/** Whether KVM knows the hypercall, so that it can be enabled. */
export const isImplemented = (nr: number): boolean => CALLS[nr] !== undefined || nr === HCALL.PAGE_INIT;

const arg = (args: readonly bigint[], i: number): bigint => args[i] ?? 0n;

type Call = (hpt: Hpt, args: readonly bigint[]) => readonly bigint[];

const CALLS: Readonly<Record<number, Call>> = {
  [HCALL.ENTER]: enter,
  [HCALL.REMOVE]: remove,
  [HCALL.BULK_REMOVE]: bulkRemove,
  [HCALL.PROTECT]: protect,
  [HCALL.READ]: read,
  [HCALL.CLEAR_REF]: (hpt, args) => clear(hpt, arg(args, 1), (slot) => hpt.clearRef(slot)),
  [HCALL.CLEAR_MOD]: (hpt, args) => clear(hpt, arg(args, 1), (slot) => hpt.clearMod(slot)),
};

// By halves: Number() and BigInt() are calls of the runtime's.
const toNumber = (value: bigint): number => highHalf(value) * 2 ** 32 + lowHalf(value);
const fromNumber = (value: number): bigint => fromHalves(Math.floor(value / 2 ** 32), value);
const code = fromNumber;

const inTable = (hpt: Hpt, index: bigint): boolean => index < BigInt(hpt.entryCount);

function enter(hpt: Hpt, args: readonly bigint[]): readonly bigint[] {
  const v = arg(args, 2);
  const r = arg(args, 3);
  const exact = (highHalf(arg(args, 0)) & EXACT_HI) !== 0;
  // Any index beyond the largest table is as wrong as another; as a number it need not be exact.
  const index = toNumber(arg(args, 1));
  const slot = hpt.enter(exact, index, highHalf(v) | 0, lowHalf(v) | 0, highHalf(r) | 0, lowHalf(r) | 0);
  return slot < 0 ? [code(slot)] : [0n, fromNumber(slot)];
}

/** V as KVM has it while the entry is locked: ABSENT entries aren't VALID, and the lock bit is set. */
const lockedV = (hpt: Hpt, slot: number): bigint =>
  fromHalves(hpt.real.vHi(slot), hpt.real.vLo(slot)) | BigInt(V_LO.HVLOCK);

const sameAvpn = (hpt: Hpt, slot: number, avpn: bigint): boolean => (lockedV(hpt, slot) & ~0x7fn) === avpn;

function remove(hpt: Hpt, args: readonly bigint[]): readonly bigint[] {
  const flags = arg(args, 0);
  const avpn = arg(args, 2);
  if (!inTable(hpt, arg(args, 1))) return [code(H.PARAMETER)];
  const slot = Number(arg(args, 1));
  if (
    !hpt.isPresent(slot) ||
    ((flags & AVPN) !== 0n && !sameAvpn(hpt, slot, avpn)) ||
    ((flags & ANDCOND) !== 0n && (lockedV(hpt, slot) & avpn) !== 0n)
  ) {
    return [code(H.NOT_FOUND)];
  }
  hpt.remove(slot);
  return [0n, fromHalves(hpt.vHi, hpt.vLo), fromHalves(hpt.rHi, hpt.rLo)];
}

function bulkRemove(hpt: Hpt, args: readonly bigint[]): readonly bigint[] {
  const words = Array.from({ length: 2 * BULK_MAX }, (_, i) => arg(args, i));
  for (let at = 0; at < words.length; at += 2) {
    const type = Number(words[at]! >> 62n);
    if (type === BULK.END) break;
    const flags = (words[at]! >> 56n) & 3n;
    const index = words[at]! & BULK_INDEX;
    const answer = (result: bigint): bigint => ((result | flags) << 56n) | index;
    if (type !== BULK.REQUEST || flags === 3n || !inTable(hpt, index)) {
      words[at] = answer(BULK.BAD);
      return [code(H.PARAMETER), ...words];
    }
    const slot = Number(index);
    const meant =
      flags === 0n ||
      (flags === 1n ? (lockedV(hpt, slot) & words[at + 1]!) === 0n : sameAvpn(hpt, slot, words[at + 1]!));
    if (!hpt.isPresent(slot) || !meant) {
      words[at] = answer(BULK.NOT_FOUND);
      continue;
    }
    hpt.remove(slot);
    // R and C become bits 59 and 58 of the answer.
    words[at] = answer(BULK.DONE) | (BigInt(hpt.rLo & 0x180) << 51n);
  }
  return [0n, ...words];
}

function protect(hpt: Hpt, args: readonly bigint[]): readonly bigint[] {
  const flags = arg(args, 0);
  if (!inTable(hpt, arg(args, 1))) return [code(H.PARAMETER)];
  const slot = Number(arg(args, 1));
  if (!hpt.isPresent(slot) || ((flags & AVPN) !== 0n && !sameAvpn(hpt, slot, arg(args, 2)))) return [code(H.NOT_FOUND)];
  // PP0 is bit 8 of the flags and the key's high bits are 13 and 12; the rest stands where it does in R.
  const rHi = highHalf((flags << 55n) & (1n << 63n)) | highHalf((flags << 48n) & (3n << 60n));
  hpt.protect(slot, rHi, lowHalf(flags));
  return [0n];
}

function read(hpt: Hpt, args: readonly bigint[]): readonly bigint[] {
  if (!inTable(hpt, arg(args, 1))) return [code(H.PARAMETER)];
  const four = (arg(args, 0) & READ_4) !== 0n;
  const first = Number(arg(args, 1)) - (four ? Number(arg(args, 1)) % 4 : 0);
  const answer = [0n];
  for (let slot = first; slot < first + (four ? 4 : 1); slot++) {
    hpt.read(slot);
    answer.push(fromHalves(hpt.vHi, hpt.vLo), fromHalves(hpt.rHi, hpt.rLo));
  }
  return answer;
}

function clear(hpt: Hpt, index: bigint, clearBit: (slot: number) => void): readonly bigint[] {
  if (!inTable(hpt, index)) return [code(H.PARAMETER)];
  const slot = Number(index);
  if (!hpt.isPresent(slot)) return [code(H.NOT_FOUND)];
  clearBit(slot);
  return [0n, fromHalves(hpt.rHi, hpt.rLo)];
}

/** H_PAGE_INIT: zeroes or copies 4 KiB of the guest's memory, which counts as the hypervisor's store. */
function pageInit(vm: HptVm, flags: bigint, to: bigint, from: bigint): number {
  if ((flags & ~(PAGE_INIT_HINTS | ZERO_PAGE | COPY_PAGE)) !== 0n) return H.PARAMETER;
  const copies = (flags & COPY_PAGE) !== 0n;
  const unaligned = (gpa: bigint): boolean => gpa % BigInt(INIT_PAGE) !== 0n;
  if (unaligned(to) || (copies && unaligned(from))) return H.PARAMETER;
  if (!copies && (flags & ZERO_PAGE) === 0n) return H.SUCCESS;
  const page = new Uint8Array(INIT_PAGE);
  const source = copies ? hostAddress(vm, from) : 0;
  if (source === undefined || (copies && vm.memory.read(source, page) !== INIT_PAGE)) return H.PARAMETER;
  const target = hostAddress(vm, to);
  if (target === undefined || vm.memory.write(target, page) !== INIT_PAGE) return H.PARAMETER;
  const gfn = Number(to / BigInt(vm.pageSize));
  vm.dirtyLog.mark(vm.usableSlot(gfn)!, gfn);
  return H.SUCCESS;
}

function hostAddress(vm: HptVm, gpa: bigint): number | undefined {
  const gfn = Number(gpa / BigInt(vm.pageSize));
  const slot = vm.usableSlot(gfn);
  return slot && vm.hostAddress(slot, gfn) + Number(gpa % BigInt(vm.pageSize));
}
