import type { Machine } from './attacked-machine.ts';
import { UNIT } from './attacked-machine.ts';
import type { Face } from './surface.ts';

const bytes = (length: number): Uint8Array => new Uint8Array(length);
const key = { acc: 0, fetchProtection: false, reference: false, change: false };
const logical = { key: 0, ar: 0, inject: false };

/** What only s390x has. */
export const S390X: Readonly<Record<string, Face<Machine>>> = {
  'vm.s390x': {
    of: ({ vm }) => vm.s390x,
    methods: { absoluteMemory: null, setMemoryLimit: () => ({ bytes: UNIT }) },
  },
  'vm.s390x.absoluteMemory()': {
    of: ({ vm }) => vm.s390x.absoluteMemory(),
    methods: { readDoubleword: () => ({ pfn: 0, offset: 8 }), hasFrame: () => ({ pfn: 0 }) },
  },
  'vm.memOp': {
    of: ({ vm }) => vm.memOp,
    methods: {
      readAbsolute: () => ({ gaddr: 0, into: 8, options: { key: 0 } }),
      writeAbsolute: () => ({ gaddr: 0, bytes: bytes(8), options: { key: 0 } }),
      checkAbsolute: () => ({ gaddr: 0, size: 8, access: 'fetch', options: { key: 0 } }),
      compareExchange: () => ({ gaddr: 0, options: { key: 0, expected: bytes(8), replacement: bytes(8) } }),
    },
  },
  'vm.storageKeys': {
    of: ({ vm }) => vm.storageKeys,
    methods: {
      getBytes: () => ({ startGfn: 0, count: 8 }),
      get: () => ({ startGfn: 0, count: 8 }),
      setBytes: () => ({ startGfn: 0, keys: bytes(8) }),
      set: () => ({ startGfn: 0, keys: [key, key] }),
      iske: () => ({ gaddr: 0 }),
      rrbe: () => ({ gaddr: 0 }),
      sske: () => ({ gaddr: 0, key }),
      copyTo: ({ other }) => ({ target: other }),
    },
  },
  'vm.cmma': {
    of: ({ vm }) => vm.cmma,
    methods: {
      enable: null,
      reset: null,
      startMigration: null,
      stopMigration: null,
      peek: () => ({ startGfn: 0, count: 8 }),
      harvest: () => ({ startGfn: 0, count: 8 }),
      set: () => ({ startGfn: 0, values: bytes(8), mask: 0x43 }),
      copyTo: ({ other }) => ({ target: other }),
    },
  },
  'vcpu.s390x': {
    of: ({ vcpu }) => vcpu.s390x,
    methods: {
      initialReset: null,
      normalReset: null,
      clearReset: null,
      cpuState: () => ({ facilities: { edat1: true, edat2: true, iep: true } }),
      setInitialPsw: () => ({ mask: 0, address: 0 }),
    },
  },
  'vcpu.memOp': {
    of: ({ vcpu }) => vcpu.memOp,
    methods: {
      read: () => ({ gaddr: 0, into: 8, options: logical }),
      write: () => ({ gaddr: 0, bytes: bytes(8), options: logical }),
      check: () => ({ gaddr: 0, size: 8, access: 'fetch', options: logical }),
    },
  },
};
