import { join } from 'node:path';
import type { Json } from '../../lib/lab/frames.ts';
import { PROJECT_ROOT } from '../../lib/lab/project.ts';

/** What tsconfig.out.json compiles `lib` and `test` to: the JavaScript that runs in the guest. */
export const OUT_FOLDER = join(PROJECT_ROOT, 'out');

/** Where the compiled tree lies in the guest. */
export const GUEST_ROOT = '/app';

export interface Job {
  /** A module inside `out/`, whose default export is a `GuestScript`. */
  readonly script: string;
  readonly args: Json;
  /** Keep the processor busy in user mode after the result, for someone who stops the machine to look into it. */
  readonly spin: boolean;
}

export type GuestScript = (args: Json, progress: (text: string) => void) => Promise<Json> | Json;
