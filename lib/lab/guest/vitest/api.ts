import {
  ASYMMETRIC_MATCHERS_OBJECT,
  chai,
  JestAsymmetricMatchers,
  JestChaiExpect,
  JestExtend,
  setState,
} from '@vitest/expect';
import { clearAllMocks, fn, isMockFunction, resetAllMocks, restoreAllMocks, spyOn } from '@vitest/spy';
import type { ExpectStatic } from 'vitest';
import { pollWith } from './poll.ts';

/*
 * What test files import as 'vitest' in a guest: vitest's own runner, matchers and spies, without its command line, workers and
 * bundler, which have no place (and some of them no binaries) there.
 */

export {
  afterAll,
  afterEach,
  beforeAll,
  beforeEach,
  describe,
  it,
  onTestFailed,
  onTestFinished,
  suite,
  test,
} from '@vitest/runner';
export const { assert, should } = chai;

for (const plugin of [JestExtend, JestChaiExpect, JestAsymmetricMatchers]) chai.use(plugin);

const asymmetric = (globalThis as Record<PropertyKey, unknown>)[ASYMMETRIC_MATCHERS_OBJECT] as object;

const expectOf = (value: unknown, message?: string) => chai.expect(value, message);

export const expect = Object.assign(expectOf, chai.expect, asymmetric, {
  poll: pollWith(expectOf),
}) as unknown as ExpectStatic;
setState({ assertionCalls: 0 }, expect);

/** Spies. The other things that vitest's has, timers and modules that are others, are not there. */
export const vi = { clearAllMocks, fn, isMockFunction, resetAllMocks, restoreAllMocks, spyOn };
