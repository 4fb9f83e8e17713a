import { type Arena, attack, type Result } from './attack.ts';
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

/** Calls a function with one argument wrong, in every way. */
export function attackFunction(name: string, [call, args]: Attacked): Promise<Result> {
  const given = (_: object, values: readonly unknown[]): unknown => call(...(values as never[]));
  return attack(NOWHERE, { name, args, related: RELATED, call: given });
}
