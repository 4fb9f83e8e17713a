import type { EmulatedKernel } from '../../../lib/emulated/kernel.ts';
import { type GuestLoader, scripted } from '../scenario.ts';

/** Loads the operations themselves into an emulated vCPU. */
export const emulatedGuestLoader = (kernel: EmulatedKernel): GuestLoader => ({
  load(_vm, vcpu, _codeHva, _codeGpa, ops) {
    kernel.loadGuest(vcpu, scripted(ops, kernel.arch));
  },
});
