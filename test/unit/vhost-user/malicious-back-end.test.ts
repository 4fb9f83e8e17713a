import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { AddressSpace, EventFd, Mapping, UnixListener } from '../../../lib/index.ts';
import type { KvmCalls } from '../../../lib/raw.ts';
import { Channel, closeAll, type Message } from '../../../lib/vhost-user/channel.ts';
import { BlockDriver, layOut, VhostUserFrontEnd } from '../../../lib/vhost-user/index.ts';
import * as codec from '../../../lib/vhost-user/message.ts';
import { bits, FEATURE, MESSAGE_FLAG, PROTOCOL_FEATURE, REQUEST } from '../../../lib/vhost-user/protocol.ts';
import { hostCalls, openDescriptors, remainingDescriptors } from '../sharing/host.ts';

const GPA = 0x10_0000;
const RAM = 0x20_0000;

type Answer = Uint8Array | 'silent' | 'close';
type Script = Partial<Record<number, (message: Message) => Answer | undefined>>;

const ALL = bits(Object.values(FEATURE)) & ~bits([FEATURE.ACCESS_PLATFORM]);
const PROTOCOL = bits(Object.values(PROTOCOL_FEATURE));
const u64 = (value: number | bigint) => () => codec.encodeU64(BigInt(value));

/** What a back end that keeps to the rules answers. */
const HONEST: Script = {
  [REQUEST.GET_FEATURES]: u64(ALL),
  [REQUEST.GET_PROTOCOL_FEATURES]: u64(PROTOCOL),
  [REQUEST.GET_QUEUE_NUM]: u64(1),
  [REQUEST.GET_MAX_MEM_SLOTS]: u64(8),
  [REQUEST.GET_CONFIG]: ({ payload }) => {
    new DataView(payload.buffer, payload.byteOffset).setBigUint64(12, 100n, true);
    return payload;
  },
  [REQUEST.SET_LOG_BASE]: u64(0),
  [REQUEST.GET_VRING_BASE]: ({ payload }) => payload,
};

let calls: KvmCalls;
let folder: string;
let listener: UnixListener;
let descriptors: number;
let kicks: EventFd[];
let callFds: EventFd[];

beforeEach((test) => {
  calls = hostCalls(test);
  descriptors = openDescriptors();
  folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-peer-'));
  listener = UnixListener.listen(calls, join(folder, 'peer.sock'));
  kicks = [];
  callFds = [];
});
afterEach(async () => {
  listener?.close();
  for (const each of [...(kicks ?? []), ...(callFds ?? [])]) each.close();
  if (folder !== undefined) rmSync(folder, { recursive: true });
  if (calls !== undefined) expect(await remainingDescriptors(descriptors)).toBeLessThanOrEqual(descriptors);
});

/** Answers one front end by a script, and by the rules where that says nothing. */
async function play(script: Script): Promise<void> {
  const channel = new Channel(await listener.accept(), 10_000);
  try {
    for (let message = await channel.receive(); message !== undefined; message = await channel.receive()) {
      const { request, needsReply } = message;
      if (request === REQUEST.SET_VRING_KICK) kicks.push(new EventFd(calls, message.descriptors.pop()!));
      if (request === REQUEST.SET_VRING_CALL) callFds.push(new EventFd(calls, message.descriptors.pop()!));
      closeAll(message.descriptors);
      const answer =
        script[request]?.(message) ?? HONEST[request]?.(message) ?? (needsReply ? codec.encodeU64(0n) : undefined);
      if (answer === 'close') return;
      if (answer !== undefined && answer !== 'silent') await channel.send(request, MESSAGE_FLAG.REPLY, answer);
    }
  } catch {
    // The front end has had enough.
  } finally {
    channel.close();
  }
}

const connect = (timeoutMs = 10_000) => VhostUserFrontEnd.connect(calls, listener.path, { timeoutMs });

function makeSpace(): AddressSpace {
  const space = new AddressSpace({ littleEndian: true, pageSize: 4096 });
  const ram = Mapping.memfd(calls, RAM);
  space.addRam(GPA, ram);
  ram.close();
  return space;
}

describe('connecting to a back end', () => {
  it.each<[string, Script, string]>([
    ['that never answers', { [REQUEST.GET_FEATURES]: () => 'silent' }, 'ETIMEDOUT'],
    ['that closes', { [REQUEST.GET_PROTOCOL_FEATURES]: () => 'close' }, 'ECONNRESET'],
    ['whose features are seven bytes', { [REQUEST.GET_FEATURES]: () => new Uint8Array(7) }, 'EPROTO'],
    ['that is older than virtio 1.0', { [REQUEST.GET_FEATURES]: u64(1n << 30n) }, 'EOPNOTSUPP'],
    ['that refuses its owner', { [REQUEST.SET_OWNER]: u64(22) }, 'EIO'],
  ])('%s fails with the reason, in time', async (_what, script, code) => {
    const played = play(script);
    await expect(connect(code === 'ETIMEDOUT' ? 100 : 10_000)).rejects.toMatchObject({ code });
    await played;
  });

  it('that says more than it was asked ends the connection', async () => {
    const played = (async () => {
      const channel = new Channel(await listener.accept());
      await channel.receive();
      for (let i = 0; i < 2; i++) await channel.send(REQUEST.GET_FEATURES, MESSAGE_FLAG.REPLY, codec.encodeU64(ALL));
      while ((await channel.receive().catch(() => undefined)) !== undefined);
      channel.close();
    })();
    await expect(connect()).rejects.toMatchObject({ code: 'EPROTO' });
    await played;
  });

  it('that says it takes 2^64 regions and queues is not believed', async () => {
    const lies = { [REQUEST.GET_QUEUE_NUM]: u64(2n ** 64n - 1n), [REQUEST.GET_MAX_MEM_SLOTS]: u64(2n ** 64n - 1n) };
    const played = play(lies);
    using frontEnd = await connect();
    expect(frontEnd).toMatchObject({ queues: 256, maxRegions: 4096 });
    frontEnd.close();
    await played;
  });
});

