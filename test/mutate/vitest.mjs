import { fn, restoreAllMocks, spyOn } from '@vitest/spy';

/* What the tests import as 'vitest' here: what they have in a lab's guest, and spies. */
export * from '../../lib/lab/guest/vitest/api.ts';
export const vi = { fn, spyOn, restoreAllMocks };
/** What in-process.mjs does when the test that runs has finished: vitest's own asks for a test of vitest's. */
export const onTestFinished = (end) => globalThis.finishing.push(end);
