import type { EmulatedMemslot } from '../../../emulated/memslots.ts';
import { CMMA_NO_DAT, CMMA_USAGE, CMMA_USAGE_BITS } from '../model/cmma.ts';
import { KEY_CHANGE } from '../model/storage-key.ts';
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

/** In the result: where the usage stands, the no-DAT state, that there is no page to have a state, and what has no page in the host. */
const USAGE_SHIFT = 2;
const RESULT_NO_DAT = 0x20;
const EXCEPTION = 0x10;
const PRESERVED = 2;
const ZERO = 3;

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

/** What a request makes of a frame that has no page in the host. */
interface Absent {
  readonly state: number;
  /** Its contents are given up: they are zeros. */
  readonly isDiscarded: boolean;
}

/** The same for one that isn't. A page that nobody has written is discarded when it becomes potentially volatile. */
function stateOfAbsent(request: number, before: number, isZero: boolean, isChanged: boolean): Absent {
  const noDat = before & CMMA_NO_DAT;
  switch (request) {
    case REQUEST.SET_UNUSED:
    case REQUEST.SET_VOLATILE:
      return { state: stateAfter(request, before), isDiscarded: true };
    case REQUEST.SET_POTENTIALLY_VOLATILE: {
      const isVolatile = isZero || !isChanged;
      const usage = isVolatile ? CMMA_USAGE.VOLATILE : CMMA_USAGE.STABLE;
      return { state: usage | noDat, isDiscarded: isVolatile && !isZero };
    }
    case REQUEST.SET_STABLE_IF_RESIDENT:
      return { state: before, isDiscarded: false };
    default:
      return { state: stateAfter(request, before), isDiscarded: false };
  }
}

/**
 * ESSA on a frame, as KVM carries it out in migration mode (`pgste_perform_essa` of Linux 6.12, which was read; TCG cannot run a guest that would be
 * recorded): the state before, after a change that the request names. Outside of it the machine does; there, and from 7.0 on, where guests have page tables
 * of their own, all pages are taken to be resident. A page that a view alone has accessed, and left zeros, counts as one that isn't.
 */
export function performEssa(vm: S390xVm, slot: EmulatedMemslot, gfn: number, request: number): number {
  if (!vm.storage.isMapped(slot, gfn)) return request === REQUEST.GET_STATE ? 0 : EXCEPTION;
  const before = vm.states.cmma(slot, gfn);
  const isAbsent = vm.migrating && !vm.ownsPageTables && !vm.storage.isResident(slot, gfn);
  const content = isAbsent ? contentOfAbsent(vm, slot, gfn, request, before) : 0;
  if (!isAbsent) {
    vm.states.setDiscarded(slot, gfn, false);
    vm.states.setCmma(slot, gfn, stateAfter(request, before));
  }
  if (vm.migrating && request !== REQUEST.GET_STATE) vm.cmmaDirty.mark(slot, gfn);
  const noDat = (before & CMMA_NO_DAT) === 0 ? 0 : RESULT_NO_DAT;
  return ((before & CMMA_USAGE_BITS) << USAGE_SHIFT) | noDat | content;
}

/** Carries it out for a frame without a page, and says what its contents were before. */
function contentOfAbsent(vm: S390xVm, slot: EmulatedMemslot, gfn: number, request: number, before: number): number {
  const isZero = vm.states.isDiscarded(slot, gfn);
  const isChanged = (vm.states.key(slot, gfn) & KEY_CHANGE) !== 0;
  const { state, isDiscarded } = stateOfAbsent(request, before, isZero, isChanged);
  vm.states.setCmma(slot, gfn, state);
  if (isDiscarded) vm.states.setDiscarded(slot, gfn, true);
  return isZero ? ZERO : PRESERVED;
}
