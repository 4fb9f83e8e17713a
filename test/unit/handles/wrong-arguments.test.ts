import { describe, expect, it } from 'vitest';
import { attack } from './attack.ts';
import { arenaOf } from './attacked-machine.ts';
import { membersOf, targetsOf } from './surface.ts';
import { COMMON, X86_64 } from './typed-faces.ts';

describe('wrong arguments of the typed layer on x86_64', () => {
  const arena = arenaOf('x86_64');
  it.each(Object.entries({ ...COMMON, ...X86_64 }))('%s', { timeout: 120_000 }, async (title, face) => {
    const machine = arena.make();
    const missing = membersOf(face.of(machine)).filter((name) => !(name in face.methods));
    arena.close(machine);
    expect(missing).toEqual([]);
    const faults: string[] = [];
    let tried = 0;
    for (const target of targetsOf(title, face)) {
      const result = await attack(arena, target);
      faults.push(...result.faults);
      tried += result.tried;
    }
    expect(faults).toEqual([]);
    expect(tried).toBeGreaterThan(30);
  });
});
