import { beforeEach, expect, it } from 'vitest';
import { AddressSpace, type ConsumerEvent, Mapping, type SpaceToken } from '../../../lib/index.ts';
import type { KvmCalls } from '../../../lib/raw.ts';
import { collected } from '../collect-garbage.ts';
import { hostCalls, openDescriptors } from './host.ts';

const UNIT = 0x10_0000;

let calls: KvmCalls;
beforeEach((test) => {
  calls = hostCalls(test);
});

/** A shared space of a memfd with a byte in it. */
function shared(onConsumer?: (event: ConsumerEvent) => void): AddressSpace {
  const space = new AddressSpace({ littleEndian: true, pageSize: calls.pageSize });
  space.addRam(0, Mapping.memfd(calls, UNIT));
  space.writeU8(3, 0x42);
  return space.share({ calls, ...(onConsumer === undefined ? {} : { onConsumer }) });
}

it('a shared space that nobody has goes with all its descriptors', async () => {
  const before = openDescriptors();
  const space = (() => new WeakRef(shared()))();
  expect(openDescriptors()).toBeGreaterThan(before);
  expect(await collected(() => space.deref() === undefined && openDescriptors() === before)).toBe(true);
});

it('those who use a space that went are told, and keep the memory', async () => {
  const before = openDescriptors();
  const ended: string[] = [];
  const binding = await (() =>
    AddressSpace.attach(calls, shared().token, { onEnd: (reason) => void ended.push(reason) }))();
  expect(await collected(() => ended.length > 0)).toBe(true);
  expect(ended).toEqual(['died']);
  expect(binding.readU8(3)).toBe(0x42);
  binding.release();
  expect(await collected(() => openDescriptors() === before)).toBe(true);
});

it('a binding that nobody has is noticed as one whose user died', async () => {
  const events: ConsumerEvent[] = [];
  using space = shared((event) => void events.push(event));
  const attach = async (token: SpaceToken): Promise<void> => {
    const binding = await AddressSpace.attach(calls, token, { name: 'forgetful' });
    binding.writeU8(4, 1);
  };
  await attach(space.token);
  expect(space.consumers).toMatchObject([{ name: 'forgetful' }]);
  expect(await collected(() => events.length > 0)).toBe(true);
  expect(events).toMatchObject([{ kind: 'died', consumer: { name: 'forgetful' }, allDirty: false }]);
  expect(space.consumers).toEqual([]);
});
