import type { KvmCalls } from '../../../lib/calls/kvm-calls.ts';
import type { GuestLoader } from '../scenario.ts';
import { aarch64GuestLoader } from './aarch64.ts';
import { ppc64GuestLoader } from './ppc64.ts';
import { riscv64GuestLoader } from './riscv64.ts';
import { x86_64GuestLoader } from './x86_64.ts';

/** How guest code gets into a real vCPU of this architecture; undefined where we have no machine code for it. */
export function nativeGuestLoader(calls: KvmCalls): GuestLoader | undefined {
  switch (calls.arch) {
    case 'x86_64':
      return x86_64GuestLoader(calls);
    case 'aarch64':
      return aarch64GuestLoader(calls);
    case 'riscv64':
      return riscv64GuestLoader(calls);
    case 'ppc64':
      return ppc64GuestLoader(calls);
    default:
      return undefined;
  }
}

/** For scenarios without a guest. */
export const noGuestLoader: GuestLoader = {
  load() {
    throw new Error('This scenario has no guest code for this architecture');
  },
};
