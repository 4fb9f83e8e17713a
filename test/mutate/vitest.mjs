import { fn, restoreAllMocks, spyOn } from '@vitest/spy';

/* What the tests import as 'vitest' here: what they have in a lab's guest, and spies. */
export * from '../../lib/lab/guest/vitest/api.ts';
export const vi = { fn, spyOn, restoreAllMocks };
