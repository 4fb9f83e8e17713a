import { configDefaults, defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // npm run test:package
    exclude: [...configDefaults.exclude, 'test/package/**'],
    pool: 'forks',
    // Many tests wait for a guest or a child process: all processors, where vitest would leave one free.
    maxWorkers: '100%',
    testTimeout: 20_000,
  },
});
