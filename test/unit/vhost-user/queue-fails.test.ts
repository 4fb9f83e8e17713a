import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { AddressSpace, Mapping, UnixListener } from '../../../lib/index.ts';
import { BlockDriver, VhostUserBackEnd, VhostUserFrontEnd, type VirtioDevice } from '../../../lib/vhost-user/index.ts';
import { hostCalls } from '../sharing/host.ts';

it('a queue that its back end gives up ends the requests in it, and says so', { timeout: 10_000 }, async (test) => {
  const calls = hostCalls(test);
  const folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-'));
  test.onTestFinished(() => rmSync(folder, { recursive: true }));
  using ram = Mapping.memfd(calls, 1 << 20);
  using space = new AddressSpace({ littleEndian: true, pageSize: 4096 });
  space.addRam(0, ram);
  const config = new Uint8Array(60);
  config[0] = 100;
  const device: VirtioDevice = {
    queues: 1,
    config,
    handle: () => {
      throw new Error('of the device');
    },
  };
  const errors: string[] = [];
  using backEnd = new VhostUserBackEnd(calls, device, { onError: ({ message }) => errors.push(message) });
  const path = join(folder, 'disk');
  using listener = UnixListener.listen(calls, path);
  void (async () => {
    for await (const connection of listener) await backEnd.serve(connection);
  })();
  using frontEnd = await VhostUserFrontEnd.connect(calls, path);
  const disk = await BlockDriver.start(calls, frontEnd, space, { area: 0x8_0000, queueSize: 16 });
  const isOver = expect.objectContaining({ code: 'EIO', explanation: expect.stringContaining('given the queue up') });
  await Promise.all([
    expect(disk.read(0, 0x1000, 512)).rejects.toThrow(isOver),
    expect(disk.write(1, 0x2000, 512)).rejects.toThrow(isOver),
  ]);
  await expect(disk.read(0, 0x1000, 512)).rejects.toThrow(isOver);
  expect([disk.inFlight, errors]).toEqual([0, ['of the device']]);
});
