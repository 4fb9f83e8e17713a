import { expect, it } from 'vitest';
import * as ppc64 from '../../../lib/arch/ppc64/model/index.ts';
import * as s390x from '../../../lib/arch/s390x/model/index.ts';
import * as index from '../../../lib/index.ts';
import type { Arch } from '../../../lib/raw.ts';
import * as raw from '../../../lib/raw.ts';
import * as vhostUser from '../../../lib/vhost-user/index.ts';
import { publicClasses } from '../house/public-classes.ts';
import { arenaOf } from './attacked-machine.ts';
import { OPENING, RAW } from './functions/package.ts';
import { PPC64 } from './functions/ppc64.ts';
import { S390X } from './functions/s390x.ts';
import { LEFT_OUT } from './left-out.ts';
import { PPC64 as PPC64_FACES } from './ppc64-faces.ts';
import { S390X as S390X_FACES } from './s390x-faces.ts';
import { membersOf } from './surface.ts';
import { COMMON, type Faces, REGISTERS, X86_64 } from './typed-faces.ts';

const ENTRIES = { index, raw, s390x, ppc64, 'vhost-user': vhostUser };
const FUNCTIONS = { index: OPENING, raw: { ...RAW, ...OPENING }, s390x: S390X, ppc64: PPC64, 'vhost-user': {} };
const DUMPS = ['dumpMemory', 'dumpStorageKeys', 'addressSpaceRanges', 'formatRange'];

const isClass = (value: unknown): value is { readonly name: string; readonly prototype: object } =>
  typeof value === 'function' && /^class\b/.test(Function.prototype.toString.call(value));

const FACES: Readonly<Record<Arch, Faces>> = {
  x86_64: { ...COMMON, ...X86_64 },
  s390x: { ...S390X_FACES, ...REGISTERS.s390x },
  ppc64: { ...PPC64_FACES, ...REGISTERS.ppc64 },
  aarch64: { ...REGISTERS.aarch64 },
  riscv64: { ...REGISTERS.riscv64 },
};

/** Classes of which the faces attack every method: an instance's own, and those that it extends. */
async function facedClasses(): Promise<ReadonlySet<unknown>> {
  const found = new Set<unknown>();
  for (const [arch, faces] of Object.entries(FACES)) {
    const arena = arenaOf(arch as Arch);
    const machine = await arena.make();
    for (const face of Object.values(faces)) {
      for (let at = Object.getPrototypeOf(face.of(machine)); at !== Object.prototype; at = Object.getPrototypeOf(at)) {
        found.add(at.constructor);
      }
    }
    arena.close(machine);
  }
  return found;
}

it('everything that is exported is attacked with wrong arguments, or stands in a list with the reason', async () => {
  const faced = await facedClasses();
  const missing: string[] = [];
  let attacked = 0;
  for (const [entry, exported] of Object.entries(ENTRIES)) {
    const names = Object.keys(FUNCTIONS[entry as keyof typeof FUNCTIONS]);
    const has = (name: string): boolean => names.some((one) => one === name || one.startsWith(`${name} `));
    for (const [name, value] of Object.entries(exported)) {
      if (typeof value !== 'function' || Object.hasOwn(LEFT_OUT, name) || faced.has(value)) continue;
      attacked++;
      if (!isClass(value)) {
        if (!has(name) && !DUMPS.includes(name)) missing.push(`${entry}: ${name}`);
        continue;
      }
      if (name === 'EmulatedKernel') continue;
      for (const member of membersOf(Object.create(value.prototype))) {
        const takesSome = (Object.getOwnPropertyDescriptor(value.prototype, member)?.value?.length ?? 1) > 0;
        if (takesSome && member !== 'toString' && !has(`${name}.${member}`))
          missing.push(`${entry}: ${name}.${member}`);
      }
    }
  }
  expect(missing).toEqual([]);
  expect(attacked).toBeGreaterThan(90);
});

it('every class of which a user can have an object is attacked, whether it is exported, or only its type, or neither', async () => {
  const faced = new Set([...(await facedClasses())].map((found) => (found as { readonly name: string }).name));
  const names = Object.values(FUNCTIONS).flatMap((functions) => Object.keys(functions));
  const isAttacked = (name: string): boolean =>
    faced.has(name) || Object.hasOwn(LEFT_OUT, name) || names.some((one) => one.split(/[ .]/).includes(name));
  const classes = publicClasses();
  for (const known of ['Kvm', 'GuestMemfd', 'MemoryRegion', 'MmioRegion', 'KvmRun', 'Vmap'])
    expect(classes).toContain(known);
  expect([...classes].filter((name) => !isAttacked(name))).toEqual([]);
});

it('nothing stands in the list that is not there any more', () => {
  const all = new Set([...publicClasses(), ...Object.values(ENTRIES).flatMap((exported) => Object.keys(exported))]);
  expect(Object.keys(LEFT_OUT).filter((name) => !all.has(name) && !name.includes('.'))).toEqual([]);
});
