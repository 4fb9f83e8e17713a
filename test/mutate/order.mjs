import { basename } from 'node:path';

/** What all tests of one mutant may take together, and one of them, by the dry run. */
const [TOGETHER_MS, ALONE_MS] = process.env.MUTATE_SLOW === undefined ? [4000, 800] : [30_000, 10_000];

/** Those that give each method wrong arguments, of which only one finds a text that no error has. */
const OF_TEXTS = '/named-arguments.test.ts';

/** How many of the tests that failed for mutants of a file are remembered. */
const REMEMBERED = 12;

/**
 * In which order a mutant's tests are run, to notice it soon: those that noticed the file's last ones, those of the test
 * that has the file's name, and then the quick before the slow. What would take too long is left out: a mutant that only that notices counts as one that isn't.
 */
export class TestOrder {
  #tests;
  #times;
  /** Test ids by the mutated file, the last one that failed first. */
  #failed = new Map();

  /** @param times milliseconds by the test's id */
  constructor(tests, times) {
    this.#times = times;
    this.#tests = [...tests].sort((a, b) => (times[a.id] ?? 0) - (times[b.id] ?? 0));
  }

  /** Milliseconds; NaN before the dry run. */
  timeOf(id) {
    return this.#times[id] ?? Number.NaN;
  }

  /** The tests among `wanted` that are run for a mutant of `file`; `isText` where it empties a text, which may be the name of an argument. */
  of(file, wanted, isText = false) {
    const ids = new Set(wanted);
    const failed = this.#failed.get(file) ?? [];
    const name = `/${basename(file, '.ts')}.test.ts`;
    const rank = (test) => {
      const at = failed.indexOf(test.id);
      if (at !== -1) return at;
      if (isText && test.file.endsWith(OF_TEXTS)) return REMEMBERED + 0.5;
      return test.file.endsWith(name) ? REMEMBERED : REMEMBERED + 1;
    };
    const ranked = this.#tests
      .filter(({ id }) => ids.has(id) && this.#times[id] <= ALONE_MS)
      .map((test) => ({ test, rank: rank(test) }))
      .sort((a, b) => a.rank - b.rank);
    return this.#within(
      isText ? 3 * TOGETHER_MS : TOGETHER_MS,
      ranked.map(({ test }) => test),
    );
  }

  *#within(limit, tests) {
    let sum = 0;
    for (const test of tests) {
      sum += this.#times[test.id];
      if (sum > limit) return;
      yield test;
    }
  }

  /** A test failed for a mutant of `file`. */
  failed(file, id) {
    const others = (this.#failed.get(file) ?? []).filter((one) => one !== id);
    this.#failed.set(file, [id, ...others].slice(0, REMEMBERED));
  }
}
