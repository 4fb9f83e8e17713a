import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

setFlagsFromString('--expose-gc');

/** Runs the collector. What follows for things that went, their finalizers, comes in a later task. */
export const collectGarbage = runInNewContext('gc') as () => void;
