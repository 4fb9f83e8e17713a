import { describe, expect, it } from 'vitest';
import type { Arch } from '../../../lib/raw.ts';
import { withMisspeltOptions } from './attack.ts';
import { misspeltByFunction } from './attack-function.ts';
import { arenaOf } from './attacked-machine.ts';
import { FACES } from './faces.ts';
import { OPENING, RAW } from './functions/package.ts';
import { PPC64 } from './functions/ppc64.ts';
import { S390X } from './functions/s390x.ts';
import { targetsOf } from './surface.ts';

describe("an option that there isn't is refused, and those that there are are said", () => {
  it.each(Object.entries({ OPENING, RAW, S390X, PPC64 }))('by functions: %s', async (_, functions) => {
    const faults: string[] = [];
    let all = 0;
    for (const [name, attacked] of Object.entries(functions)) {
      const result = await misspeltByFunction(name, attacked);
      faults.push(...result.faults);
      all += result.tried;
    }
    expect(faults).toEqual([]);
    expect(all).toBeGreaterThan(1);
  });

  it.each(Object.entries(FACES))('by methods, on %s', async (arch, faces) => {
    const targets = Object.entries(faces).flatMap(([title, face]) => [...targetsOf(title, face)]);
    const { faults, tried } = await withMisspeltOptions(arenaOf(arch as Arch), targets);
    expect(faults).toEqual([]);
    expect(tried).toBeGreaterThan(10);
  });
});
