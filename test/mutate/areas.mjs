/**
 * What is mutated, and which tests then must fail: those that see the sources in their own process, are quick, and do the
 * same each time. Properties of random steps are left out, which kill a mutant today and not tomorrow.
 * @typedef {{ name: string, mutate: string[], tests: string[] }} Area
 */

const RECORDINGS = 'test/unit/scenarios/recordings.test.ts';

/** @type {readonly Area[]} */
export const AREAS = [
  {
    name: 'rules',
    mutate: ['lib/rules/*.ts', 'lib/arch/*/rules.ts'],
    tests: ['test/unit/rules/*.test.ts', 'test/unit/arch/*/rules.test.ts'],
  },
  {
    name: 's390x-model',
    mutate: ['lib/arch/s390x/model/*.ts'],
    tests: ['test/unit/arch/s390x/model/*.test.ts'],
  },
  {
    name: 'ppc64-model',
    mutate: ['lib/arch/ppc64/model/*.ts'],
    tests: ['test/unit/arch/ppc64/model/*.test.ts'],
  },
  {
    name: 'memory',
    mutate: ['lib/memory/*.ts'],
    tests: ['test/unit/memory/*.test.ts', 'test/unit/sharing/{address-space,binding,change,table}.test.ts'],
  },
  {
    name: 'emulated',
    mutate: ['lib/emulated/*.ts', 'lib/arch/*/emulated/*.ts'],
    tests: ['test/unit/emulated/*.test.ts', 'test/unit/arch/*/emulated/*.test.ts', RECORDINGS],
  },
];

const name = process.env.MUTATE_AREA ?? 'rules';
const found = AREAS.find((one) => one.name === name);
if (found === undefined) throw new RangeError(`no area ${name}: there are ${AREAS.map((one) => one.name).join(', ')}`);
export const area = found;
