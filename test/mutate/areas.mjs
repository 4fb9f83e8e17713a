/**
 * What is mutated, and which tests then must fail: those that see the sources in their own process, are quick, and do the
 * same each time. Properties of random steps are left out, which kill a mutant today and not tomorrow, and what takes seconds
 * (captures, streams, ranges), with the files that only such tests hold.
 * @typedef {{ name: string, mutate: string[], tests: RegExp }} Area
 */

/** @type {readonly Area[]} */
export const AREAS = [
  {
    name: 'rules',
    mutate: ['lib/rules/*.ts', 'lib/arch/*/rules.ts'],
    tests: /^unit\/(rules\/.*|arch\/[^/]+\/rules)\.test/,
  },
  {
    name: 's390x-model',
    mutate: ['lib/arch/s390x/model/*.ts'],
    tests: /^unit\/(arch\/s390x\/model\/(?!capture).*|handles\/wrong-arguments-of-functions)\.test/,
  },
  {
    name: 'ppc64-model',
    mutate: ['lib/arch/ppc64/model/!(htab*|index|words).ts'],
    tests: /^unit\/(arch\/ppc64\/model\/(?!capture|htab).*|handles\/wrong-arguments-of-functions)\.test/,
  },
  {
    name: 'ppc64-htab',
    mutate: ['lib/arch/ppc64/model/{htab*,words}.ts'],
    tests: /^unit\/(arch\/ppc64\/model\/(?!capture).*|handles\/wrong-arguments-of-functions)\.test/,
  },
  { name: 'memory', mutate: ['lib/memory/*.ts'], tests: /^unit\/(memory\/.*|sharing\/(binding|change))\.test/ },
  {
    name: 'emulated',
    mutate: ['lib/emulated/*.ts', 'lib/arch/*/emulated/*.ts'],
    tests: /^unit\/(emulated\/.*|arch\/[^/]+\/emulated\/.*|scenarios\/recordings)\.test/,
  },
];

const name = process.env.MUTATE_AREA ?? 'rules';
const found = AREAS.find((one) => one.name === name);
if (found === undefined) throw new RangeError(`no area ${name}: there are ${AREAS.map((one) => one.name).join(', ')}`);
export const area = found;
