import { defineConfig } from 'vitest/config';

// What is packed, installed and compiled, for every platform, and what needs a browser: minutes, where the other tests take seconds.
export default defineConfig({
  test: {
    include: ['test/package/**/*.test.ts'],
    pool: 'forks',
    testTimeout: 60_000,
  },
});
