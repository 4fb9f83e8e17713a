import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { AddressSpace, type ConsumerEvent, Mapping, UnixConnection, UnixListener } from '../../../lib/index.ts';
import type { KvmCalls } from '../../../lib/raw.ts';
import { UNIT } from '../handles/backends.ts';
import { spawnChild } from './child.ts';
import { collector } from './collector.ts';
import { hostCalls } from './host.ts';

const PAGE = 4096;
/** On a machine that is busy. */
const PATIENT = { timeout: 15_000 };
const folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-space-'));
afterAll(() => rmSync(folder, { recursive: true }));

let calls: KvmCalls;
beforeEach((test) => {
  calls = hostCalls(test);
});

function newSpace() {
  const events: ConsumerEvent[] = [];
  const space = new AddressSpace({ littleEndian: true, pageSize: PAGE });
  const add = (gpa: number) => {
    using ram = Mapping.memfd(calls, UNIT);
    return space.addRam(gpa, ram);
  };
  const first = add(0);
  space.share({ calls, onConsumer: (event) => events.push(event) });
  return { space, events, add, first };
}

/** What a child says, one after the other. */
function talkTo(child: ChildProcess) {
  const said: string[] = [];
  let wake = () => {};
  child.on('message', (message: string) => {
    said.push(message);
    wake();
  });
  const next = async (): Promise<string> => {
    while (said.length === 0) {
      if (child.exitCode !== null) throw new Error(`the child ended with ${child.exitCode}`);
      await new Promise<void>((resolve) => {
        wake = resolve;
        child.once('exit', () => resolve());
      });
    }
    return said.shift()!;
  };
  return {
    next,
    ask: (message: string) => {
      child.send(message);
      return next();
    },
  };
}

let sockets = 0;
async function startOver(space: AddressSpace) {
  const path = join(folder, `${++sockets}.sock`);
  using listener = UnixListener.listen(calls, path);
  const child = spawnChild('consumer', [path], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  space.accept(await listener.accept());
  return { child, ...talkTo(child) };
}

function startInherited(space: AddressSpace) {
  const { descriptors } = space;
  const child = spawnChild('consumer', [], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc', ...descriptors],
    env: { ...process.env, COUNT: String(descriptors.length) },
  });
  return { child, ...talkTo(child) };
}

describe('a consumer in another process', { timeout: 60_000 }, () => {
  it('that inherits the descriptors uses the memory, is dirty, and leaves', async () => {
    const { space, events } = newSpace();
    using vm = collector(space);
    const { child, next, ask } = startInherited(space);
    expect(await next()).toBe('generation 1');
    expect(await next()).toBe('attached 1');
    expect(await ask('write 4096 305419896')).toBe('written');
    expect(space.readU32(PAGE)).toBe(305419896);
    expect(vm.pages()).toEqual([1]);
    expect(await ask('flush')).toBe('flushed');
    expect(vm.pages()).toEqual([5]);
    child.send('release');
    await once(child, 'exit');
    expect(child.exitCode).toBe(0);
    await expect.poll(() => events, PATIENT).toEqual([{ kind: 'left', consumer: { name: 'child', pid: child.pid } }]);
    expect(vm.pages()).toEqual([5]);
    space.close();
  });

  it('over a socket hears of changes, gets new memory, and has its view revoked; then the space is closed', async () => {
    const { space, add, first } = newSpace();
    using vm = collector(space);
    const { child, next, ask } = await startOver(space);
    expect(await next()).toBe('generation 1');
    expect(await next()).toBe('attached 1');
    add(4 * UNIT);
    expect(await next()).toBe('generation 2');
    expect(await ask(`write ${4 * UNIT} 7`)).toBe('written');
    expect(space.readU32(4 * UNIT)).toBe(7);
    first.move(8 * UNIT);
    expect(await next()).toBe('revoked moved');
    expect(await next()).toBe('generation 3');
    await space.settled();
    // The view for writing is dirty where the memory is now.
    expect(vm.pages()).toEqual([(4 * UNIT) / PAGE, (8 * UNIT) / PAGE + 5]);
    first.move(0);
    expect(await next()).toBe('generation 4');
    space.writeU32(0x100, 99);
    const warned = once(process, 'warning');
    const exited = once(child, 'exit');
    vm[Symbol.dispose]();
    space.close();
    expect((await warned)[0]).toMatchObject({
      code: 'KVM_BRIDGE_STILL_BOUND',
      message: expect.stringContaining("'child'"),
    });
    expect(await next()).toBe('end closed 99');
    await exited;
    expect(child.exitCode).toBe(0);
  });

  it('that is killed while it holds a view for writing is noticed, and every page is dirty', async () => {
    const { space, events } = newSpace();
    using vm = collector(space);
    const { child, next } = await startOver(space);
    await next();
    await next();
    child.kill('SIGKILL');
    await expect
      .poll(() => events, PATIENT)
      .toMatchObject([{ kind: 'died', consumer: { name: 'child' }, allDirty: true }]);
    expect(vm.pages().length).toBe(UNIT / PAGE);
    await space.settled();
    space.close();
  });

  it('whose owner is killed keeps memory that reads, and is told', async () => {
    const child = spawnChild('owner', [join(folder, 'owner.sock')], { stdio: ['ignore', 'pipe', 'inherit'] });
    const [line] = (await once(child.stdout!, 'data')) as [Buffer];
    expect(line.toString()).toBe('ready\n');
    const connection = await UnixConnection.connect(calls, join(folder, 'owner.sock'));
    const ended: string[] = [];
    const binding = await AddressSpace.attach(calls, connection, { onEnd: (reason) => ended.push(reason) });
    expect(binding.readU32(0x100)).toBe(4711);
    child.kill('SIGKILL');
    await expect.poll(() => ended, PATIENT).toEqual(['died']);
    expect(binding.readU32(0x100)).toBe(4711);
    binding.writeU32(0x100, 1);
    expect(binding.readU32(0x100)).toBe(1);
    binding.release();
  });
});
