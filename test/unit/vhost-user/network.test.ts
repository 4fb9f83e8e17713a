import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { AddressSpace, EventFd, Mapping, UnixListener } from '../../../lib/index.ts';
import type { KvmCalls } from '../../../lib/raw.ts';
import {
  DriverQueue,
  layOut,
  NETWORK,
  NetworkDevice,
  VhostUserBackEnd,
  VhostUserFrontEnd,
  VirtioMmio,
} from '../../../lib/vhost-user/index.ts';
import { collector } from '../sharing/collector.ts';
import { hostCalls, openDescriptors, remainingDescriptors } from '../sharing/host.ts';

const SIZE = 16;
const RINGS = [0, 0x8000];
const BUFFERS = 0x1_0000;
const BUFFER = 0x1000;

let calls: KvmCalls;
let folder: string;
let descriptors: number;
beforeEach((test) => {
  calls = hostCalls(test);
  descriptors = openDescriptors();
  folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-net-'));
});
afterEach(async () => {
  if (folder !== undefined) rmSync(folder, { recursive: true });
  if (calls !== undefined) expect(await remainingDescriptors(descriptors)).toBeLessThanOrEqual(descriptors);
});

/** The guest's driver of a network card, in guest memory. */
class Driver {
  readonly space: AddressSpace;
  readonly #queues: readonly DriverQueue<number>[];
  readonly kicks = [new EventFd(calls), new EventFd(calls)];
  readonly calls = [new EventFd(calls), new EventFd(calls)];

  constructor() {
    this.space = new AddressSpace({ littleEndian: true, pageSize: 4096 });
    using ram = Mapping.memfd(calls, 0x10_0000);
    this.space.addRam(0, ram);
    this.#queues = RINGS.map((at) => new DriverQueue<number>(this.space, layOut(at, SIZE)));
  }

  async start(frontEnd: VhostUserFrontEnd, bases: readonly number[] = [0, 0]): Promise<void> {
    for (const [i, at] of RINGS.entries()) {
      const { end: _, ...layout } = layOut(at, SIZE);
      await frontEnd.startQueue(i, { ...layout, kick: this.kicks[i]!, call: this.calls[i]!, base: bases[i]! });
    }
  }

