import { closeSync, ftruncateSync, openSync, readdirSync, readlinkSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { AddressSpace, EventFd, Mapping, UnixConnection } from '../../../lib/index.ts';
import type { KvmCalls } from '../../../lib/raw.ts';
import { Channel, closeAll, type Message } from '../../../lib/vhost-user/channel.ts';
import { DriverQueue, layOut, VhostUserBackEnd, type VirtioDevice } from '../../../lib/vhost-user/index.ts';
import * as codec from '../../../lib/vhost-user/message.ts';
import { bits, FEATURE, MESSAGE_FLAG, PROTOCOL_FEATURE, REQUEST } from '../../../lib/vhost-user/protocol.ts';
import { hostCalls } from '../sharing/host.ts';

const RAM = 0x10_0000;
const GPA = 0x10_0000;
const USER = 0x7f00_0000_0000;
const SIZE = 16;
const LAYOUT = layOut(GPA, SIZE);

/** Answers each chain with how much it could read of it. */
class Echo implements VirtioDevice {
  readonly queues = 2;
  readonly config = new Uint8Array(8);
  handled = 0;
  handle(chain: Parameters<VirtioDevice['handle']>[0]): number {
    this.handled++;
    const bytes = new Uint8Array(Math.min(chain.readableLength, 4096));
    chain.read(0, bytes);
    return chain.write(0, bytes);
  }
}

/** Without the pipe through which the addon copies once it has met memory that can not be touched. */
function openDescriptors(): number {
  return readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return !readlinkSync(`/proc/self/fd/${fd}`).startsWith('pipe:');
    } catch {
      // That of the listing itself.
      return false;
    }
  }).length;
}

let calls: KvmCalls;
let descriptors: number;
let device: Echo;
let errors: Error[];
let peer: Peer;

/** A front end that does whatever it likes. */
class Peer {
  readonly connection: UnixConnection;
  readonly channel: Channel;
  readonly served: Promise<unknown>;

  constructor(timeoutMs = 10_000) {
    const [ours, theirs] = UnixConnection.pair(calls);
    this.connection = ours;
    this.channel = new Channel(ours, 10_000);
    const backEnd = new VhostUserBackEnd(calls, device, { timeoutMs, onError: (error) => errors.push(error) });
    this.served = backEnd.serve(theirs).then(
      () => undefined,
      (error: unknown) => error,
    );
  }

  async ask(
    request: number,
    payload: Uint8Array = codec.NO_PAYLOAD,
    fds: readonly number[] = [],
  ): Promise<Message | undefined> {
    await this.channel.send(request, MESSAGE_FLAG.NEED_REPLY, payload, fds);
    return this.channel.receive();
  }

  /** What a request is confirmed with: 0, or an errno. */
  async ack(request: number, payload?: Uint8Array, fds?: readonly number[]): Promise<number> {
    return Number(codec.decodeU64(request, (await this.ask(request, payload, fds))!.payload));
  }

  async begin(): Promise<this> {
    const features = bits([PROTOCOL_FEATURE.REPLY_ACK, PROTOCOL_FEATURE.LOG_SHMFD, PROTOCOL_FEATURE.INFLIGHT_SHMFD]);
    await this.channel.send(REQUEST.SET_PROTOCOL_FEATURES, 0, codec.encodeU64(features));
    const device = bits([FEATURE.VERSION_1, FEATURE.PROTOCOL_FEATURES, FEATURE.LOG_ALL]);
    expect(await this.ack(REQUEST.SET_FEATURES, codec.encodeU64(device))).toBe(0);
    return this;
  }

  table(change: Partial<codec.TableEntry> = {}): Uint8Array {
    return codec.encodeMemoryTable([{ gpa: GPA, size: RAM, userAddress: USER, mmapOffset: 0, ...change }]);
  }

  /** Everything up to the kick. */
  async setUp(fd: number, rings: Partial<codec.VringAddresses> = {}): Promise<number> {
    expect(await this.ack(REQUEST.SET_MEM_TABLE, this.table(), [fd])).toBe(0);
    expect(await this.ack(REQUEST.SET_VRING_NUM, codec.encodeVringState({ index: 0, num: SIZE }))).toBe(0);
    const at = (gpa: number): number => gpa - GPA + USER;
    const { desc, avail, used } = LAYOUT;
    const addresses = { index: 0, flags: 0, desc: at(desc), avail: at(avail), used: at(used), log: used, ...rings };
    return this.ack(REQUEST.SET_VRING_ADDR, codec.encodeVringAddresses(addresses));
  }

  async start(kick: EventFd): Promise<void> {
    const descriptor = codec.encodeVringDescriptor({ index: 0, hasDescriptor: true });
    expect(await this.ack(REQUEST.SET_VRING_KICK, descriptor, [kick.fd])).toBe(0);
    expect(await this.ack(REQUEST.SET_VRING_ENABLE, codec.encodeVringState({ index: 0, num: 1 }))).toBe(0);
  }
}

