import { createRequire } from './create-require.ts';

/** Without /proc Node doesn't know where it is: up to 20.15 there is nothing better. */
const load = (name: string): unknown => process.getBuiltinModule?.(name) ?? createRequire(process.execPath)(name);

/** Modules of Node that take it milliseconds to load, and that most programs here never need. */
export const lazyModules = {
  get crypto(): typeof import('node:crypto') {
    return load('node:crypto') as typeof import('node:crypto');
  },
  get stream(): typeof import('node:stream') {
    return load('node:stream') as typeof import('node:stream');
  },
};
