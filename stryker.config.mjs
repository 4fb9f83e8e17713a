import { area } from './test/mutate/areas.mjs';

/** Mutation testing of one area (test/mutate/areas.mjs); `npm run mutate -- AREA` runs it. */
export default {
  testRunner: 'in-process',
  plugins: ['./test/mutate/in-process.mjs'],
  coverageAnalysis: 'perTest',
  mutate: area.mutate,
  ignorePatterns: ['dist', 'out', 'api', 'build', 'docs', 'native', 'examples'],
  concurrency: 1,
  incremental: true,
  incrementalFile: `.stryker/${area.name}.incremental.json`,
  tempDirName: '.stryker/tmp',
  reporters: ['progress-append-only', 'json'],
  jsonReporter: { fileName: `.stryker/${area.name}.json` },
  timeoutMS: 10_000,
  dryRunTimeoutMinutes: 30,
  ignoreStatic: true,
};
