/**
 * What is mutated, and which tests then must fail: those that see the sources in their own process, do the same each time
 * (properties begin with one seed), and are quick enough: what takes seconds for each mutant (captures, page faults served by
 * processes) is left out. Of an area that would take hours one mutant of `sample` is tried, always the same ones.
 * @typedef {{ name: string, mutate: string[], tests: RegExp, sample?: number }} Area
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
  {
    name: 'memory',
    mutate: ['lib/memory/*.ts'],
    tests:
      /^(unit\/(memory\/(?!hugetlb|page-faults|tracked-writes).*|sharing\/(address-space|change))|property\/typed-memory)\.test/,
    sample: 16,
  },
  {
    name: 'emulated',
    mutate: ['lib/emulated/*.ts', 'lib/arch/*/emulated/*.ts'],
    tests:
      /^unit\/(emulated\/(?!host-memory|io-bus-real|vcpu).*|arch\/[^/]+\/emulated\/.*|scenarios\/recordings)\.test/,
    sample: 100,
  },
];

const name = process.env.MUTATE_AREA ?? 'rules';
const found = AREAS.find((one) => one.name === name);
if (found === undefined) throw new RangeError(`no area ${name}: there are ${AREAS.map((one) => one.name).join(', ')}`);
export const area = found;
