import { afterAll, describe, expect, it } from 'vitest';
import * as index from '../../../lib/index.ts';
import { attackFace, closedArena, notAttacked } from '../handles/attack.ts';
import { attackFunction } from '../handles/attack-function.ts';
import { SHARING as HERE, LEFT_OUT } from '../handles/left-out.ts';
import { arenaOf } from './attacked-sharing.ts';
import { hostCalls, openDescriptors, remainingDescriptors } from './host.ts';
import { SHARING } from './sharing-faces.ts';
import { sharingFunctions } from './sharing-functions.ts';

let total = 0;
afterAll(() => console.log(`${total} calls of what is shared with one thing wrong`));

describe.each(Object.entries(SHARING))('wrong arguments of what is shared: %s', (title, face) => {
  it('are told, and nothing is the worse for them', { timeout: 300_000 }, async (test) => {
    const { faults, tried } = await attackFace(arenaOf(hostCalls(test)), title, face);
    total += tried;
    expect(faults).toEqual([]);
  });

  it('break nothing when it is closed', { timeout: 300_000 }, async (test) => {
    const { faults, tried } = await attackFace(closedArena(arenaOf(hostCalls(test))), title, face);
    total += tried;
    expect(faults).toEqual([]);
  });
});

it('wrong arguments of what makes something that is shared are told, and lose no descriptor', {
  timeout: 300_000,
}, async (test) => {
  const functions = sharingFunctions(hostCalls(test));
  const before = openDescriptors();
  const faults: string[] = [];
  for (const [name, attacked] of Object.entries(functions)) {
    const result = await attackFunction(name, attacked);
    faults.push(...result.faults);
    total += result.tried;
    // One is lent to those who take descriptors over.
    const left = openDescriptors() <= before + 1 ? before : await remainingDescriptors(before + 1);
    if (left > before + 1) faults.push(`${name} leaves ${left - before} descriptors open`);
  }
  expect(faults).toEqual([]);
});

it('nothing that shares is left out', async (test) => {
  const calls = hostCalls(test);
  const arena = arenaOf(calls);
  const world = await arena.make();
  const { AddressSpace, Binding, EventFd, Mapping, Vcpu } = index;
  const classes = Object.entries(index).filter(([name]) => LEFT_OUT[name] === HERE);
  const missing = notAttacked(world, SHARING, Object.keys(sharingFunctions(calls)), {
    ...Object.fromEntries(classes),
    ...{ AddressSpace, Binding, EventFd, Mapping, Vcpu },
  });
  arena.close(world);
  expect(classes.length).toBeGreaterThan(3);
  // Which is protected; and a vCPU's methods are attacked on the emulated kernels.
  expect(missing).toEqual(['Mapping.mmap', 'Vcpu']);
});
