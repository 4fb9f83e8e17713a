import { mkdtempSync, rmSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it, vi } from 'vitest';
import { AddressSpace, EventFd, Mapping, UnixListener } from '../../../lib/index.ts';
import { loadNative } from '../../../lib/raw.ts';
import {
  BlockDevice,
  DriverQueue,
  layOut,
  VhostUserBackEnd,
  VhostUserFrontEnd,
} from '../../../lib/vhost-user/index.ts';
import { whyNoKvm } from '../../scenarios/real-host.ts';
import { hostCalls } from '../sharing/host.ts';
import { codeBlocks, WITH_PEERS } from './blocks.ts';
import { runBlock } from './run-block.ts';

const scratch = mkdtempSync(join(tmpdir(), 'kvm-bridge-docs-'));
afterAll(() => rmSync(scratch, { recursive: true }));

/** What the blocks that are run here are known by. */
const DISK = 'BlockDriver.start';
const DEVICE = 'VirtioDevice';
const TEST = "from 'node:test'";
/** What is compiled alone: it boots a machine, which takes half a minute and programs that may not be there. */
const MACHINE = 'runInLab(';

const blocks = codeBlocks().filter(({ name }) => WITH_PEERS.test(name));
const blockWith = (text: string) => blocks.find(({ code }) => code.includes(text))!;

it('every block of these pages is run here, or boots a machine', () => {
  const known = [TEST, MACHINE, DISK, DEVICE];
  expect(blocks.map(({ code }) => known.filter((text) => code.includes(text)))).toEqual(known.map((text) => [text]));
});

it("docs/vhost-user.md: the driver reads another program's disk", async (test) => {
  const calls = hostCalls(test);
  const path = join(scratch, 'disk.sock');
  const image = await open(join(scratch, 'image'), 'w+');
  await image.write(Buffer.alloc(0x1_0000, 0x5c));
  using listener = UnixListener.listen(calls, path);
  using backEnd = new VhostUserBackEnd(calls, new BlockDevice(image, { size: 0x1_0000 }));
  const served = listener.accept().then((connection) => backEnd.serve(connection));
  const block = blockWith(DISK);
  // The block leaves to the reader what is read; here it is looked at, and the connection ended.
  const looked = {
    name: block.name,
    language: block.language,
    code: `${block.code}
console.log([0, 0xfff, 0x1000].map((at) => space.readU8(0x10_0000 + at)).join(' '));
frontEnd.close();
space.close();
`,
  };
  const lines = await runBlock(looked, {
    scratch,
    globals: { kvm: { calls } },
    instead: { '/run/disk.sock': path },
  });
  expect(lines).toEqual(['92 92 0']);
  await served;
  await image.close();
});

it('docs/vhost-user.md: the device of our own answers a driver', async (test) => {
  const calls = hostCalls(test);
  const path = join(scratch, 'device.sock');
  const listen = vi.spyOn(UnixListener, 'listen');
  const running = runBlock(blockWith(DEVICE), {
    scratch,
    globals: { kvm: { calls } },
    instead: { '/run/device.sock': path },
  });
  await expect.poll(() => listen.mock.results.length).toBe(1);
  const listener = listen.mock.results[0]!.value as UnixListener;
  listen.mockRestore();

  using space = new AddressSpace({ littleEndian: true, pageSize: 4096 });
  using ram = Mapping.memfd(calls, 0x10_0000);
  space.addRam(0, ram);
  const frontEnd = await VhostUserFrontEnd.connect(calls, path, { queues: 1 });
  await frontEnd.negotiate(0n);
  await frontEnd.share(space);
  const { end: _, ...layout } = layOut(0, 8);
  const queue = new DriverQueue<string>(space, layout);
  using kick = new EventFd(calls);
  using call = new EventFd(calls);
  await frontEnd.startQueue(0, { ...layout, kick, call });
  queue.add([], [{ gpa: 0x8000, length: 3 }], 'a chain');
  if (queue.publish()) kick.signal();
  await call.wait();
  expect(queue.take()).toEqual({ token: 'a chain', written: 3 });
  expect(Buffer.from(space.readExact(0x8000, 4)).toString('hex')).toBe('2a2a2a00');
  frontEnd.close();
  listener.close();
  await running;
});

it('docs/labs.md: the test passes on the real kernel', async (test) => {
  const why = whyNoKvm(loadNative());
  if (why !== undefined) test.skip(why);
  const tests: [name: string, body: () => unknown][] = [];
  const lines = await runBlock(blockWith(TEST), {
    scratch,
    globals: { test: (name: string, body: () => unknown) => tests.push([name, body]) },
    instead: { "import test from 'node:test';\n": '' },
  });
  expect(lines).toEqual([]);
  expect(tests.map(([name]) => name)).toEqual(['a page that was written is dirty']);
  for (const [, body] of tests) await body();
});
