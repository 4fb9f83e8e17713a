import type { EmulatedKernel } from '../../../lib/emulated/kernel.ts';
import { CAP } from '../../../lib/uapi/capabilities.ts';
import { type GuestLoader, scripted } from '../scenario.ts';

/** Loads the operations themselves into an emulated vCPU. */
export const emulatedGuestLoader = (kernel: EmulatedKernel): GuestLoader => ({
  created(_vm, vcpu) {
    if (kernel.arch === 'ppc64') kernel.enableCap(vcpu, CAP.PPC_PAPR, 0, []);
  },
  load(_vm, vcpu, _codeHva, _codeGpa, ops) {
    kernel.loadGuest(vcpu, scripted(ops, kernel.arch));
  },
});
