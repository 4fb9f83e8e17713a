import { expect, it } from 'vitest';
import * as ppc64 from '../../../lib/arch/ppc64/model/index.ts';
import * as s390x from '../../../lib/arch/s390x/model/index.ts';
import * as index from '../../../lib/index.ts';
import * as raw from '../../../lib/raw.ts';
import * as vhostUser from '../../../lib/vhost-user/index.ts';
import { arenaOf } from './attacked-machine.ts';
import { OPENING, RAW } from './functions/package.ts';
import { PPC64 } from './functions/ppc64.ts';
import { S390X } from './functions/s390x.ts';
import { LEFT_OUT } from './left-out.ts';
import { membersOf } from './surface.ts';
import { COMMON } from './typed-faces.ts';

const ENTRIES = { index, raw, s390x, ppc64, 'vhost-user': vhostUser };
const FUNCTIONS = { index: OPENING, raw: { ...RAW, ...OPENING }, s390x: S390X, ppc64: PPC64, 'vhost-user': {} };
const DUMPS = ['dumpMemory', 'dumpStorageKeys', 'addressSpaceRanges', 'formatRange'];

const isClass = (value: unknown): value is { readonly name: string; readonly prototype: object } =>
  typeof value === 'function' && /^class\b/.test(Function.prototype.toString.call(value));

/** Classes of which the faces attack every method: an instance's own, and those that it extends. */
async function facedClasses(): Promise<ReadonlySet<unknown>> {
  const arena = arenaOf('x86_64');
  const machine = await arena.make();
  const found = new Set<unknown>();
  for (const face of Object.values(COMMON)) {
    for (let at = Object.getPrototypeOf(face.of(machine)); at !== Object.prototype; at = Object.getPrototypeOf(at)) {
      found.add(at.constructor);
    }
  }
  arena.close(machine);
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

it('nothing stands in the list that is not there any more', () => {
  const all = new Set(Object.values(ENTRIES).flatMap((exported) => Object.keys(exported)));
  expect(Object.keys(LEFT_OUT).filter((name) => !all.has(name) && !name.includes('.'))).toEqual([]);
});
