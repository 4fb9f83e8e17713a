import { defineConfig } from 'vitest/config';
import { area } from './test/mutate/areas.mjs';

/** What `npm run mutate` runs of an area: tests that see the mutated sources in their own process, are quick and do the same each time. */
export default defineConfig({
  test: {
    include: area.tests,
    // One process loads the sources once for all files.
    isolate: false,
    testTimeout: 120_000,
  },
});
