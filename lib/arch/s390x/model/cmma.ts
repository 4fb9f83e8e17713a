/** Usage of a frame by what the guest told with ESSA, as its CMMA value has it. */
export const CMMA_USAGE = { STABLE: 0, UNUSED: 1, POTENTIALLY_VOLATILE: 2, VOLATILE: 3 } as const;
/** Bits of the usage. */
export const CMMA_USAGE_BITS = 0x03;
/** The frame isn't used by DAT tables. */
export const CMMA_NO_DAT = 0x40;
/** The bits of a frame's CMMA value that can be read and set. */
export const CMMA_BITS = CMMA_USAGE_BITS | CMMA_NO_DAT;
