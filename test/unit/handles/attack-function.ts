import { type Arena, attack, misnamed, type Result, type Target, withMisspeltOptions } from './attack.ts';
import type { Attacked } from './functions/table.ts';

/** A world in which nothing stays. */
const NOWHERE: Arena<object> = {
  make: () => ({}),
  close: () => {},
  state: () => 0,
  verify: () => {},
  leftOf: () => undefined,
  sabotage: {},
  patience: 50,
};

/** What is no token at all is not told by its `type`, and a buffer that is too short by what does not fit. */
const RELATED = { type: ['source', 'token'], buffer: ['length'], gpa: ['size'] };

function targetOf(name: string, [call, args]: Attacked): Target<object> {
  const given = (_: object, values: readonly unknown[]): unknown => call(...(values as never[]));
  return { name, args, related: RELATED, call: given };
}

/** Calls a function with one argument wrong, in every way. */
export const attackFunction = (name: string, attacked: Attacked): Promise<Result> =>
  attack(NOWHERE, targetOf(name, attacked));

/** The same in a few ways, of which only the errors are looked at. */
export const misnamedByFunction = (name: string, attacked: Attacked): Promise<Result> =>
  misnamed(NOWHERE, [targetOf(name, attacked)], false);

/** The same with options that there aren't. */
export const misspeltByFunction = (name: string, attacked: Attacked): Promise<Result> =>
  withMisspeltOptions(NOWHERE, [targetOf(name, attacked)]);
