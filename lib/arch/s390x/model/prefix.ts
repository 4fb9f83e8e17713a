import { checkInteger } from '../../../base/arguments.ts';
import { PFN_LIMIT } from './u64.ts';

/** Prefixing: each CPU sees its own 8 KiB prefix area at real address 0. */

/**
 * The absolute frame of a real frame.
 * @param prefixPfn the prefix register as a frame number: even, as the area is 8 KiB aligned.
 */
export function realToAbsolutePfn(realPfn: number, prefixPfn: number): number {
  checkInteger(realPfn, 'realPfn', 0, PFN_LIMIT - 1);
  checkInteger(prefixPfn, 'prefixPfn', 0, PREFIX_PFN_MAX);
  return prefixed(realPfn, prefixPfn);
}

/** The same, of frame numbers that are known to be right. */
export function prefixed(realPfn: number, prefixPfn: number): number {
  if (realPfn < 2) return realPfn + prefixPfn;
  if (realPfn === prefixPfn || realPfn === prefixPfn + 1) return realPfn - prefixPfn;
  return realPfn;
}

/** Bits of the prefix register that KVM keeps: a multiple of 8 KiB below 2 GiB. */
export const PREFIX_MASK = 0x7fff_e000;
/** The last frame that the prefix area can begin with. */
export const PREFIX_PFN_MAX = PREFIX_MASK / 4096;
