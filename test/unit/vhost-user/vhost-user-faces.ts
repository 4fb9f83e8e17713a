import { Descriptor } from '../../../lib/index.ts';
import type { KvmCalls } from '../../../lib/raw.ts';
import {
  BlockDevice,
  BlockDriver,
  Chain,
  DeviceQueue,
  DriverQueue,
  layOut,
  NetworkDevice,
  PageLog,
  VhostUserBackEnd,
  VhostUserFrontEnd,
  VirtioMmio,
} from '../../../lib/vhost-user/index.ts';
import type { Functions } from '../handles/functions/table.ts';
import type { Face } from '../handles/surface.ts';
import { closing, construct } from '../sharing/sharing-functions.ts';
import { file, LAYOUT, type Served } from './attacked-vhost-user.ts';
import { guestMemory } from './memory.ts';

const bytes = (length: number): Uint8Array => new Uint8Array(length);
const features = (_: unknown) => ({ features: 0n });

/** Both ends of devices in other processes. */
export const VHOST_USER: Readonly<Record<string, Face<Served>>> = {
  frontEnd: {
    of: ({ frontEnd }) => frontEnd,
    methods: {
      close: null,
      settled: null,
      stopLog: null,
      reset: null,
      negotiate: features,
      share: ({ space }) => ({ space }),
      isSharing: ({ space }) => ({ space }),
      startQueue: ({ kick, call }) => ({ index: 0, start: { ...LAYOUT, kick, call, base: 0 } }),
      stopQueue: () => ({ index: 0 }),
      startLog: () => ({ options: { table: false } }),
      readConfig: () => ({ offset: 0, size: 8 }),
      writeConfig: () => ({ offset: 0, bytes: bytes(8) }),
      onConfigChange: () => ({ listener: () => {} }),
      setStatus: () => ({ status: 0 }),
      getInflight: () => ({ queues: 1, queueSize: 16 }),
      setInflight: ({ descriptor }) => ({ inflight: { descriptor, size: 4096, offset: 0, queues: 1, queueSize: 16 } }),
    },
  },
  backEnd: {
    of: ({ backEnd }) => backEnd,
    methods: { close: null, configChanged: null, serve: ({ pair: [connection] }) => ({ connection }) },
  },
  driver: {
    of: ({ driver }) => driver,
    methods: {
      flush: null,
      stop: null,
      read: () => ({ sector: 0, gpa: 0x1000, length: 512 }),
      write: () => ({ sector: 0, gpa: 0x1000, length: 512 }),
    },
  },
  registers: { of: ({ registers }) => registers, methods: { close: null, settled: null } },
  disk: { of: ({ device }) => device, methods: { handle: ({ chain }) => ({ chain }) } },
  card: {
    of: ({ card }) => card,
    methods: {
      reset: null,
      send: () => ({ frame: bytes(64) }),
      handle: ({ chain }) => ({ chain, queue: 1 }),
      // Called with the queue's own number.
      stopping: null,
    },
  },
  log: {
    of: ({ log }) => log,
    methods: { close: null, mark: () => ({ first: 0, end: 1 }), take: () => ({ each: () => {} }) },
  },
  deviceQueue: {
    of: ({ deviceQueue }) => deviceQueue,
    methods: {
      take: null,
      needsCall: null,
      resume: () => ({ head: 3 }),
      complete: ({ chain }) => ({ chain, written: 0 }),
      leave: ({ chain }) => ({ chains: [chain] }),
      setKicks: () => ({ wanted: true }),
    },
  },
  driverQueue: {
    of: ({ driverQueue }) => driverQueue,
    methods: {
      take: null,
      publish: null,
      // Its token is whatever the caller likes.
      add: () => ({
        readable: [{ gpa: 0x4008_0000, length: 16 }],
        writable: [{ gpa: 0x4008_1000, length: 16 }],
      }),
    },
  },
  chain: {
    of: ({ chain }) => chain,
    methods: {
      read: () => ({ offset: 0, into: bytes(8) }),
      write: () => ({ offset: 0, from: bytes(8) }),
      writablePieces: () => ({ offset: 0, length: 8 }),
    },
  },
};

const device = { queues: 1, maxQueueSize: 16, features: 0n, config: bytes(8), handle: () => 0, writeConfig: () => {} };
const segment = { gpa: 0x4008_0000, length: 16 };
const options = { eventIdx: true, indirect: true, base: 0 };

/** Constructors and statics. */
export function vhostUserFunctions(addon: KvmCalls, served: Served): Functions {
  const calls = Object.create(addon) as KvmCalls;
  const memory = guestMemory();
  const { end: _, ...layout } = layOut(0x4000_0000, 16);
  const { frontEnd, driven, space, path, ram } = served;
  let lent: Descriptor | undefined;
  const lend = (): Descriptor => {
    lent?.close();
    lent = Descriptor.duplicate(addon, ram.fd);
    return lent;
  };
  return {
    layOut: [layOut, () => ({ gpa: 0, size: 16 })],
    'new Chain': [
      construct(Chain),
      () => ({ memory, head: 0, direct: 1, readable: [{ ...segment }], writable: [{ ...segment }] }),
    ],
    'new DeviceQueue': [construct(DeviceQueue), () => ({ memory, layout: { ...layout }, options: { ...options } })],
    'new DriverQueue': [construct(DriverQueue), () => ({ memory, layout: { ...layout }, options: { ...options } })],
    'new BlockDevice': [construct(BlockDevice), () => ({ file, options: { size: 512, readOnly: true, id: 'x' } })],
    'new NetworkDevice': [
      construct(NetworkDevice),
      () => ({ options: { onFrame: () => {}, mac: bytes(6), backlog: 8 } }),
    ],
    'new PageLog': [construct(PageLog), () => ({ mapping: ram, offset: 0, size: 4096 })],
    'PageLog.received': [
      closing((area: never, of: never) => PageLog.received(calls, area, of)),
      () => ({ area: { size: 4096, offset: 0 }, descriptor: lend() }),
    ],
    'new VhostUserBackEnd': [
      closing(construct(VhostUserBackEnd)),
      () => ({ calls, device: { ...device }, options: { timeoutMs: 10, onError: () => {} } }),
    ],
    'VhostUserFrontEnd.connect': [
      closing(VhostUserFrontEnd.connect),
      () => ({ calls, path, options: { timeoutMs: 1000, queues: 1, signal: new AbortController().signal } }),
    ],
    'BlockDriver.areaSize': [BlockDriver.areaSize, () => ({ queueSize: 16 })],
    'BlockDriver.start': [
      closing(BlockDriver.start),
      () => ({ calls, frontEnd: driven, memory: space, options: { area: 0x8_0000, queueSize: 16 } }),
    ],
    'VirtioMmio.attach': [
      closing(VirtioMmio.attach),
      () => ({
        calls,
        frontEnd,
        options: {
          memory: space,
          gpa: 0x2000_0000,
          deviceId: 2,
          configSize: 8,
          config: bytes(8),
          features: 0n,
          maxQueueSize: 16,
          interrupt: () => {},
          gsi: 5,
        },
      }),
    ],
  };
}
