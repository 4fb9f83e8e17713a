/**
 * The s390x architecture model: pure functions over bytes. Decoding of PSW, ASCE, table entries, storage keys and TEID,
 * the address translation with its explanation, and an address space as ranges.
 */

export { type Asce, type DesignationType, decodeAsce } from './asce.ts';
export {
  CR0_EDAT,
  CR0_FETCH_PROTECTION_OVERRIDE,
  CR0_IEP,
  CR0_LOW_ADDRESS_PROTECTION,
  CR0_STORAGE_PROTECTION_OVERRIDE,
  type DatFacilities,
  datFeatures,
} from './control-registers.ts';
export { type CpuState, type CpuStateInit, cpuState, featuresOf } from './cpu-state.ts';
export { DatResult, type DatStop, walkDat } from './dat.ts';
export { DAT_EDAT1, DAT_EDAT2, DAT_IEP, describeEntry, type TableLevel } from './dat-entries.ts';
export { type ExplainedDatTranslation, explainTranslation, type TableStep } from './explain.ts';
export { type AbsoluteMemory, memoryOfBytes, memoryOfFrames } from './memory.ts';
export { realToAbsolutePfn } from './prefix.ts';
export * from './program-interruption.ts';
export {
  ADDRESS_SPACE_CONTROLS,
  type AddressSpaceControl,
  decodePswMask,
  effectiveAddress,
  type PswMask,
} from './psw.ts';
export { formatRange, type MappedRange, mappedFrames, mappedRanges, type RangeOptions } from './ranges.ts';
export {
  decodeStorageKey,
  encodeStorageKey,
  fetchOverridePermits,
  formatStorageKeys,
  KEY_CHANGE,
  KEY_FETCH_PROTECTION,
  KEY_REFERENCE,
  keyPermits,
  type StorageKey,
  storageOverridePermits,
} from './storage-key.ts';
export { type Access, buildTeid, decodeTeid, type ProtectionCause, type Teid, type TeidParts } from './teid.ts';
export {
  DatTranslation,
  type FailedTranslation,
  isLowAddressProtected,
  selectAsce,
  type TranslatedAddress,
  type TranslateOptions,
  translate,
  translateFragment,
} from './translate.ts';