beforeEach((test) => {
  calls = hostCalls(test);
  descriptors = openDescriptors();
  device = new Echo();
  errors = [];
  peer = new Peer();
});
afterEach(async () => {
  peer?.channel.close();
  await peer?.served;
  if (calls === undefined) return;
  // The test runner opens files of its own for a moment.
  for (let i = 0; i < 200 && openDescriptors() > descriptors; i++) await delay(50);
  expect(openDescriptors()).toBeLessThanOrEqual(descriptors);
});

/** The memory as the front end sees it. */
function memory() {
  const ram = Mapping.memfd(calls, RAM);
  const space = new AddressSpace({ littleEndian: true, pageSize: 4096 });
  space.addRam(GPA, ram);
  return {
    space,
    ram,
    fd: ram.fd,
    [Symbol.dispose]: () => {
      space.close();
      ram.close();
    },
  };
}

describe('a table', () => {
  it.each<[string, Partial<codec.TableEntry>, number]>([
    ['of half a page', { size: 0x800 }, 22],
    ['at half a page', { gpa: 0x800 }, 22],
    ['of nothing', { size: 0 }, 22],
    ['of more than there are addresses', { size: 2 ** 52 }, 12],
    ['that ends at 2^53', { gpa: 2 ** 53 - 0x1000 }, 22],
    ['whose user addresses overflow', { userAddress: 2 ** 53 - 1 }, 22],
    ['whose file offset is no page', { mmapOffset: 0x10 }, 22],
  ])('%s is refused, and the session goes on', async (_what, change, errno) => {
    using ram = memory();
    await peer.begin();
    expect(await peer.ack(REQUEST.SET_MEM_TABLE, peer.table(change), [ram.fd])).toBe(errno);
    expect(await peer.ack(REQUEST.SET_MEM_TABLE, peer.table(), [ram.fd])).toBe(0);
  });

  it('of regions that overlap is refused, likewise more descriptors than regions, or fewer', async () => {
    using ram = memory();
    await peer.begin();
    const entry = { gpa: GPA, size: RAM, userAddress: USER, mmapOffset: 0 };
    const twice = codec.encodeMemoryTable([entry, { ...entry, gpa: GPA + 0x1000, userAddress: 0 }]);
    expect(await peer.ack(REQUEST.SET_MEM_TABLE, twice, [ram.fd, ram.fd])).toBe(17);
    expect(await peer.ack(REQUEST.SET_MEM_TABLE, peer.table(), [ram.fd, ram.fd])).toBe(71);
    expect(await peer.ack(REQUEST.SET_MEM_TABLE, peer.table(), [])).toBe(71);
    expect(await peer.ack(REQUEST.REM_MEM_REG, codec.encodeMemoryRegion(entry))).toBe(2);
    expect(errors.map(({ message }) => message).join('\n')).toContain('overlaps region [0x100000, 0x200000)');
  });

  it('of a file that is shorter than it says leads to an error and no signal', async () => {
    const fd = calls.memfdCreate('short', 0x1000, 0);
    await peer.begin();
    expect(await peer.setUp(fd)).toBe(0);
    using kick = new EventFd(calls);
    const descriptor = codec.encodeVringDescriptor({ index: 0, hasDescriptor: true });
    expect(await peer.ack(REQUEST.SET_VRING_KICK, descriptor, [kick.fd])).toBe(14);
    calls.close(fd);
  });

  it('of a file that becomes shorter while it is used leads to an error and no signal', async () => {
    const path = join(tmpdir(), `kvm-bridge-shrinks-${process.pid}`);
    writeFileSync(path, new Uint8Array(RAM));
    const fd = openSync(path, 'r+');
    unlinkSync(path);
    using kick = new EventFd(calls);
    using err = new EventFd(calls);
    using call = new EventFd(calls);
    await peer.begin();
    expect(await peer.setUp(fd)).toBe(0);
    const descriptor = codec.encodeVringDescriptor({ index: 0, hasDescriptor: true });
    await peer.ack(REQUEST.SET_VRING_ERR, descriptor, [err.fd]);
    await peer.ack(REQUEST.SET_VRING_CALL, descriptor, [call.fd]);
    await peer.start(kick);
    // It works by copies.
    const written = new AddressSpace({ littleEndian: true, pageSize: 4096 });
    const file = Mapping.file(calls, fd, { size: RAM });
    written.addRam(GPA, file);
    written.writeU64(LAYOUT.desc, GPA + 0x8000, true);
    written.writeU32(LAYOUT.desc + 8, 16, true);
    written.writeU16(LAYOUT.avail + 2, 1, true);
    kick.signal();
    await call.wait();
    expect(device.handled).toBe(1);
    written.close();
    file.close();
    ftruncateSync(fd, 0);
    kick.signal();
    expect(await err.wait()).toBe(1n);
    expect(errors[0]).toMatchObject({ code: 'EFAULT' });
    expect(await peer.ack(REQUEST.SET_OWNER)).toBe(0);
    closeSync(fd);
  });
});

