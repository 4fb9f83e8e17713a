/* What the tests import as 'vitest' here: what they have in a lab's guest. */
export * from '../../lib/lab/guest/vitest/api.ts';
/** What in-process.mjs does when the test that runs has finished: vitest's own asks for a test of vitest's. */
export const onTestFinished = (end) => globalThis.finishing.push(end);
