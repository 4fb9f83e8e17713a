import { readdirSync, readFileSync } from 'node:fs';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { loadNative } from '../../lib/raw.ts';
import { OtherUsers } from './other-users.ts';
import { operation, World } from './shared-world.ts';

const native = loadNative();

/** Descriptors, and mappings of memfds, that this process has, but for those of workers and pipes to processes that come and go. */
function held(): object {
  const maps = readFileSync('/proc/self/maps', 'utf8').split('\n');
  return {
    descriptors: readdirSync('/proc/self/fd').length,
    mappings: maps.filter((line) => line.includes('/memfd:')).length,
  };
}

it('whatever happens to a shared address space, the target of a migration is the source, no view shows other memory, and nothing leaks', async (test) => {
  if (!('calls' in native)) return test.skip(native.reason);
  const { calls } = native;
  using others = new OtherUsers();
  // The worker has descriptors of its own, and is there from now on.
  const isRight = fc.asyncProperty(
    fc.array(operation, { minLength: 60, maxLength: 150, size: 'max' }),
    async (operations) => {
      await others.ready();
      const before = held();
      const world = new World(calls, others);
      await world.attach();
      try {
        for (const each of operations) await world.step(each);
        await world.end();
      } finally {
        await others.end('process', 'kill');
        await others.end('worker', 'release');
        world.close();
      }
      world.expectFree();
      await others.ready();
      expect(held()).toEqual(before);
    },
  );
  await fc.assert(isRight, { numRuns: 12, endOnFailure: true });
}, 120_000);
