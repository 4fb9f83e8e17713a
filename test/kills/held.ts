import { readdirSync, readFileSync } from 'node:fs';

/** What could leak: descriptors, and mappings of memfds. */
export function held(): { readonly descriptors: number; readonly mappings: number } {
  const maps = readFileSync('/proc/self/maps', 'utf8').split('\n');
  return {
    descriptors: readdirSync('/proc/self/fd').length,
    mappings: maps.filter((line) => line.includes('/memfd:')).length,
  };
}
