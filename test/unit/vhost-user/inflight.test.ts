import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { AddressSpace, EventFd, Mapping, UnixListener } from '../../../lib/index.ts';
import type { KvmCalls } from '../../../lib/raw.ts';
import {
  type Chain,
  DriverQueue,
  layOut,
  VhostUserBackEnd,
  VhostUserFrontEnd,
  type VirtioDevice,
} from '../../../lib/vhost-user/index.ts';
import { hostCalls, openDescriptors, remainingDescriptors } from '../sharing/host.ts';

const LAYOUT = layOut(0, 16);
const BUFFERS = 0x1_0000;

/** Gives back the chains that it is told to, and forgets the others. */
class Forgetful implements VirtioDevice {
  readonly queues = 1;
  readonly #keeps: (token: number) => boolean;
  readonly seen: number[] = [];

  constructor(keeps: (token: number) => boolean) {
    this.#keeps = keeps;
  }

  handle(chain: Chain): number | Promise<number> {
    const token = new Uint8Array(4);
    chain.read(0, token);
    const [number] = new Uint32Array(token.buffer);
    this.seen.push(number!);
    return this.#keeps(number!) ? new Promise(() => {}) : chain.write(0, token);
  }
}

let calls: KvmCalls;
let folder: string;
let descriptors: number;
beforeEach((test) => {
  calls = hostCalls(test);
  descriptors = openDescriptors();
  folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-inflight-'));
});
afterEach(async () => {
  if (folder !== undefined) rmSync(folder, { recursive: true });
  if (calls !== undefined) expect(await remainingDescriptors(descriptors)).toBeLessThanOrEqual(descriptors);
});

it('what a back end left when it went is served by the next, in order, and nothing else is served twice', async () => {
  const space = new AddressSpace({ littleEndian: true, pageSize: 4096 });
  const ram = Mapping.memfd(calls, 0x10_0000);
  space.addRam(0, ram);
  ram.close();
  using kick = new EventFd(calls);
  using call = new EventFd(calls);
  const driver = new DriverQueue<number>(space, LAYOUT);
  const add = (token: number): void => {
    const at = BUFFERS + 16 * token;
    space.writeU32(at, token);
    driver.add([{ gpa: at, length: 4 }], [{ gpa: at + 8, length: 4 }], token);
    if (driver.publish()) kick.signal();
  };
  const collect = async (count: number): Promise<number[]> => {
    const done: number[] = [];
    while (done.length < count) {
      for (let used = driver.take(); used !== undefined; used = driver.take()) done.push(used.token);
      if (done.length < count) await call.wait();
    }
    return done;
  };
  /** A back end, and a front end at it. */
  const start = async (device: VirtioDevice) => {
    using listener = UnixListener.listen(calls, join(folder, 'device.sock'));
    const backEnd = new VhostUserBackEnd(calls, device);
    const served = listener.accept().then((connection) => backEnd.serve(connection));
    const frontEnd = await VhostUserFrontEnd.connect(calls, listener.path);
    await frontEnd.negotiate(0);
    await frontEnd.share(space);
    return { backEnd, served, frontEnd };
  };

  const keeping = new Forgetful((token) => token === 2 || token === 4);
  const first = await start(keeping);
  const inflight = await first.frontEnd.getInflight(1, 16);
  await first.frontEnd.setInflight(inflight);
  await first.frontEnd.startQueue(0, { ...LAYOUT, kick, call });
  for (const token of [1, 2, 3, 4, 5]) add(token);
  expect(await collect(3)).toEqual([1, 3, 5]);
  // It goes as if it were killed.
  first.backEnd.close();
  expect(await first.frontEnd.ended).toMatchObject({ code: 'ECONNRESET' });
  await first.served;
  add(6);

  const giving = new Forgetful(() => false);
  const second = await start(giving);
  await second.frontEnd.setInflight(inflight);
  await second.frontEnd.startQueue(0, { ...LAYOUT, kick, call });
  expect(await collect(3)).toEqual([2, 4, 6]);
  expect(giving.seen).toEqual([2, 4, 6]);
  expect(driver.inFlight).toBe(0);
  expect(await second.frontEnd.stopQueue(0)).toBe(6);
  second.frontEnd.close();
  await second.served;
  inflight.descriptor.close();
  space.close();
});
