import { mkdtempSync, rmSync } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AddressSpace, Descriptor, EventFd, Mapping, UnixConnection, UnixListener } from '../../../lib/index.ts';
import type { KvmCalls } from '../../../lib/raw.ts';
import {
  BlockDevice,
  BlockDriver,
  type Chain,
  DeviceQueue,
  DriverQueue,
  layOut,
  NetworkDevice,
  PageLog,
  VhostUserBackEnd,
  VhostUserFrontEnd,
  VirtioMmio,
} from '../../../lib/vhost-user/index.ts';
import type { Arena } from '../handles/attack.ts';
import { guestMemory } from './memory.ts';

export const RAM = 0x10_0000;
export const LAYOUT = { size: 16, desc: layOut(0, 16).desc, avail: layOut(0, 16).avail, used: layOut(0, 16).used };

/** A file that holds nothing. */
export const file = {
  read: async () => ({ bytesRead: 0 }),
  write: async (_bytes: unknown, _at: number, length: number) => ({ bytesWritten: length }),
  datasync: async () => {},
} as unknown as FileHandle;

/** A disk that is served in this process, and everything of both ends. */
export interface Served {
  readonly calls: KvmCalls;
  readonly folder: string;
  readonly path: string;
  readonly ram: Mapping;
  readonly space: AddressSpace;
  readonly listener: UnixListener;
  readonly device: BlockDevice;
  readonly card: NetworkDevice;
  readonly backEnd: VhostUserBackEnd;
  readonly frontEnd: VhostUserFrontEnd;
  /** Another, which has a driver and the registers. */
  readonly driven: VhostUserFrontEnd;
  readonly driver: BlockDriver;
  readonly registers: VirtioMmio;
  readonly log: PageLog;
  readonly kick: EventFd;
  readonly call: EventFd;
  readonly descriptor: Descriptor;
  readonly pair: readonly [UnixConnection, UnixConnection];
  readonly deviceQueue: DeviceQueue;
  readonly driverQueue: DriverQueue<string>;
  readonly chain: Chain;
  readonly over: { closed: boolean };
}

/** Rings in memory of their own, with two chains, of which the device has taken one. */
function queues(): Pick<Served, 'deviceQueue' | 'driverQueue' | 'chain'> {
  const memory = guestMemory();
  const { end: _, ...layout } = layOut(0x4000_0000, 16);
  const driverQueue = new DriverQueue<string>(memory, layout);
  for (const token of ['first', 'second']) {
    driverQueue.add([{ gpa: 0x4008_0000, length: 16 }], [{ gpa: 0x4008_1000, length: 512 }], token);
  }
  driverQueue.publish();
  const deviceQueue = new DeviceQueue(memory, layout, { indirect: true });
  return { deviceQueue, driverQueue, chain: deviceQueue.take()! };
}

async function make(calls: KvmCalls): Promise<Served> {
  const folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-'));
  const path = join(folder, 'disk');
  const ram = Mapping.memfd(calls, RAM);
  const space = new AddressSpace({ littleEndian: true, pageSize: 4096 });
  space.addRam(0, ram);
  const device = new BlockDevice(file, { size: 0x10_0000 });
  const backEnd = new VhostUserBackEnd(calls, device);
  const listener = UnixListener.listen(calls, path);
  void (async () => {
    for await (const connection of listener) void backEnd.serve(connection).catch(() => {});
  })();
  const frontEnd = await VhostUserFrontEnd.connect(calls, path);
  await frontEnd.negotiate(frontEnd.features);
  await frontEnd.share(space);
  const driven = await VhostUserFrontEnd.connect(calls, path);
  const driver = await BlockDriver.start(calls, driven, space, { area: 0x8_0000, queueSize: 16 });
  const registers = await VirtioMmio.attach(calls, frontEnd, { memory: space, gpa: 0x1000_0000, deviceId: 2 });
  return {
    calls,
    folder,
    path,
    ram,
    space,
    listener,
    device,
    card: new NetworkDevice({ onFrame: () => {} }),
    backEnd,
    frontEnd,
    driven,
    driver,
    registers,
    log: new PageLog(Mapping.memfd(calls, 4096), 0, 4096),
    kick: new EventFd(calls),
    call: new EventFd(calls),
    descriptor: Descriptor.duplicate(calls, ram.fd),
    pair: UnixConnection.pair(calls),
    ...queues(),
    over: { closed: false },
  };
}

function close(served: Served): void {
  const { folder, ram, space, listener, backEnd, frontEnd, driven, registers, log, kick, call, descriptor, pair } =
    served;
  registers.close();
  for (const open of [frontEnd, driven, backEnd, listener, log, kick, call, descriptor, ...pair, space, ram])
    open.close();
  rmSync(folder, { recursive: true, force: true });
  served.over.closed = true;
}

export function arenaOf(calls: KvmCalls): Arena<Served> {
  return {
    make: () => make(calls),
    close: (served) => {
      if (!served.over.closed) close(served);
    },
    // A request that is refused ends a connection.
    state: ({ kick, call, space, deviceQueue, driverQueue, card, log }) => ({
      closed: [kick, call].map(({ closed }) => closed),
      regions: [...space.regions()].map(String),
      queues: [deviceQueue.inFlight, deviceQueue.base, driverQueue.inFlight, driverQueue.room],
      dropped: card.dropped,
      log: log.size,
    }),
    verify: ({ space }, works) => {
      if (!works || space.closed || space.find(0) === undefined) return;
      space.writeU32(0xf_0000, 0x1234_5678);
      if (space.readU32(0xf_0000) !== 0x1234_5678) throw new Error('memory does not hold what was written');
    },
    leftOf: () => undefined,
    patience: 50,
    sabotage: {
      'closes the front end': ({ frontEnd }) => frontEnd.close(),
      'closes the back end': ({ backEnd }) => backEnd.close(),
      'closes the space': ({ space }) => space.close(),
      'closes everything': close,
    },
  };
}
