/**
 * What is mutated, and which tests then must fail: those that see the sources in their own process and do the same each time
 * (properties begin with one seed). What does its work in other processes is left out, and order.mjs leaves out what is slow. Of
 * an area that would take hours one mutant of `sample` is tried, always the same ones.
 * @typedef {{ name: string, sources: RegExp, tests: RegExp, leftOut?: RegExp, sample?: number }} Area
 * `sources` from lib/, `tests` from test/, `leftOut` the names of tests that go the way of others, for another architecture or release
 */

/** @type {readonly Area[]} */
export const AREAS = [
  {
    name: 'rules',
    sources: /^(rules\/[^/]+|arch\/[^/]+\/rules)\.ts$/,
    tests: /^unit\/(rules\/.*|arch\/[^/]+\/rules)\.test/,
  },
  {
    name: 's390x-model',
    sources: /^arch\/s390x\/model\/.*\.ts$/,
    tests: /^unit\/(arch\/s390x\/model\/(?!capture).*|handles\/wrong-arguments-of-functions)\.test/,
  },
  {
    name: 'ppc64-model',
    sources: /^arch\/ppc64\/model\/(?!htab|index|words).*\.ts$/,
    tests: /^unit\/(arch\/ppc64\/model\/(?!capture|htab).*|handles\/wrong-arguments-of-functions)\.test/,
  },
  {
    name: 'ppc64-htab',
    sources: /^arch\/ppc64\/model\/(htab.*|words)\.ts$/,
    tests: /^unit\/(arch\/ppc64\/model\/(?!capture).*|handles\/wrong-arguments-of-functions)\.test/,
    sample: 4,
  },
  {
    name: 'x86_64-model',
    sources: /^arch\/x86_64\/model\/.*\.ts$/,
    tests: /^unit\/(arch\/x86_64\/model\/.*|handles\/wrong-arguments-of-functions)\.test/,
  },
  {
    name: 'memory',
    sources: /^(memory\/.*|base\/range-table)\.ts$/,
    tests:
      /^(unit\/(memory\/(?!hugetlb|served-processes).*|handles\/(?!everything-attacked|lifetimes).*|sharing\/(address-space|binding|change)|base\/range-table)|property\/typed-memory)\.test/,
    leftOut: /on (emulated )?(s390x|aarch64|riscv64)|on emulated ppc64, 4K|typed layer on ppc64/,
    sample: 14,
  },
  {
    name: 'emulated',
    sources: /^(emulated|arch\/[^/]+\/emulated)\/.*\.ts$/,
    tests:
      /^(unit\/(emulated\/.*|arch\/[^/]+\/(emulated|handles)\/(?!captured-guest|ipte-threads).*|memory\/(address-space|dirty-losses|page-faults|reservation|tracked-writes|userfaultfd)|handles\/(?!everything-attacked|lifetimes|wrong-arguments).*|scenarios\/recordings)|property\/ppc64-emulated)\.test/,
    leftOut:
      /on (emulated )?(aarch64|riscv64)|on emulated ppc64, 4K|recorded on '(.*-6\.12|aarch64-6.18|x86_64-6.1|x86_64-7.2)'/,
    sample: 24,
  },
];

/** An area by its name and which of its samples: `memory:3`. */
export function areaOf(wanted) {
  const [, name, offset = '0'] = /^([^:]*)(?::(\d+))?$/.exec(wanted) ?? [];
  const found = AREAS.find((one) => one.name === name);
  return found && Number(offset) < (found.sample ?? 1) ? { ...found, offset: Number(offset) } : undefined;
}