  /** Gives room for a frame. */
  giveRoom(index: number, length = 1600): void {
    this.#queues[NETWORK.RECEIVE]!.add([], [{ gpa: BUFFERS + BUFFER * index, length }], index);
    if (this.#queues[NETWORK.RECEIVE]!.publish()) this.kicks[NETWORK.RECEIVE]!.signal();
  }

  /** The next frame that came, and where. */
  async receive(): Promise<{ index: number; written: number; frame: Buffer }> {
    for (;;) {
      const used = this.#queues[NETWORK.RECEIVE]!.take();
      if (used === undefined) {
        await this.calls[NETWORK.RECEIVE]!.wait();
        continue;
      }
      const { token: index, written } = used;
      const bytes = this.space.readExact(BUFFERS + BUFFER * index, Math.max(NETWORK.HEADER, written));
      if (written > 0) expect([...bytes.subarray(0, NETWORK.HEADER)]).toEqual([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
      return { index, written, frame: Buffer.from(bytes.subarray(NETWORK.HEADER)) };
    }
  }

  send(frame: Uint8Array): void {
    const at = BUFFERS + BUFFER * 20;
    this.space.writeExact(at, new Uint8Array(NETWORK.HEADER));
    this.space.writeExact(at + NETWORK.HEADER, frame);
    this.#queues[NETWORK.TRANSMIT]!.add([{ gpa: at, length: NETWORK.HEADER + frame.length }], [], 0);
    if (this.#queues[NETWORK.TRANSMIT]!.publish()) this.kicks[NETWORK.TRANSMIT]!.signal();
  }

  close(): void {
    for (const eventfd of [...this.kicks, ...this.calls]) eventfd.close();
    this.space.close();
  }
}

async function connect(device: NetworkDevice) {
  using listener = UnixListener.listen(calls, join(folder, 'net.sock'));
  const errors: Error[] = [];
  const backEnd = new VhostUserBackEnd(calls, device, { onError: (error) => errors.push(error) });
  const served = listener.accept().then((connection) => backEnd.serve(connection));
  const frontEnd = await VhostUserFrontEnd.connect(calls, listener.path, { queues: 2 });
  await frontEnd.negotiate(1n << BigInt(NETWORK.MAC));
  return { frontEnd, served, errors };
}

it('a network card passes frames both ways, dirty where they are written, and drops what there is no room for', async () => {
  const sent: Buffer[] = [];
  const mac = Uint8Array.of(2, 0, 0, 0, 0, 1);
  const device = new NetworkDevice({ mac, backlog: 2, onFrame: (frame) => sent.push(Buffer.from(frame)) });
  const { frontEnd, served, errors } = await connect(device);
  expect(await frontEnd.readConfig(0, 6)).toEqual(mac);
  const driver = new Driver();
  using vm = collector(driver.space);
  await frontEnd.share(driver.space);
  await frontEnd.startLog();
  await driver.start(frontEnd);
  driver.send(Buffer.from('from the guest'));
  await expect.poll(() => sent.map(String)).toEqual(['from the guest']);
  device.send(Buffer.from('first'));
  device.send(Buffer.from('second'));
  device.send(Buffer.from('third'));
  expect(device.dropped).toBe(1);
  vm.pages();
  driver.giveRoom(3);
  expect(await driver.receive()).toMatchObject({ index: 3, written: 17, frame: Buffer.from('first') });
  expect(vm.pages()).toContain((BUFFERS + 3 * BUFFER) / 4096);
  driver.giveRoom(4, 14);
  expect(await driver.receive()).toMatchObject({ index: 4, written: 0 });
  expect(device.dropped).toBe(2);
  expect(() => device.send(new Uint8Array(1515))).toThrow(RangeError);
  expect(() => new NetworkDevice({ mac: new Uint8Array(5), onFrame: () => {} })).toThrow(RangeError);
  frontEnd.close();
  await served;
  expect(errors).toEqual([]);
  driver.close();
});

it('room that was not used when the queue stops is used by the next back end, in order', async () => {
  const first = new NetworkDevice({ onFrame: () => {} });
  const one = await connect(first);
  const driver = new Driver();
  await one.frontEnd.share(driver.space);
  await driver.start(one.frontEnd);
  for (const index of [0, 1, 2, 3]) driver.giveRoom(index);
  first.send(Buffer.from('to the first'));
  expect(await driver.receive()).toMatchObject({ index: 0 });
  const bases = [await one.frontEnd.stopQueue(0), await one.frontEnd.stopQueue(1)];
  expect(bases).toEqual([1, 0]);
  one.frontEnd.close();
  await one.served;
  const second = new NetworkDevice({ onFrame: () => {} });
  const two = await connect(second);
  await two.frontEnd.share(driver.space);
  await driver.start(two.frontEnd, bases);
  for (const index of [1, 2, 3]) {
    second.send(Buffer.from(`frame ${index}`));
    expect(await driver.receive()).toMatchObject({ index, frame: Buffer.from(`frame ${index}`) });
  }
  two.frontEnd.close();
  await two.served;
  expect([one.errors, two.errors]).toEqual([[], []]);
  driver.close();
});

it('a card whose back end knows no address has that of the front end', async () => {
  const { frontEnd, served, errors } = await connect(new NetworkDevice({ onFrame: () => {} }));
  const driver = new Driver();
  const mac = Uint8Array.of(2, 0, 0, 0, 0, 9);
  const registers = 0xd000_0000;
  const card = await VirtioMmio.attach(calls, frontEnd, {
    memory: driver.space,
    gpa: registers,
    deviceId: 1,
    config: mac,
    features: 1n << BigInt(NETWORK.MAC),
  });
  const read = (offset: number, length: number) => {
    const bytes = new Uint8Array(length);
    driver.space.mmio.read(registers + offset, bytes);
    return bytes;
  };
  const write = (offset: number, value: number) =>
    driver.space.mmio.write(registers + offset, new Uint8Array(Uint32Array.of(value).buffer));
  expect([...read(0x100, 4), ...read(0x104, 2)]).toEqual([...mac]);
  write(0x100, 1);
  expect(read(0x100, 1)).toEqual(mac.subarray(0, 1));
  write(0x14, 0);
  expect(read(0x10, 4)[0]! & (1 << NETWORK.MAC)).not.toBe(0);
  // The driver takes it, and the back end isn't told.
  for (const [select, features] of [
    [0, 1 << NETWORK.MAC],
    [1, 1],
  ] as const) {
    write(0x24, select);
    write(0x20, features);
  }
  write(0x70, 3);
  write(0x70, 11);
  expect(read(0x70, 4)[0]).toBe(11);
  write(0x70, 15);
  await card.settled();
  expect(card.status).toBe(15);
  card.close();
  frontEnd.close();
  await served;
  expect(errors).toEqual([]);
  driver.close();
});
