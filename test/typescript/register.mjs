// node --import of this file runs TypeScript: programs that tests start in processes and threads of their own.
import { register } from 'node:module';

// Node 26 says that hooks ought to be in this thread, which Node 20 has no way for; and what is compiled here takes its time.
process.noDeprecation = true;
register('./hooks.mjs', import.meta.url);
process.noDeprecation = false;
