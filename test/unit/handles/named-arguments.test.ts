import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { Arch } from '../../../lib/raw.ts';
import { misnamed, type Target } from './attack.ts';
import { misnamedByFunction } from './attack-function.ts';
import { arenaOf, type Machine } from './attacked-machine.ts';
import { FACES } from './faces.ts';
import { OPENING, RAW } from './functions/package.ts';
import { PPC64 } from './functions/ppc64.ts';
import { S390X } from './functions/s390x.ts';
import { targetsOf } from './surface.ts';

/** So many methods in one test that mutation testing takes it for a quick one. */
const TOGETHER = 6;

function* together(targets: readonly Target<Machine>[]): Generator<[string, readonly Target<Machine>[]]> {
  for (let i = 0; i < targets.length; i += TOGETHER) {
    const some = targets.slice(i, i + TOGETHER);
    yield [some.map(({ name }) => name).join(', '), some];
  }
}

beforeEach(() => {
  vi.spyOn(process, 'emitWarning').mockImplementation(() => {});
});
afterEach(() => {
  vi.restoreAllMocks();
});

describe.each(Object.entries({ OPENING, RAW, S390X, PPC64 }))(
  'an error names the argument that is wrong, of functions: %s',
  (_, functions) => {
    it.each(Object.entries(functions))('%s', async (name, attacked) => {
      const { faults, tried } = await misnamedByFunction(name, attacked);
      expect(faults).toEqual([]);
      expect(tried).toBeGreaterThan(7);
    });
  },
);

describe.each(Object.entries(FACES))('an error names the argument that is wrong, on %s', (arch, faces) => {
  const targets = Object.entries(faces).map(([title, face]) => targetsOf(title, face));
  it.each(targets.flatMap((some) => [...together(some)]))('%s', async (_, some) => {
    const { faults, tried } = await misnamed(arenaOf(arch as Arch), some, true);
    expect(faults).toEqual([]);
    expect(tried).toBeGreaterThan(7);
  });
});
