/** One instruction of a guest. */
export interface Instruction {
  readonly code: readonly number[];
  readonly text: string;
}

export const at = (...code: number[]) => ({ is: (text: string): Instruction => ({ code, text }) });

/** A word of machine code in little-endian memory. */
export const word = (value: number) => at(value & 0xff, (value >>> 8) & 0xff, (value >>> 16) & 0xff, value >>> 24);
