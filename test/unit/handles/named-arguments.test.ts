import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { Arch } from '../../../lib/raw.ts';
import { misnamed, type Target } from './attack.ts';
import { arenaOf, type Machine } from './attacked-machine.ts';
import { FACES } from './faces.ts';
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

describe.each(Object.entries(FACES))('an error names the argument that is wrong, on %s', (arch, faces) => {
  const targets = Object.entries(faces).map(([title, face]) => targetsOf(title, face));
  it.each(targets.flatMap((some) => [...together(some)]))('%s', async (_, some) => {
    const { faults, tried } = await misnamed(arenaOf(arch as Arch), some);
    expect(faults).toEqual([]);
    expect(tried).toBeGreaterThan(7);
  });
});
