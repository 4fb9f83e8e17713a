/** Hypercalls as PAPR has them: numbers and return codes. */

/** Numbers of the hypercalls that KVM can answer itself (PAPR). */
export const HCALL = {
  REMOVE: 0x04,
  ENTER: 0x08,
  READ: 0x0c,
  CLEAR_MOD: 0x10,
  CLEAR_REF: 0x14,
  PROTECT: 0x18,
  PAGE_INIT: 0x2c,
  /** The largest of them. */
  BULK_REMOVE: 0x124,
} as const;

/** Those it answers unless told otherwise; CLEAR_MOD, CLEAR_REF and PAGE_INIT go to user space until ENABLE_CAP(PPC_ENABLE_HCALL). */
export const DEFAULT_HCALLS: readonly number[] = [
  HCALL.REMOVE,
  HCALL.ENTER,
  HCALL.READ,
  HCALL.PROTECT,
  HCALL.BULK_REMOVE,
];

/** Return codes of the hypercalls (PAPR). */
export const H = {
  SUCCESS: 0,
  FUNCTION: -2,
  PARAMETER: -4,
  PTEG_FULL: -6,
  NOT_FOUND: -7,
} as const;
