import { readdirSync, readFileSync } from 'node:fs';

/** What could leak: descriptors, and mappings of memfds. */
export function held(): { readonly descriptors: number; readonly mappings: number } {
  const maps = readFileSync('/proc/self/maps', 'utf8').split('\n');
  return {
    descriptors: readdirSync('/proc/self/fd').length,
    mappings: maps.filter((line) => line.includes('/memfd:')).length,
  };
}

/** Waits for something that comes soon, and a second at most: it may have ended meanwhile. */
export async function until(isSo: () => boolean): Promise<void> {
  const end = performance.now() + 1000;
  while (!isSo() && performance.now() < end) await new Promise((resolve) => setTimeout(resolve, 0));
}
