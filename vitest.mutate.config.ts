import { defineConfig } from 'vitest/config';

/** What `npm run mutate` runs: tests that see the mutated sources in their own process, and are quick. */
export default defineConfig({
  test: {
    include: [
      'test/property/{dirty-pages,typed-memory}.test.ts',
      'test/unit/memory/**/*.test.ts',
      'test/unit/rules/**/*.test.ts',
      'test/unit/emulated/**/*.test.ts',
      'test/unit/handles/*.test.ts',
      'test/unit/scenarios/{recordings,scenarios}.test.ts',
      'test/unit/sharing/{address-space,binding,change,table}.test.ts',
    ],
    testTimeout: 20_000,
  },
});
