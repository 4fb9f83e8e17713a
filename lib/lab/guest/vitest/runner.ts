import { pathToFileURL } from 'node:url';
import type { VitestRunner } from '@vitest/runner';

/** A test is stopped only by the lab's own limit: an emulated, interpreting machine says nothing about time. */
const NO_LIMIT = 0;

/** Vitest's runner as it is set up in a guest. */
export const RUNNER: VitestRunner = {
  config: {
    root: '/',
    setupFiles: [],
    name: undefined,
    passWithNoTests: false,
    testNamePattern: undefined,
    allowOnly: true,
    sequence: { seed: 1, hooks: 'stack', setupFiles: 'list' },
    chaiConfig: undefined,
    maxConcurrency: 1,
    testTimeout: NO_LIMIT,
    hookTimeout: NO_LIMIT,
    retry: 0,
    includeTaskLocation: false,
    tags: [],
    tagsFilter: undefined,
    strictTags: true,
  },
  importFile: (path) => import(pathToFileURL(path).href),
};
