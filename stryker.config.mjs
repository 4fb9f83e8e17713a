import { areaOf } from './test/mutate/areas.mjs';
import { placesOf } from './test/mutate/sample.mjs';

const wanted = process.env.MUTATE_AREA ?? 'rules';
const area = areaOf(wanted);

/** Mutation testing of one area (test/mutate/areas.mjs); `npm run mutate -- AREA` runs it. */
export default {
  testRunner: 'in-process',
  plugins: ['./test/mutate/in-process.mjs'],
  coverageAnalysis: 'perTest',
  mutate: await placesOf(area),
  ignorePatterns: ['dist', 'out', 'api', 'build', 'docs', 'native', 'examples'].map((folder) => `/${folder}`),
  concurrency: 1,
  incremental: true,
  incrementalFile: `.stryker/${wanted}.incremental.json`,
  tempDirName: '.stryker/tmp',
  reporters: ['progress-append-only', 'json'],
  jsonReporter: { fileName: `.stryker/${wanted}.json` },
  // order.mjs sees to it that none takes longer.
  timeoutFactor: 0,
  timeoutMS: 90_000,
  dryRunTimeoutMinutes: 30,
  ignoreStatic: true,
};
