import { afterAll, describe, expect, it } from 'vitest';
import { type Arena, attack } from './attack.ts';
import { OPENING, RAW } from './functions/package.ts';
import { PPC64 } from './functions/ppc64.ts';
import { S390X } from './functions/s390x.ts';

/** A world in which nothing stays. */
const ARENA: Arena<object> = {
  make: () => ({}),
  close: () => {},
  state: () => 0,
  verify: () => {},
  leftOf: () => undefined,
  sabotage: {},
};

let total = 0;
afterAll(() => console.log(`${total} calls of functions with one thing wrong`));

describe.each(Object.entries({ OPENING, RAW, S390X, PPC64 }))(
  'wrong arguments of functions: %s',
  (_group, functions) => {
    it.each(Object.entries(functions))('%s', async (name, [call, args]) => {
      const target = {
        name,
        args,
        related: {},
        call: (_: object, given: readonly unknown[]) => call(...(given as never[])),
      };
      const { faults, tried } = await attack(ARENA, target);
      total += tried;
      expect(faults).toEqual([]);
      expect(tried).toBeGreaterThan(30);
    });
  },
);
