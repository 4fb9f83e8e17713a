/**
 * Mutants that no test can notice, since the program does the same: where they are, the text that is mutated, what it is
 * mutated to, and why; where the same text stands more than once in the file, a part of the line.
 * @type {readonly { file: string, line?: string, code: string, as: string, why: string }[]}
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
  {
    file: 'lib/arch/s390x/model/access-register.ts',
    code: 'LAST_31_BIT_ADDRESS - list < alen * 16',
    as: 'LAST_31_BIT_ADDRESS - list <= alen * 16',
    why: 'the left side is odd, the right side even',
  },
  {
    file: 'lib/arch/s390x/model/control-registers.ts',
    line: 'const { edat1 = false',
    code: 'false',
    as: 'true',
    why: 'a facility that is left out is of the right type either way',
  },
  {
    file: 'lib/arch/s390x/model/dat.ts',
    line: '  if ((lo & PAGE_SAYS_MORE) !== 0) {',
    code: '(lo & PAGE_SAYS_MORE) !== 0',
    as: 'true',
    why: 'the quick way for an entry without any of the bits: each of them is looked at, and is not set',
  },
  {
    file: 'lib/arch/s390x/model/dat.ts',
    code: '(lo & ENTRY_SAYS_MORE) !== level << 2',
    as: 'true',
    why: 'the quick way for an entry that only leads on: each of the bits is looked at, and is not set',
  },
  {
    file: 'lib/arch/s390x/model/dat.ts',
    code: 'index < 512',
    as: 'false',
    why: 'the quick way for the first part of a table: 0 frames are added',
  },
  {
    file: 'lib/arch/s390x/model/explain.ts',
    code: 'code > 0',
    as: 'code >= 0',
    why: 'there is no name to tell for 0, and nobody asks',
  },
  {
    file: 'lib/arch/s390x/model/translate.ts',
    code: 'code > 0',
    as: 'code >= 0',
    why: '0 is a translation, and has no name',
  },
  {
    file: 'lib/arch/s390x/model/memory.ts',
    code: 'memory instanceof OwnMemory',
    as: 'false',
    why: 'what our own storage answers is checked, and is right',
  },
  {
    file: 'lib/arch/s390x/model/registers.ts',
    code: '/^a\\d/',
    as: '/a\\d/',
    why: 'no name of a register has an a before a digit but at its beginning',
  },
];