describe('a front end', () => {
  it('whose back end refuses memory gives everything back, and says why', async () => {
    const played = play({ [REQUEST.ADD_MEM_REG]: u64(12) });
    using space = makeSpace();
    const frontEnd = await connect();
    await expect(frontEnd.share(space)).rejects.toMatchObject({
      code: 'EIO',
      explanation: 'the back end refuses, with 12',
    });
    expect(await frontEnd.ended).toMatchObject({ code: 'EIO' });
    expect(space.users).toEqual([]);
    const [region] = [...space.regions()];
    expect(region).toMatchObject({ mapping: { pins: 1 } });
    await played;
  });

  it('keeps memory that was removed until the back end lets it go, and has what may not be shared refused', async () => {
    let isAsked = () => {};
    const asked = new Promise<void>((resolve) => {
      isAsked = resolve;
    });
    const played = play({
      [REQUEST.REM_MEM_REG]: () => {
        isAsked();
        return 'silent';
      },
    });
    using space = makeSpace();
    const frontEnd = await connect(2000);
    await frontEnd.share(space);
    expect(() => space.addRam(0x4000_0000, Mapping.anonymous(calls, RAM))).toThrow(
      /anonymous memory, of which another/,
    );
    const extra = Mapping.memfd(calls, RAM);
    const region = space.addRam(0x4000_0000, extra);
    await frontEnd.settled();
    extra.close();
    region.remove();
    await asked;
    // Closed and without a region, it is still there: the other may write to it.
    expect(extra.read(0, new Uint8Array(1))).toBe(1);
    expect(await frontEnd.ended).toMatchObject({ code: 'ETIMEDOUT' });
    expect(extra.read(0, new Uint8Array(1))).toBe(0);
    await played;
  });

  it('refuses queues that are nowhere, and answers that are too short', async () => {
    const played = play({
      [REQUEST.GET_CONFIG]: () => codec.encodeConfig({ offset: 0, size: 8, flags: 0, bytes: codec.NO_PAYLOAD }),
    });
    using space = makeSpace();
    using frontEnd = await connect();
    await frontEnd.share(space);
    using kick = new EventFd(calls);
    using call = new EventFd(calls);
    await expect(frontEnd.startQueue(0, { ...layOut(0x1000, 16), kick, call })).rejects.toMatchObject({
      code: 'EFAULT',
    });
    await expect(frontEnd.startQueue(1, { ...layOut(GPA, 16), kick, call })).rejects.toMatchObject({
      code: 'ERR_OUT_OF_RANGE',
    });
    await expect(frontEnd.readConfig(0, 8)).rejects.toMatchObject({ code: 'EIO' });
    frontEnd.close();
    await played;
  });
});

describe('a disk', () => {
  async function inUse() {
    const played = play({});
    const space = makeSpace();
    const frontEnd = await connect();
    const disk = await BlockDriver.start(calls, frontEnd, space, { area: GPA, queueSize: 16 });
    const layout = layOut(GPA, 16);
    const request = disk.read(0, GPA + 0x10_0000, 512).then(
      () => undefined,
      (error: unknown) => error,
    );
    await kicks[0]!.wait();
    return { played, space, frontEnd, disk, layout, request };
  }

  it.each([
    ['gives back what it never got', 7, 1, 1],
    ['gives back more than it got', 0, 1, 9],
    ['says it wrote more than there was room for', 0, 0xffff_ffff, 1],
  ])('whose back end %s fails with the reason', async (_what, id, written, index) => {
    const { played, space, frontEnd, disk, layout, request } = await inUse();
    space.writeU32(layout.used + 4, id, true);
    space.writeU32(layout.used + 8, written, true);
    space.writeU16(layout.used + 2, index, true);
    callFds[0]!.signal();
    expect(await request).toMatchObject({ code: 'EPROTO', syscall: 'virtqueue' });
    await expect(disk.flush()).rejects.toMatchObject({ code: 'EPROTO' });
    frontEnd.close();
    space.close();
    await played;
  });

  it('whose back end goes fails all that waits for it', async () => {
    const { played, space, frontEnd, disk, request } = await inUse();
    const others = Array.from({ length: 10 }, () => disk.flush().catch((error: unknown) => error));
    frontEnd.close();
    for (const failure of [request, ...others]) expect(await failure).toMatchObject({ code: 'EBADF' });
    space.close();
    await played;
  });
});
