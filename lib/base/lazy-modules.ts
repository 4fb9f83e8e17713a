import { createRequire } from 'node:module';

const load = createRequire(process.execPath);

/** Modules of Node that take it milliseconds to load, and that most programs here never need. */
export const lazyModules = {
  get crypto(): typeof import('node:crypto') {
    return load('node:crypto') as typeof import('node:crypto');
  },
  get stream(): typeof import('node:stream') {
    return load('node:stream') as typeof import('node:stream');
  },
};
