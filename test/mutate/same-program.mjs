/**
 * Mutants that no test can notice, since the program does the same: where they are, the text that is mutated, what it is
 * mutated to, and why.
 * @type {readonly { file: string, code: string, as: string, why: string }[]}
 */
export const SAME_PROGRAM = [];
