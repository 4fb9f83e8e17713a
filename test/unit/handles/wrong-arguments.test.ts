import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import type { Arch } from '../../../lib/raw.ts';
import { attackFace, closedArena } from './attack.ts';
import { arenaOf } from './attacked-machine.ts';
import { FACES } from './faces.ts';

let total = 0;
// An address space that is closed while it is bound says so, thousands of times here.
beforeAll(() => {
  vi.spyOn(process, 'emitWarning').mockImplementation(() => {});
});
afterAll(() => {
  vi.restoreAllMocks();
  console.log(`${total} calls of methods with one thing wrong`);
});

describe.each(Object.entries(FACES))('wrong arguments of the typed layer on %s', (arch, faces) => {
  const arena = arenaOf(arch as Arch);
  it.each(Object.entries(faces))('%s', { timeout: 120_000 }, async (title, face) => {
    const { faults, tried } = await attackFace(arena, title, face);
    total += tried;
    expect(faults).toEqual([]);
    expect(tried > 30 || Object.values(face.methods).every((args) => args === null)).toBe(true);
  });

  it.each(Object.entries(faces))('%s, when everything is closed', { timeout: 120_000 }, async (title, face) => {
    const { faults, tried } = await attackFace(closedArena(arena), title, face);
    total += tried;
    expect(faults).toEqual([]);
  });
});
