// node --import of this file runs TypeScript: programs that tests start in processes and threads of their own.
import { register } from 'node:module';

register('./hooks.mjs', import.meta.url);
