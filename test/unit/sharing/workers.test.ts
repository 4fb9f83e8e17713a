import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { describe, expect, it, type TestContext } from 'vitest';
import { AddressSpace, type ConsumerEvent, Mapping, type SpaceToken } from '../../../lib/index.ts';
import { UNIT } from '../handles/backends.ts';
import { collector } from './collector.ts';
import { hostCalls, openDescriptors } from './host.ts';

const PAGE = 4096;
/** On a machine that is busy. */
const PATIENT = { timeout: 15_000 };

function newSpace(test: TestContext) {
  const calls = hostCalls(test);
  const events: ConsumerEvent[] = [];
  const space = new AddressSpace({ littleEndian: true, pageSize: PAGE });
  const add = (gpa: number) => {
    using ram = Mapping.memfd(calls, UNIT);
    return space.addRam(gpa, ram);
  };
  add(0);
  space.share({ onConsumer: (event) => events.push(event) });
  return { space, events, add };
}

const newWorker = (child: string, workerData: unknown): Worker =>
  new Worker(fileURLToPath(new URL(`children/${child}.ts`, import.meta.url)), {
    workerData,
    execArgv: ['--import', new URL('../../typescript/register.mjs', import.meta.url).href],
  });

/** A worker with a token, what it said first, and what asks it something. */
async function start(token: SpaceToken) {
  const worker = newWorker('worker', token);
  const [said] = await once(worker, 'message');
  return {
    worker,
    said,
    ask: async (message: object) => {
      worker.postMessage(message);
      return (await once(worker, 'message'))[0] as unknown;
    },
  };
}

describe('a worker that was given a token', { timeout: 90_000 }, () => {
  it('uses the same memory, is counted, follows changes, and leaves', async (test) => {
    const { space, events, add } = newSpace(test);
    using vm = collector(space);
    const { worker, said, ask } = await start(space.token);
    expect(said).toEqual(space.memoryRegions.map(String));
    expect(space.consumers).toEqual([{ name: 'worker', pid: process.pid }]);
    await ask({ write: 3 * PAGE });
    expect(space.readU32(3 * PAGE)).toBe(0xbeef);
    expect(vm.pages()).toEqual([3]);
    add(4 * UNIT);
    await ask({ write: 4 * UNIT });
    expect(space.readU32(4 * UNIT)).toBe(0xbeef);
    space.writeU32(8, 77);
    expect(await ask({ read: 8 })).toBe(77);
    worker.postMessage({ release: true });
    await once(worker, 'exit');
    await expect.poll(() => events, PATIENT).toMatchObject([{ kind: 'left', consumer: { name: 'worker' } }]);
    space.close();
  });

  it('may be terminated at any instant: the rest works, every store is dirty, and nothing leaks', async (test) => {
    const { space, events } = newSpace(test);
    using vm = collector(space);
    await start(space.token).then(({ worker }) => worker.terminate());
    await expect.poll(() => events.length, PATIENT).toBe(1);
    const before = openDescriptors();
    for (let round = 0; round < 2; round++) {
      const { worker } = await start(space.token);
      worker.postMessage({ storm: 200 });
      await new Promise((resolve) => setTimeout(resolve, 20 + 7 * round));
      await worker.terminate();
      await expect.poll(() => events.length, PATIENT).toBe(2 + round);
    }
    expect(events.every(({ kind }) => kind === 'died')).toBe(true);
    expect(vm.pages().length).toBeGreaterThanOrEqual(200);
    expect(openDescriptors()).toBe(before);
    space.writeU8(0, 1);
    expect(vm.pages()).toEqual([0]);
    space.close();
  });

  it('after the space was closed is told so', async (test) => {
    const { space } = newSpace(test);
    const { token } = space;
    space.close();
    await expect(AddressSpace.attach(hostCalls(test), token)).rejects.toThrow(
      expect.objectContaining({ code: 'ESTALE' }),
    );
    expect(() => space.token).toThrow(expect.objectContaining({ code: 'EBADF' }));
  });
});

describe('a handler that throws in a worker', { timeout: 90_000 }, () => {
  it.each([
    [
      { gpa: 0xd000_0010, isStore: false },
      { kind: 'mmio', name: 'timer', start: 0xd000_0000, size: 0x1000 },
    ],
    [
      { gpa: 0x10, isStore: true },
      { kind: 'ram', name: 'flash', start: 0, readOnly: true },
    ],
  ])('is known outside by its name, code, cause and region: %o', async (access, region) => {
    const [error] = await once(newWorker('handler-error', access), 'message').catch((thrown: unknown) => [thrown]);
    expect(error).toMatchObject({
      name: 'HandlerError',
      code: 'ERR_HANDLER',
      message: expect.stringContaining(`'${region.name}'`),
      region,
    });
    expect(error.cause).toMatchObject({ message: 'no such register' });
  });
});
