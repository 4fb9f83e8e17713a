import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { AddressSpace, Mapping, UnixListener } from '../../../lib/index.ts';
import type { KvmCalls } from '../../../lib/raw.ts';
import {
  BlockDevice,
  BlockDriver,
  VhostUserBackEnd,
  VhostUserFrontEnd,
  VirtioMmio,
} from '../../../lib/vhost-user/index.ts';
import { hostCalls, openDescriptors, remainingDescriptors } from '../sharing/host.ts';

const RAM = 0x10_0000;
const DISK = 0x1_0000;
const DRIVER = { area: 0x8_0000, queueSize: 16 };

let calls: KvmCalls;
let folder: string;
let file: FileHandle;
let backEnd: VhostUserBackEnd;
let listener: UnixListener;
let space: AddressSpace;
let frontEnd: VhostUserFrontEnd;

function newSpace(): AddressSpace {
  using ram = Mapping.memfd(calls, RAM);
  const made = new AddressSpace({ littleEndian: true, pageSize: 4096 });
  made.addRam(0, ram);
  return made;
}

beforeEach(async (test) => {
  calls = hostCalls(test);
  folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-front-end-'));
  const disk = join(folder, 'disk');
  writeFileSync(disk, new Uint8Array(DISK).fill(7));
  file = await open(disk, 'r+');
  backEnd = new VhostUserBackEnd(calls, new BlockDevice(file, { size: DISK }));
  const path = join(folder, 'socket');
  listener = UnixListener.listen(calls, path);
  void (async () => {
    for await (const connection of listener) void backEnd.serve(connection).catch(() => {});
  })();
  space = newSpace();
  frontEnd = await VhostUserFrontEnd.connect(calls, path);
});
afterEach(async () => {
  if (frontEnd === undefined) return;
  frontEnd.close();
  listener.close();
  backEnd.close();
  space.close();
  await file.close();
  rmSync(folder, { recursive: true });
});

describe('a front end that was closed', () => {
  it('shares nothing, and says so', async () => {
    await frontEnd.share(space);
    expect(frontEnd.isSharing(space)).toBe(true);
    frontEnd.close();
    expect(frontEnd.isSharing(space)).toBe(false);
    using other = newSpace();
    for (const refused of [frontEnd.share(other), frontEnd.share(space), frontEnd.startLog()]) {
      await expect(refused).rejects.toMatchObject({ code: 'EBADF', explanation: 'the connection is closed' });
    }
    expect(frontEnd.isSharing(other)).toBe(false);
  });

  it('while it waited to begin a log has begun none', async () => {
    await frontEnd.negotiate(frontEnd.features);
    await frontEnd.share(space);
    const begun = frontEnd.startLog();
    frontEnd.close();
    await expect(begun).rejects.toMatchObject({ code: 'EBADF', syscall: 'startLog' });
  });
});

it('a log that is asked for twice at once is begun once', async () => {
  await frontEnd.negotiate(frontEnd.features);
  await frontEnd.share(space);
  const before = openDescriptors();
  const begun: number[] = [];
  await Promise.all([1, 2].map((which) => frontEnd.startLog().then(() => begun.push(which))));
  expect(begun).toEqual([1, 2]);
  await frontEnd.stopLog();
  expect(await remainingDescriptors(before)).toBeLessThanOrEqual(before);
});

it('a queue that runs, or begins to, is started by nobody else, and goes on', async () => {
  const driver = await BlockDriver.start(calls, frontEnd, space, DRIVER);
  const busy = { code: 'EBUSY', explanation: 'queue 0 runs already: stopQueue(0) comes first' };
  const before = openDescriptors();
  await expect(BlockDriver.start(calls, frontEnd, space, { ...DRIVER, area: 0xc_0000 })).rejects.toMatchObject(busy);
  expect(openDescriptors()).toBe(before);
  await driver.read(0, 0x1000, 512);
  expect(space.readU8(0x1000)).toBe(7);
  await driver.stop();
  const both = [0x8_0000, 0xc_0000].map((area) => BlockDriver.start(calls, frontEnd, space, { ...DRIVER, area }));
  const [first, second] = await Promise.allSettled(both);
  expect([first!.status, second]).toMatchObject(['fulfilled', { status: 'rejected', reason: busy }]);
});

it('sectors behind the end of a disk are refused with how many it has', async () => {
  const driver = await BlockDriver.start(calls, frontEnd, space, DRIVER);
  const explanation = 'request 0 of sector 4000 ended with status 1 (VIRTIO_BLK_S_IOERR); the disk has 128 sectors';
  await expect(driver.read(4000, 0x1000, 512)).rejects.toMatchObject({ code: 'EIO', explanation });
  await driver.stop();
});

it('a request that cannot be made takes nothing of the queue', async () => {
  const driver = await BlockDriver.start(calls, frontEnd, space, { ...DRIVER, queueSize: 4 });
  for (let i = 0; i < 3; i++) await expect(driver.read(0, 0x1000, 2 ** 33)).rejects.toThrow('length');
  await driver.read(0, 0x1000, 512);
  expect(space.readU8(0x1000)).toBe(7);
  await driver.stop();
});

it('a listener that throws ends nothing, and the others hear of the change', async () => {
  const thrown: unknown[] = [];
  const onUncaught = (error: unknown) => thrown.push(error);
  const others = process.listeners('uncaughtException');
  process.removeAllListeners('uncaughtException').on('uncaughtException', onUncaught);
  try {
    frontEnd.onConfigChange(() => {
      throw new Error('of a listener');
    });
    const heard = new Promise<void>((resolve) => frontEnd.onConfigChange(resolve));
    await backEnd.configChanged();
    await heard;
    expect((await frontEnd.readConfig(0, 8)).length).toBe(8);
  } finally {
    process.removeAllListeners('uncaughtException');
    for (const listener of others) process.on('uncaughtException', listener);
  }
  expect(thrown).toMatchObject([{ message: 'of a listener' }]);
});

it('a device for which there is no room on the bus leaves nothing open', async () => {
  const options = { memory: space, gpa: 0x1000_0000, deviceId: 2 };
  using _first = await VirtioMmio.attach(calls, frontEnd, options);
  const before = openDescriptors();
  await expect(VirtioMmio.attach(calls, frontEnd, options)).rejects.toMatchObject({ code: 'EEXIST' });
  expect(openDescriptors()).toBe(before);
});
