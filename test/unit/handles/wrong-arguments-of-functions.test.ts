import { afterAll, afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { attackFunction } from './attack-function.ts';
import { OPENING, RAW } from './functions/package.ts';
import { PPC64 } from './functions/ppc64.ts';
import { S390X } from './functions/s390x.ts';

let total = 0;
afterAll(() => console.log(`${total} calls of functions with one thing wrong`));

/** A class that was given for a function to call back is found out when it is called, and told later. */
beforeEach(() => {
  const later = globalThis.queueMicrotask;
  vi.spyOn(globalThis, 'queueMicrotask').mockImplementation((task) =>
    later(() => {
      try {
        task();
      } catch (error) {
        if (!String(error).startsWith('TypeError: Class constructor Some ')) throw error;
      }
    }),
  );
});
afterEach(() => {
  vi.restoreAllMocks();
});

describe.each(Object.entries({ OPENING, RAW, S390X, PPC64 }))(
  'wrong arguments of functions: %s',
  (_group, functions) => {
    it.each(Object.entries(functions))('%s', async (name, [call, args]) => {
      const { faults, tried } = await attackFunction(name, [call, args]);
      total += tried;
      expect(faults).toEqual([]);
      expect(tried).toBeGreaterThan(30);
    });
  },
);
