/** Vectors of the interrupts that a guest's access can end in: the code of a GuestFault. */
export const INTERRUPT = {
  DATA_STORAGE: 0x300,
  DATA_SEGMENT: 0x380,
  INSTRUCTION_STORAGE: 0x400,
  INSTRUCTION_SEGMENT: 0x480,
  PROGRAM: 0x700,
} as const;

/** Why there was a data storage interrupt: bits of DSISR. */
export const DSISR = {
  NO_HPTE: 0x4000_0000,
  PROTECTION: 0x0800_0000,
  /** KVM's answer to an access that it does not emulate. */
  BAD_ACCESS: 0x0400_0000,
  STORE: 0x0200_0000,
  KEY: 0x0020_0000,
} as const;
