import { afterAll, expect, it } from 'vitest';
import * as vhostUser from '../../../lib/vhost-user/index.ts';
import { attackFace, closedArena, notAttacked } from '../handles/attack.ts';
import { attackFunction } from '../handles/attack-function.ts';
import { VHOST_USER as HERE, LEFT_OUT } from '../handles/left-out.ts';
import { hostCalls, openDescriptors, remainingDescriptors } from '../sharing/host.ts';
import { arenaOf } from './attacked-vhost-user.ts';
import { VHOST_USER, vhostUserFunctions } from './vhost-user-faces.ts';

const LONG = { timeout: 300_000 };
let total = 0;
afterAll(() => console.log(`${total} calls of vhost-user with one thing wrong`));

it.for(Object.entries(VHOST_USER))(
  'wrong arguments are told, and break nothing, also when all is closed: %s',
  LONG,
  async ([title, face], test) => {
    const arena = arenaOf(hostCalls(test));
    const before = openDescriptors();
    for (const now of [arena, closedArena(arena)]) {
      const { faults, tried } = await attackFace(now, title, face);
      total += tried;
      expect(faults).toEqual([]);
    }
    expect(await remainingDescriptors(before)).toBeLessThanOrEqual(before);
  },
);

it('wrong arguments of constructors and statics are told, and lose no descriptor', LONG, async (test) => {
  const calls = hostCalls(test);
  const arena = arenaOf(calls);
  const served = await arena.make();
  const before = openDescriptors();
  const faults: string[] = [];
  for (const [name, attacked] of Object.entries(vhostUserFunctions(calls, served))) {
    const result = await attackFunction(name, attacked);
    total += result.tried;
    faults.push(...result.faults);
  }
  expect(faults).toEqual([]);
  // One is lent to those who take descriptors over.
  expect(await remainingDescriptors(before + 1)).toBeLessThanOrEqual(before + 1);
  arena.close(served);
});

it('nothing of vhost-user is left out', async (test) => {
  const calls = hostCalls(test);
  const arena = arenaOf(calls);
  const served = await arena.make();
  const names = Object.keys(vhostUserFunctions(calls, served));
  const missing = notAttacked(served, VHOST_USER, names, vhostUser);
  arena.close(served);
  expect(Object.values(LEFT_OUT).filter((where) => where === HERE).length).toBeGreaterThan(8);
  expect(missing).toEqual([]);
});
