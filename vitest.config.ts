import { configDefaults, defineConfig } from 'vitest/config';

/** Tests of what belongs to a process: threads and workers, descriptors, the collector, time. Each file has its own. */
const OF_A_PROCESS = [
  'test/unit/{backends,bench,native,sharing,vhost-user}/**/*.test.ts',
  'test/unit/handles/{lifetimes,parked-vcpu}.test.ts',
  'test/unit/memory/{hugetlb,served-processes}.test.ts',
  'test/property/sharing.test.ts',
  // A compiler, whose memory the collector would go through again and again in all that follow.
  'test/unit/docs/{by-example,code}.test.ts',
];

export default defineConfig({
  test: {
    pool: 'forks',
    // Many tests wait for a guest or a child process: all processors, where vitest would leave one free.
    maxWorkers: '100%',
    // For what takes 4 to 9 seconds on a slow machine, where others work as well.
    testTimeout: 60_000,
    projects: [
      { extends: true, test: { name: 'process', include: OF_A_PROCESS } },
      {
        extends: true,
        test: {
          name: 'unit',
          include: ['test/**/*.test.ts'],
          // npm run test:package
          exclude: [...configDefaults.exclude, 'test/package/**', ...OF_A_PROCESS],
          // To load lib once for each file takes a third of the time.
          isolate: false,
        },
      },
    ],
  },
});
