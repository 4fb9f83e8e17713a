import type { EmulatedMemslot } from '../../../emulated/memslots.ts';
import { CMMA_NO_DAT, CMMA_USAGE, CMMA_USAGE_BITS } from '../model/cmma.ts';
import type { S390xVm } from './vm-state.ts';

/** ESSA's operation requests. */
const REQUEST = {
  GET_STATE: 0,
  SET_STABLE: 1,
  SET_UNUSED: 2,
  SET_VOLATILE: 3,
  SET_POTENTIALLY_VOLATILE: 4,
  SET_STABLE_MAKE_RESIDENT: 5,
  SET_STABLE_IF_RESIDENT: 6,
  SET_STABLE_NO_DAT: 7,
} as const;

export const LAST_REQUEST = REQUEST.SET_STABLE_NO_DAT;

/** In the result: where the usage stands, the no-DAT state, and that there is no page to have a state. */
const USAGE_SHIFT = 2;
const RESULT_NO_DAT = 0x20;
const EXCEPTION = 0x10;

/** Usage and no-DAT state after a request, for a frame whose page is resident. */
function stateAfter(request: number, before: number): number {
  const noDat = before & CMMA_NO_DAT;
  switch (request) {
    case REQUEST.SET_STABLE:
      return CMMA_USAGE.STABLE;
    case REQUEST.SET_UNUSED:
      return CMMA_USAGE.UNUSED | noDat;
    case REQUEST.SET_VOLATILE:
      return CMMA_USAGE.VOLATILE | noDat;
    case REQUEST.SET_POTENTIALLY_VOLATILE:
      return CMMA_USAGE.POTENTIALLY_VOLATILE | noDat;
    case REQUEST.SET_STABLE_MAKE_RESIDENT:
    case REQUEST.SET_STABLE_IF_RESIDENT:
      return CMMA_USAGE.STABLE | noDat;
    case REQUEST.SET_STABLE_NO_DAT:
      return CMMA_USAGE.STABLE | CMMA_NO_DAT;
    default:
      return before;
  }
}

/**
 * ESSA on a frame, as KVM carries it out in migration mode (`pgste_perform_essa` of Linux 6.12, which was read; TCG cannot run a guest that would be
 * recorded): the state before, after a change that the request names. A page that user space has is taken to be resident.
 */
export function performEssa(vm: S390xVm, slot: EmulatedMemslot, gfn: number, request: number): number {
  if (!vm.storage.isMapped(slot, gfn)) return request === REQUEST.GET_STATE ? 0 : EXCEPTION;
  const before = vm.states.cmma(slot, gfn);
  vm.states.setCmma(slot, gfn, stateAfter(request, before));
  if (vm.migrating && request !== REQUEST.GET_STATE) vm.cmmaDirty.mark(slot, gfn);
  const noDat = (before & CMMA_NO_DAT) === 0 ? 0 : RESULT_NO_DAT;
  return ((before & CMMA_USAGE_BITS) << USAGE_SHIFT) | noDat;
}
