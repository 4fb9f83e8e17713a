/** Prefixing: each CPU sees its own 8 KiB prefix area at real address 0. */

/**
 * The absolute frame of a real frame.
 * @param prefixPfn the prefix register as a frame number: even, as the area is 8 KiB aligned.
 */
export function realToAbsolutePfn(realPfn: number, prefixPfn: number): number {
  if (realPfn < 2) return realPfn + prefixPfn;
  if (realPfn === prefixPfn || realPfn === prefixPfn + 1) return realPfn - prefixPfn;
  return realPfn;
}

/** Bits of the prefix register that KVM keeps: a multiple of 8 KiB below 2 GiB. */
export const PREFIX_MASK = 0x7fff_e000;
