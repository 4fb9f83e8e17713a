import { readdirSync, readFileSync } from 'node:fs';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { loadNative } from '../../lib/raw.ts';
import { OtherUsers } from './other-users.ts';
import { type Operation, operation, World } from './shared-world.ts';

const native = loadNative();

/** Descriptors, and mappings of memfds, that this process has, but for those of workers and pipes to processes that come and go. */
function held(): object {
  const maps = readFileSync('/proc/self/maps', 'utf8').split('\n');
  return {
    descriptors: readdirSync('/proc/self/fd').length,
    mappings: maps.filter((line) => line.includes('/memfd:')).length,
  };
}

const where = { memory: 0, offset: 8000, value: 7 };
const add = { op: 'add', memory: 0, place: 1 } as const;
/** What is rare among random ones: workers that are killed with a view that they have written through, and while they write. */
const KILLS: readonly (readonly Operation[])[] = [
  [
    add,
    { op: 'pass' },
    { op: 'otherView', does: 'view', ...where },
    { op: 'pass' },
    { op: 'otherView', does: 'store', ...where },
    { op: 'end', who: 'worker', how: 'kill', ...where },
  ],
  [
    add,
    { op: 'others', by: 'worker', ...where },
    { op: 'pass' },
    { op: 'end', who: 'worker', how: 'killWhileWriting', ...where },
  ],
  // Its first view has gone with the region, and is released before it has heard of that.
  [
    add,
    { op: 'add', memory: 1, place: 0 },
    { op: 'otherView', does: 'view', ...where },
    { op: 'remove', memory: 0 },
    { op: 'otherView', does: 'view', ...where, memory: 1 },
    { op: 'pass' },
    { op: 'otherView', does: 'store', ...where, memory: 1 },
    { op: 'end', who: 'worker', how: 'kill', ...where, memory: 1 },
  ],
];

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
  await fc.assert(isRight, { numRuns: 10, examples: KILLS.map((operations) => [operations]), endOnFailure: true });
}, 300_000);
