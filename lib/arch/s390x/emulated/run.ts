/** What KVM_RUN does on s390x before the guest goes on, and how a scripted guest's addresses are translated. */

import type { U64 } from '../../../base/u64.ts';
import { GuestFault } from '../../../emulated/guest.ts';
import { ERRNO } from '../../../uapi/errno.ts';
import { cr0Low } from '../model/cpu-state.ts';
import {
  DatTranslation,
  keyPermits,
  PGM_ADDRESSING,
  PGM_PROTECTION,
  programInterruptionName,
  storageOverridePermits,
} from '../model/index.ts';
import { findAsce, setEffectiveAddress, translateFirstFragment } from '../model/translate.ts';
import { highHalfOf, lowHalfOf } from '../model/u64.ts';
import type { S390xVcpu } from './vcpu-state.ts';
import type { S390xVm } from './vm-state.ts';

/** Real addresses in the prefix area where a program interruption leaves what happened. */
const LOWCORE = {
  EXCEPTION_ACCESS_ID: 0xa0,
  PROGRAM_CODE: 0x8e,
  TEID: 0xa8,
  PROGRAM_OLD_PSW: 0x150,
  PROGRAM_NEW_PSW: 0x1d0,
} as const;

/** 0, or −errno: −EINVAL for unknown register sets, −EFAULT (from 7.0 on 5) without storage behind the prefix area. */
export function beforeRun(vm: S390xVm, state: S390xVcpu): number {
  // Interrupted before anything is taken from kvm_run.
  if (state.immediateExit) return 0;
  const refused = state.sync();
  if (refused !== 0) return refused;
  for (const pfn of [state.cpu.prefixPfn, state.cpu.prefixPfn + 1]) {
    const slot = vm.storage.slot(pfn);
    // From 7.0 on the code of the interruption that nobody gets.
    if (slot === undefined) return vm.ownsPageTables ? PGM_ADDRESSING : -ERRNO.EFAULT;
    if (!vm.storage.canStore(slot, pfn)) return -ERRNO.EFAULT;
    vm.link(pfn);
  }
  deliver(vm, state);
  return 0;
}

/** Swaps PSWs for the pending program interruption. */
function deliver(vm: S390xVm, state: S390xVcpu): void {
  const { pending } = state;
  if (pending === undefined) return;
  state.pending = undefined;
  const code = new DataView(new ArrayBuffer(2));
  code.setUint16(0, pending.code);
  store(vm, state, LOWCORE.PROGRAM_CODE, code);
  const { teid, exceptionAccessId } = pending;
  if (teid !== undefined) store(vm, state, LOWCORE.TEID, u64(teid));
  if (exceptionAccessId !== undefined) {
    store(vm, state, LOWCORE.EXCEPTION_ACCESS_ID, new DataView(Uint8Array.of(exceptionAccessId).buffer));
  }
  store(vm, state, LOWCORE.PROGRAM_OLD_PSW, u64(state.pswMask));
  store(vm, state, LOWCORE.PROGRAM_OLD_PSW + 8, u64(state.pswAddress));
  const psw = new Uint8Array(16);
  vm.storage.move(state.cpu.prefixPfn, LOWCORE.PROGRAM_NEW_PSW, psw, 0, psw.length, false);
  const fields = new DataView(psw.buffer);
  state.cpu.pswMaskHi = fields.getUint32(0);
  state.cpu.pswMaskLo = fields.getUint32(4);
  state.pswAddress = fields.getBigUint64(8);
  state.storeRun();
}

function store(vm: S390xVm, state: S390xVcpu, address: number, value: DataView): void {
  vm.storage.move(state.cpu.prefixPfn, address, new Uint8Array(value.buffer), 0, value.byteLength, true);
}

function u64(value: bigint): DataView {
  const view = new DataView(new ArrayBuffer(8));
  view.setBigUint64(0, value);
  return view;
}

/** Absolute address of a scripted guest's access; what the guest itself would see as an interruption is thrown. */
export function translateGuestAccess(vm: S390xVm, state: S390xVcpu, address: U64, write: boolean): number {
  const { cpu } = state;
  const access = write ? 'store' : 'fetch';
  const translation = new DatTranslation();
  setEffectiveAddress(cpu, highHalfOf(address), lowHalfOf(address), translation);
  state.loadAccessRegisters();
  const code =
    findAsce(cpu, vm.storage, access, 0, translation) ||
    translateFirstFragment(cpu, vm.storage, translation.addressHi, translation.addressLo, access, translation);
  if (code > 0) throw programInterruption(code, address);
  if (code < 0) throw programInterruption(PGM_PROTECTION, address);
  const slot = vm.storage.slot(translation.pfn)!;
  const key = vm.states.key(slot, translation.pfn);
  const pswKey = (cpu.pswMaskHi >>> 20) & 0xf;
  if (!keyPermits(pswKey, key, write) && !storageOverridePermits(cr0Low(cpu), key)) {
    throw programInterruption(PGM_PROTECTION, address);
  }
  vm.states.accessed(slot, translation.pfn, write);
  vm.link(translation.pfn);
  return translation.pfn * 4096 + (translation.addressLo & 0xfff);
}

export function programInterruption(code: number, address: U64): GuestFault {
  return new GuestFault(code, `${programInterruptionName(code)} exception at 0x${address.toString(16)}`);
}
