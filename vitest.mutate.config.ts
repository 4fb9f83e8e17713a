import { configDefaults, defineConfig } from 'vitest/config';

/**
 * What `npm run mutate` runs: tests that see the mutated sources in their own process, are quick, and do the same each time
 * (properties of random steps kill a mutant today and not tomorrow).
 */
export default defineConfig({
  test: {
    include: [
      'test/unit/arch/**/*.test.ts',
      'test/unit/memory/**/*.test.ts',
      'test/unit/emulated/**/*.test.ts',
      'test/unit/handles/*.test.ts',
      'test/unit/scenarios/{recordings,scenarios}.test.ts',
      'test/unit/sharing/{address-space,binding,change,table}.test.ts',
    ],
    exclude: [...configDefaults.exclude, 'test/unit/handles/{everything-attacked,lifetimes,wrong-arguments*}.test.ts'],
    // One process loads the sources once for all files.
    isolate: false,
    testTimeout: 120_000,
  },
});
