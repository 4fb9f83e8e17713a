import { type AddressSpace, Kvm } from '../../../lib/index.ts';

export const RAM = 0x10_0000;
export const GPA = 0x4000_0000;

/** A megabyte of guest memory of a host whose integers are little-endian, or not. */
export function guestMemory(arch: 'x86_64' | 's390x' = 'x86_64'): AddressSpace {
  const kvm = Kvm.open({ backend: 'emulated', arch });
  const space = kvm.createAddressSpace();
  space.addRam(GPA, kvm.mapAnonymous(RAM));
  return space;
}
