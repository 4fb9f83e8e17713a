/** The bits of the control registers that decide about a translation. All of CR0's are in its lower half. */

import { checkBoolean, checkHalf, checkOptions } from '../../../base/arguments.ts';
import { DAT_EDAT1, DAT_EDAT2, DAT_IEP } from './dat-entries.ts';

/** CR0: low-address protection. */
export const CR0_LOW_ADDRESS_PROTECTION = 0x1000_0000;
/** CR0: fetch-protection override, for effective addresses 0 to 2047. */
export const CR0_FETCH_PROTECTION_OVERRIDE = 0x0200_0000;
/** CR0: storage-protection override, for frames with access-control bits 9. */
export const CR0_STORAGE_PROTECTION_OVERRIDE = 0x0100_0000;
/** CR0: enhanced DAT. */
export const CR0_EDAT = 0x0080_0000;
/** CR0: instruction-execution protection. */
export const CR0_IEP = 0x0010_0000;

/** Facilities of the CPU model by facility number: 8 EDAT-1, 78 EDAT-2, 130 instruction-execution protection. */
export interface DatFacilities {
  readonly edat1: boolean;
  readonly edat2: boolean;
  readonly iep: boolean;
}

/** The set of DAT features in force: installed and enabled in CR0. EDAT-2 needs EDAT-1. */
export function datFeatures(cr0Lo: number, facilities: DatFacilities): number {
  return featuresOfCr0(checkHalf(cr0Lo, 'cr0Lo'), checkFacilities(facilities, 'facilities'));
}

const FACILITIES = { edat1: true, edat2: true, iep: true } as const;

/**
 * The facilities that a user knows of, each read once: it may be the getter of a class.
 * @param absent what those are that are left out
 */
export function checkFacilities(facilities: Partial<DatFacilities>, name: string, absent = false): DatFacilities {
  const { edat1 = absent, edat2 = absent, iep = absent } = checkOptions(facilities, FACILITIES, name);
  return {
    edat1: checkBoolean(edat1, `${name}.edat1`),
    edat2: checkBoolean(edat2, `${name}.edat2`),
    iep: checkBoolean(iep, `${name}.iep`),
  };
}

/** The set of DAT features in force, of values that are known to be right. */
export function featuresOfCr0(cr0Lo: number, facilities: DatFacilities): number {
  let features = 0;
  if (facilities.edat1 && (cr0Lo & CR0_EDAT) !== 0) {
    features |= DAT_EDAT1;
    if (facilities.edat2) features |= DAT_EDAT2;
  }
  if (facilities.iep && (cr0Lo & CR0_IEP) !== 0) features |= DAT_IEP;
  return features;
}
