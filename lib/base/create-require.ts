import { createRequire as named } from 'node:module';

/** Node's own, where it can be had by another way: webpack puts `undefined` in the place of its calls with anything but `import.meta.url`. */
export const createRequire: typeof named = process.getBuiltinModule?.('node:module').createRequire ?? named;
