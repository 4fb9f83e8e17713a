/** The program-status word: its mask decoded, and what it does to addresses. */

import { toU64 } from '../../../base/arguments.ts';
import { fromHalves, highHalf, lowHalf } from './u64.ts';

const DAT_HI = 0x0400_0000;
const EA_HI = 0x1;
const BA_LO = 0x8000_0000;

/** The address-space control of the PSW, by its two bits. */
export const ADDRESS_SPACE_CONTROLS = ['primary', 'access-register', 'secondary', 'home'] as const;
export type AddressSpaceControl = (typeof ADDRESS_SPACE_CONTROLS)[number];

/** The mask of a PSW, taken apart. */
export interface PswMask {
  /** Address translation is on. */
  readonly dat: boolean;
  readonly addressSpace: AddressSpaceControl;
  /** The PSW key, 0 to 15. KVM_S390_MEM_OP never uses it. */
  readonly key: number;
  /** 24-bit, 31-bit or 64-bit addressing. EA without BA is invalid, and KVM takes it as 24-bit. */
  readonly addressingMode: 24 | 31 | 64;
  /** I/O, external and machine-check interruptions are enabled. */
  readonly io: boolean;
  readonly external: boolean;
  readonly machineCheck: boolean;
  readonly wait: boolean;
  readonly problemState: boolean;
  readonly conditionCode: number;
  readonly programMask: number;
}

/** Takes the mask of a PSW (its first doubleword, as in `kvm_run.psw_mask`) apart. */
export function decodePswMask(mask: number | bigint): PswMask {
  const value = toU64(mask, 'mask');
  const hi = highHalf(value);
  return {
    dat: datIsOn(hi),
    addressSpace: ADDRESS_SPACE_CONTROLS[addressSpaceBits(hi)]!,
    key: (hi >>> 20) & 0xf,
    addressingMode: addressingMode(hi, lowHalf(value)),
    io: (hi & 0x0200_0000) !== 0,
    external: (hi & 0x0100_0000) !== 0,
    machineCheck: (hi & 0x0004_0000) !== 0,
    wait: (hi & 0x0002_0000) !== 0,
    problemState: (hi & 0x0001_0000) !== 0,
    conditionCode: (hi >>> 12) & 3,
    programMask: (hi >>> 8) & 0xf,
  };
}

/** Whether the upper half of a PSW mask has DAT on. */
export const datIsOn = (maskHi: number): boolean => (maskHi & DAT_HI) !== 0;

/** The address-space control bits of the upper half of a PSW mask: an index of `ADDRESS_SPACE_CONTROLS`. */
export const addressSpaceBits = (maskHi: number): number => (maskHi >>> 14) & 3;

/** The addressing mode that the halves of a PSW mask select. */
export function addressingMode(maskHi: number, maskLo: number): 24 | 31 | 64 {
  if ((maskLo & BA_LO) === 0) return 24;
  return (maskHi & EA_HI) === 0 ? 31 : 64;
}

/** The upper half of the effective address that an addressing mode makes of a 64-bit one. */
export const effectiveHigh = (mode: 24 | 31 | 64, hi: number): number => (mode === 64 ? hi : 0);

/** The lower half of it. */
export function effectiveLow(mode: 24 | 31 | 64, lo: number): number {
  if (mode === 64) return lo;
  return lo & (mode === 31 ? 0x7fff_ffff : 0x00ff_ffff);
}

/**
 * The effective address: what the CPU makes of a logical address in its addressing mode. Higher bits are dropped: on a
 * fresh vCPU (PSW 0, so 24-bit) 0x5000000 is address 0.
 */
export function effectiveAddress(pswMask: number | bigint, address: number | bigint): bigint {
  const mask = toU64(pswMask, 'pswMask');
  const wide = toU64(address, 'address');
  const mode = addressingMode(highHalf(mask), lowHalf(mask));
  return fromHalves(effectiveHigh(mode, highHalf(wide)), effectiveLow(mode, lowHalf(wide)));
}
