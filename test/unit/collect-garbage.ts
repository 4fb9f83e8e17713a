import { setTimeout as sleep } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

setFlagsFromString('--expose-gc');

/** Runs the collector. What follows for things that went, their finalizers, comes in a later task. */
export const collectGarbage = runInNewContext('gc') as () => void;

/** Collects garbage until something holds; whether it does now. */
export async function collected(holds: () => boolean): Promise<boolean> {
  for (let i = 0; i < 50 && !holds(); i++) {
    // A WeakRef that was looked at keeps what it has for as long as the task.
    await sleep(0);
    collectGarbage();
    await sleep(10);
  }
  return holds();
}
