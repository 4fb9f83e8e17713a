import type { Face } from '../handles/surface.ts';
import { ADDRESS_SPACE, BINDING, EVENT_FD, HANDLE, MAPPING } from '../handles/typed-faces.ts';
import type { Sharing } from './attacked-sharing.ts';

const bytes = (length: number): Uint8Array => new Uint8Array(length);
const signal = (): AbortSignal => new AbortController().signal;

/** What every socket and descriptor has, and the address spaces and bindings that are shared. */
export const SHARING: Readonly<Record<string, Face<Sharing>>> = {
  'space (shared)': {
    of: ({ space }) => space,
    methods: { ...ADDRESS_SPACE, accept: ({ one }) => ({ connection: one }) },
  },
  'space (alone)': {
    of: ({ alone }) => alone,
    methods: {
      ...Object.fromEntries(Object.keys(ADDRESS_SPACE).map((name) => [name, null])),
      share: ({ calls }) => ({
        options: { calls, regions: 4, consumers: 4, end: 2 ** 32, patienceMs: 10, onConsumer: () => {} },
      }),
      accept: ({ one }) => ({ connection: one }),
      settled: () => ({ options: { timeoutMs: 1 } }),
    },
  },
  'binding (of this thread)': { of: ({ binding }) => binding, methods: BINDING },
  'binding (attached)': { of: ({ attached }) => attached, methods: BINDING },
  'binding (of a vCPU in a worker)': {
    of: ({ guest }) => guest,
    methods: {
      ...Object.fromEntries(Object.keys(BINDING).map((name) => [name, null])),
      addMmio: () => ({
        gpa: 0x1000_0000,
        size: 8,
        handlers: { read: () => 1, write: () => {}, littleEndian: true },
        options: { name: 'x' },
      }),
      answerGuest: null,
    },
  },
  vmap: {
    of: ({ vmap }) => vmap,
    methods: { flush: null, release: null, changing: null, revoke: null, revokeAll: null, dropViews: null },
  },
  connection: {
    of: ({ one }) => one,
    methods: {
      ...HANDLE,
      send: ({ eventfd }) => ({ bytes: bytes(8), descriptors: [eventfd.fd] }),
      receive: ({ made }) => ({ into: bytes(8), descriptors: made.descriptors, options: { signal: signal() } }),
      receiveAll: ({ made }) => ({ into: bytes(8), descriptors: made.descriptors, options: { signal: signal() } }),
    },
  },
  listener: {
    of: ({ listener }) => listener,
    methods: { ...HANDLE, accept: () => ({ options: { signal: signal() } }) },
  },
  descriptor: { of: ({ descriptor }) => descriptor, methods: HANDLE },
  'eventfd (native)': { of: ({ eventfd }) => eventfd, methods: EVENT_FD },
  'mapping (memfd)': { of: ({ spare }) => spare, methods: MAPPING },
};
