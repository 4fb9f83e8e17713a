import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import type { Arch } from '../../../lib/raw.ts';
import { attackFace, closedArena } from './attack.ts';
import { arenaOf } from './attacked-machine.ts';
import { PPC64 } from './ppc64-faces.ts';
import { S390X } from './s390x-faces.ts';
import { COMMON, type Faces, REGISTERS, X86_64 } from './typed-faces.ts';

/** Memory and what is shared is the same code on every architecture. */
const { kvm, vm, 'vm.io': io, 'vm.memslots': memslots, vcpu, 'vcpu.kvmRun': kvmRun } = COMMON;
const ELSEWHERE = { kvm, vm, 'vm.io': io, 'vm.memslots': memslots, vcpu, 'vcpu.kvmRun': kvmRun } as Faces;

const FACES: Readonly<Record<Arch, Faces>> = {
  x86_64: { ...COMMON, ...X86_64 },
  s390x: { ...ELSEWHERE, ...S390X, ...REGISTERS.s390x },
  ppc64: { ...ELSEWHERE, ...PPC64, ...REGISTERS.ppc64 },
  aarch64: { ...ELSEWHERE, ...REGISTERS.aarch64 },
  riscv64: { ...ELSEWHERE, ...REGISTERS.riscv64 },
};

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