describe('a queue', () => {
  it.each<[string, Partial<codec.VringAddresses>]>([
    ['outside the table', { desc: 0x1000 }],
    ['that begins in a region and ends behind it', { used: USER + RAM - 16 }],
    ['at the last address there is', { avail: 2 ** 53 - 1 }],
  ])('%s is refused', async (_what, rings) => {
    using ram = memory();
    await peer.begin();
    expect(await peer.setUp(ram.fd, rings)).toBe(14);
  });

  it('that there is not, of a wrong size, without addresses, without a kick, or twice, is refused', async () => {
    using ram = memory();
    using kick = new EventFd(calls);
    await peer.begin();
    const size = (index: number, num: number) =>
      peer.ack(REQUEST.SET_VRING_NUM, codec.encodeVringState({ index, num }));
    expect(await size(2, 16)).toBe(71);
    expect(await size(0, 15)).toBe(71);
    expect(await size(0, 2048)).toBe(71);
    expect(await size(0, 0)).toBe(71);
    const descriptor = (hasDescriptor: boolean) => codec.encodeVringDescriptor({ index: 0, hasDescriptor });
    expect(await peer.ack(REQUEST.SET_VRING_KICK, descriptor(true), [kick.fd])).toBe(22);
    expect(await peer.ack(REQUEST.SET_VRING_KICK, descriptor(true), [])).toBe(71);
    expect(await peer.ack(REQUEST.SET_VRING_KICK, descriptor(false), [])).toBe(71);
    // Anything else could be read for ever.
    for (const request of [REQUEST.SET_VRING_KICK, REQUEST.SET_VRING_CALL, REQUEST.SET_VRING_ERR]) {
      expect(await peer.ack(request, descriptor(true), [ram.fd])).toBe(22);
    }
    expect(errors.at(-1)!.message).toContain('is no eventfd, but /memfd:');
    expect(await peer.setUp(ram.fd)).toBe(0);
    await peer.start(kick);
    expect(await peer.ack(REQUEST.SET_VRING_KICK, descriptor(true), [kick.fd])).toBe(16);
    expect(await size(0, 16)).toBe(71);
  });

  it('whose driver breaks the rules stops with an error, signals it, and can be started anew', async () => {
    using ram = memory();
    using kick = new EventFd(calls);
    using err = new EventFd(calls);
    await peer.begin();
    await peer.setUp(ram.fd);
    const descriptor = codec.encodeVringDescriptor({ index: 0, hasDescriptor: true });
    await peer.ack(REQUEST.SET_VRING_ERR, descriptor, [err.fd]);
    await peer.start(kick);
    // A loop of one.
    ram.space.writeU64(LAYOUT.desc, GPA, true);
    ram.space.writeU32(LAYOUT.desc + 8, 1, true);
    ram.space.writeU16(LAYOUT.desc + 12, 1, true);
    ram.space.writeU16(LAYOUT.avail + 2, 1, true);
    kick.signal();
    expect(await err.wait()).toBe(1n);
    expect(errors[0]!.message).toContain('it is a loop');
    // What a chain names outside memory.
    const queue = new DriverQueue<number>(ram.space, LAYOUT);
    expect(await peer.setUp(ram.fd)).toBe(0);
    await peer.start(kick);
    queue.add([{ gpa: 0x1000, length: 16 }], [{ gpa: GPA + 0x8000, length: 16 }], 1);
    queue.publish();
    kick.signal();
    expect(await err.wait()).toBe(1n);
    expect(errors[1]).toMatchObject({ code: 'EFAULT', gpa: 0x1000 });
  });

  it('whose memory goes while it runs stops', async () => {
    using ram = memory();
    using kick = new EventFd(calls);
    await peer.begin();
    await peer.setUp(ram.fd);
    await peer.start(kick);
    expect(await peer.ack(REQUEST.SET_MEM_TABLE, codec.encodeMemoryTable([]))).toBe(0);
    expect(errors[0]!.message).toContain('the table has no regions');
    kick.signal();
    expect(await peer.ack(REQUEST.SET_OWNER)).toBe(0);
    expect(device.handled).toBe(0);
  });
});

