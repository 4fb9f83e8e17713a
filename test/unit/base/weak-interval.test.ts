import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { weakInterval } from '../../../lib/base/weak-interval.ts';
import { collected } from '../collect-garbage.ts';

it('something is done for what somebody has, again and again, until that goes', async () => {
  const looks: number[] = [];
  let target: { name: number } | undefined = { name: 7 };
  const timer = weakInterval(target, 1, ({ name }) => looks.push(name));
  expect(timer.hasRef()).toBe(false);
  while (looks.length < 3) await sleep(1);
  expect(new Set(looks)).toEqual(new Set([7]));
  const weak = new WeakRef(target);
  target = undefined;
  expect(await collected(() => weak.deref() === undefined)).toBe(true);
  await sleep(5);
  const after = looks.length;
  await sleep(10);
  expect(looks.length).toBe(after);
  // It ended itself.
  expect((timer as unknown as { readonly _destroyed: boolean })._destroyed).toBe(true);
});
