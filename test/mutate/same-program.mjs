/**
 * Mutants that no test can notice, since the program does the same: where they are, the text that is mutated, what it is
 * mutated to, and why.
 * @type {readonly { file: string, code: string, as: string, why: string }[]}
 */
export const SAME_PROGRAM = [
  {
    file: 'lib/rules/memslot.ts',
    code: 'limits.prepare.length === 0',
    as: 'false',
    why: 'a list of the same rules is made, where the one there is would do',
  },
  {
    file: 'lib/arch/s390x/rules.ts',
    code: 'flags > 0xffff_ffff',
    as: 'flags >= 0xffff_ffff',
    why: 'all 32 bits have unknown ones among them, which is looked at next',
  },
];