it('a log that is shorter than it says is refused, and one without a bit for a page that is written stops the queue', async () => {
  using ram = memory();
  using kick = new EventFd(calls);
  using err = new EventFd(calls);
  await peer.begin();
  const log = calls.memfdCreate('log', 0x1000, 0);
  const area = (size: number, offset = 0) => codec.encodeLogArea({ size, offset });
  const set = async (payload: Uint8Array, fds: readonly number[]) => peer.ack(REQUEST.SET_LOG_BASE, payload, fds);
  expect(await set(area(0), [log])).toBe(71);
  expect(await set(area(0x1000), [])).toBe(71);
  // Longer than its file.
  expect(await set(area(0x2000), [log])).toBe(13);
  expect(await set(area(8), [log])).toBe(0);
  await peer.setUp(ram.fd);
  await peer.ack(REQUEST.SET_VRING_ERR, codec.encodeVringDescriptor({ index: 0, hasDescriptor: true }), [err.fd]);
  await peer.start(kick);
  // The used ring is in page 0x102.
  expect(await err.wait(timeout(10_000))).toBe(1n);
  expect(errors.at(-1)?.message).toContain('lies beyond the log, which has bits for 0x40');
  calls.close(log);
});

const timeout = (ms: number) => ({ signal: AbortSignal.timeout(ms) });

describe('a front end that closes', () => {
  it('before it is answered ends its session', async () => {
    const [ours, theirs] = UnixConnection.pair(calls);
    await ours.send(codec.encodeMessage(REQUEST.GET_FEATURES, 0, codec.NO_PAYLOAD));
    ours.close();
    await new VhostUserBackEnd(calls, device).serve(theirs);
  });

  it('without reading its answer ends its session', async () => {
    await peer.channel.send(REQUEST.GET_FEATURES, 0, codec.NO_PAYLOAD);
    await peer.connection.receive(new Uint8Array(1), []);
    peer.connection.close();
    expect(await peer.served).toBe(undefined);
  });
});

it.each<[string, (peer: Peer) => Promise<unknown>, string]>([
  ['closes in the middle of a header', (to) => to.connection.send(new Uint8Array(5)), 'ECONNRESET'],
  [
    'closes in the middle of a payload',
    (to) => to.connection.send(codec.encodeMessage(REQUEST.SET_FEATURES, 0, new Uint8Array(8)).subarray(0, 16)),
    'ECONNRESET',
  ],
  [
    'sends a payload of a megabyte',
    (to) => to.connection.send(Uint8Array.of(2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 16, 0)),
    'EPROTO',
  ],
  ['sends what is no request', (to) => to.channel.send(99, 0, codec.NO_PAYLOAD), 'EPROTO'],
  ['sends a reply', (to) => to.channel.send(1, MESSAGE_FLAG.REPLY, codec.NO_PAYLOAD), 'EPROTO'],
  ['takes what is not offered', (to) => to.channel.send(REQUEST.SET_FEATURES, 0, codec.encodeU64(1n << 60n)), 'EPROTO'],
])('a session with a peer that %s ends with the reason', async (_what, act, code) => {
  await act(peer);
  peer.channel.close();
  expect(await peer.served).toMatchObject({ code });
});

it('a session with a peer that sends half a message and waits ends in time', async () => {
  const slow = new Peer(50);
  await slow.connection.send(new Uint8Array(5));
  expect(await slow.served).toMatchObject({ code: 'ETIMEDOUT' });
  slow.channel.close();
});

it('any sequence of messages ends in answers or the end of the session, and leaves nothing behind', async () => {
  using ram = memory();
  const requests = [...Object.values(REQUEST), 0, 4, 99, 2 ** 32 - 1];
  const message = fc.record({
    request: fc.constantFrom(...requests),
    payload: fc.oneof(
      fc.uint8Array({ maxLength: 48 }),
      fc.constant(peer.table()),
      fc.constant(codec.encodeVringState({ index: 0, num: SIZE })),
      fc.constant(codec.encodeLogArea({ size: 0x1000, offset: 0 })),
      fc.constant(codec.encodeInflight({ size: 0, offset: 0, queues: 1, queueSize: 16 })),
      fc.constant(codec.encodeVringDescriptor({ index: 1, hasDescriptor: true })),
    ),
    fds: fc.nat({ max: 9 }),
  });
  const isHarmless = fc.asyncProperty(fc.array(message, { maxLength: 12 }), async (messages) => {
    const before = openDescriptors();
    const each = await new Peer().begin();
    const answers = (async () => {
      for (;;) {
        const answer = await each.channel.receive().catch(() => undefined);
        if (answer === undefined) return;
        closeAll(answer.descriptors);
      }
    })();
    for (const { request, payload, fds } of messages) {
      await each.channel.send(request, MESSAGE_FLAG.NEED_REPLY, payload, Array(fds).fill(ram.fd)).catch(() => {});
    }
    await new Promise((resolve) => setTimeout(resolve, 1));
    each.channel.close();
    await Promise.all([each.served, answers]);
    expect(openDescriptors()).toBeLessThanOrEqual(before);
  });
  await fc.assert(isHarmless, { numRuns: 25 });
});
