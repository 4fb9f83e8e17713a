import { vrmaSegment } from '../../../lib/arch/ppc64/model/index.ts';
import type { Arch } from '../../../lib/raw.ts';
import type { Machine } from './attacked-machine.ts';
import { RAM, UNIT } from './attacked-machine.ts';
import type { Face } from './surface.ts';

export type Faces = Readonly<Record<string, Face<Machine>>>;

/** What every handle has, of which nothing takes a user's arguments. */
export const HANDLE = {
  close: null,
  check: null,
  checkIoctl: null,
  failure: null,
  fdClosed: null,
  giveUp: null,
  unmapLater: null,
  untilReady: null,
};

export const EVENT_FD: Face<unknown>['methods'] = {
  ...HANDLE,
  hold: null,
  letGo: null,
  read: null,
  signal: () => ({ by: 1 }),
  wait: () => ({ options: { signal: new AbortController().signal } }),
};

const bytes = (length: number): Uint8Array => new Uint8Array(length);

export const GUEST_MEMORY: Face<Pick<Machine, 'ram'>>['methods'] = {
  translate: () => ({ gpa: 0 }),
  gpasOf: ({ ram }) => ({ hva: ram.hva }),
  markDirty: () => ({ gpa: 0, length: 8 }),
  dropViews: null,
  ...Object.fromEntries(
    ['U8', 'I8'].flatMap((type) => [
      [`read${type}`, () => ({ gpa: 0 })],
      [`write${type}`, () => ({ gpa: 0, value: 1 })],
    ]),
  ),
  ...Object.fromEntries(
    ['U16', 'I16', 'U32', 'I32', 'U64', 'I64'].flatMap((type) => [
      [`read${type}`, () => ({ gpa: 0, littleEndian: true })],
      [`write${type}`, () => ({ gpa: 0, value: 1, littleEndian: true })],
    ]),
  ),
  readU64Number: () => ({ gpa: 0, littleEndian: true }),
  read: () => ({ gpa: 0, into: bytes(8) }),
  readExact: () => ({ gpa: 0, length: 8 }),
  write: () => ({ gpa: 0, from: bytes(8) }),
  writeExact: () => ({ gpa: 0, from: bytes(8) }),
  readCString: () => ({ gpa: 0, options: { maxLength: 16, encoding: 'utf8' } }),
  writeCString: () => ({ gpa: 0, text: '', encoding: 'utf8' }),
  fill: () => ({ gpa: 0, length: 8, value: 0 }),
  copy: () => ({ to: 0, from: 64, length: 8 }),
  gather: () => ({ gpas: [0, 64], lengths: [8, 8], into: bytes(16) }),
  scatter: () => ({ gpas: [0, 64], lengths: [8, 8], from: bytes(16) }),
  atomicLoad: () => ({ gpa: 0, size: 4 }),
  atomicStore: () => ({ gpa: 0, size: 4, value: 0 }),
  compareExchange: () => ({ gpa: 0, size: 4, expected: 0, replacement: 0 }),
  slices: () => ({ gpa: 0, length: 8 }),
  slice: () => ({ gpa: 0, length: 8 }),
};

const region = { offset: 0, size: UNIT, readOnly: false, name: 'main' };
const address = { align: UNIT, alignOffset: 0 };

/** Of any memory. */
export const MAPPING: Face<object>['methods'] = {
  close: null,
  pin: null,
  unpin: null,
  partCall: null,
  assertOpen: null,
  changed: null,
  protect: () => ({ offset: 0, length: 4096, prot: 1 }),
  unmapPart: () => ({ offset: 0, length: 4096 }),
  discard: () => ({ offset: 0, length: 4096 }),
  advise: () => ({ advice: 4, offset: 0, length: 4096 }),
  view: () => ({ index: 0 }),
  window: () => ({ index: 0 }),
  read: () => ({ offset: 0, into: bytes(8) }),
  write: () => ({ offset: 0, from: bytes(8) }),
  giveArray: null,
  serve: null,
  takeArray: null,
  whyNot: () => ({ offset: 0 }),
};

/** Of an address space with the region at 0. */
export const ADDRESS_SPACE: Face<Pick<Machine, 'ram' | 'spare' | 'region'>>['methods'] = {
  ...GUEST_MEMORY,
  addRam: ({ spare }) => ({ gpa: 2 * UNIT, mapping: spare, options: { ...region, onStore: () => {} } }),
  addDevice: ({ spare }) => ({ gpa: 2 * UNIT, mapping: spare, options: region }),
  addMmio: () => ({
    gpa: 2 * UNIT,
    size: 8,
    handlers: { read: () => 1, write: () => {}, littleEndian: true },
    options: { name: 'x' },
  }),
  remove: (machine) => ({ region: machine.region }),
  move: (machine) => ({ region: machine.region, gpa: 2 * UNIT }),
  setReadOnly: (machine) => ({ region: machine.region, readOnly: false }),
  // What its callback throws is thrown: sharing/change.test.ts.
  change: null,
  find: () => ({ gpa: 0 }),
  regions: null,
  holes: () => ({ end: RAM }),
  bind: () => ({ options: { name: 'x' } }),
  share: () => ({ options: { regions: 4, consumers: 4, end: 2 ** 40, patienceMs: 10, onConsumer: () => {} } }),
  // Nothing is shared without the addon.
  accept: null,
  settled: () => ({ options: { timeoutMs: 1 } }),
  unbind: null,
  committed: null,
  released: null,
  // What a wrong callback throws comes in a task of its own: sharing/binding.test.ts.
  onChange: null,
  follow: null,
  hold: null,
  letGo: null,
  answerGuest: null,
  addUser: null,
  removeUser: null,
  memoryChanged: null,
  close: null,
};

export const BINDING: Face<Pick<Machine, 'ram'>>['methods'] = {
  ...GUEST_MEMORY,
  copyTo: () => ({ gpa: 0, from: bytes(8) }),
  copyFrom: () => ({ gpa: 0, into: bytes(8) }),
  vmap: () => ({ gpa: 0, length: 8, options: { write: true } }),
  release: null,
  forget: null,
  changing: null,
  changed: null,
};

/** What every architecture has. */
export const COMMON: Faces = {
  kvm: {
    of: ({ kvm }) => kvm,
    methods: {
      ...HANDLE,
      getApiVersion: null,
      capabilities: null,
      createAddressSpace: null,
      checkExtension: () => ({ cap: 'NR_MEMSLOTS' }),
      createVm: () => ({ options: { type: 0 } }),
      createEventFd: () => ({ initial: 0 }),
      mapAnonymous: () => ({ size: UNIT, options: { prot: 3, ...address } }),
      mapMemfd: () => ({ size: UNIT, options: { prot: 3, name: 'x', ...address } }),
      mapHugetlb: () => ({ size: 2 * UNIT, options: { prot: 3, ...address } }),
      mapFile: () => ({
        file: process.execPath,
        options: { prot: 1, offset: 0, size: 4096, shared: false, ...address },
      }),
      mapDevice: () => ({ fd: 0, options: { prot: 3, size: 4096, offset: 0, ...address } }),
      reserve: () => ({ size: UNIT, options: address }),
    },
  },
  vm: {
    of: ({ vm }) => vm,
    methods: {
      ...HANDLE,
      harvestDirtyRings: null,
      pause: null,
      vcpuCloses: null,
      vcpuClosed: null,
      addressSpace: () => ({ asId: 0 }),
      bind: ({ space }) => ({ space, asId: 0 }),
      createVcpu: () => ({ id: 1 }),
      checkExtension: () => ({ cap: 'NR_MEMSLOTS' }),
      enableCap: () => ({ cap: 'MANUAL_DIRTY_LOG_PROTECT2', args: [1], flags: 0 }),
      enableDirtyRing: () => ({ bytes: 4096 }),
      setUserMemoryRegion: ({ spare }) => ({
        region: { slot: 9, flags: 0, guestPhysAddr: 4 * UNIT, memorySize: UNIT, userspaceAddr: spare.hva },
      }),
      createGuestMemfd: () => ({ size: UNIT, flags: 0 }),
      setMemoryAttributes: () => ({ gpa: 0, size: UNIT, attributes: 0 }),
      ioctl: () => ({ request: 0xaeff, arg: 0 }),
    },
  },
  'vm.io': {
    of: ({ vm }) => vm.io,
    methods: {
      createIrqchip: null,
      close: null,
      vcpuClosed: null,
      drainCoalesced: null,
      takeCoalescedWrites: null,
      ioeventfd: ({ eventfd }) => ({ options: { addr: 0x2000_0000, len: 4, eventfd, datamatch: 1, pio: false } }),
      irqfd: ({ eventfd }) => ({ options: { eventfd, gsi: 1 } }),
      registerCoalescedMmio: () => ({ addr: 0x3000_0000, size: 8, options: { pio: false } }),
    },
  },
  'vm.memslots': {
    of: ({ vm }) => vm.memslots,
    methods: {
      get: () => ({ id: 0, asId: 0 }),
      inSpace: () => ({ asId: 0 }),
      freeId: () => ({ asId: 0 }),
      set: ({ spare }) => ({
        region: { slot: 9, flags: 0, guestPhysAddr: 4 * UNIT, memorySize: UNIT, userspaceAddr: spare.hva },
        mapping: spare,
      }),
      delete: () => ({ word: 0 }),
      watch: () => ({ watcher: {} }),
      unwatch: () => ({ watcher: {} }),
      addGuestMemfd: null,
      clear: null,
    },
  },
  'vm.memory': { of: ({ vm }) => vm.memory, methods: ADDRESS_SPACE },
  binding: { of: ({ binding }) => binding, methods: BINDING },
  'vm.memory.mmio': {
    of: ({ vm }) => vm.memory.mmio,
    methods: {
      add: () => ({
        gpa: 2 * UNIT,
        size: 8,
        handlers: { read: () => 1, write: () => {}, littleEndian: true },
        name: 'x',
      }),
      move: ({ device }) => ({ region: device, gpa: 0x2000_0000 }),
      remove: ({ device }) => ({ region: device }),
      find: () => ({ address: 0 }),
      overlapping: () => ({ start: 0, end: 8 }),
      keep: null,
      read: ({ device }) => ({ address: device.start, data: bytes(4) }),
      write: ({ device }) => ({ address: device.start, data: bytes(4) }),
    },
  },
  'vm.dirtyPages': {
    of: ({ vm }) => vm.dirtyPages,
    methods: {
      start: null,
      stop: null,
      pages: null,
      runs: null,
      harvest: null,
      harvested: null,
      slotAdded: null,
      slotMoved: null,
      slotChanging: null,
      slotLogged: null,
      slotRemoved: null,
      end: null,
      collect: () => ({ options: { clear: true } }),
      clear: () => ({ gpa: 0, size: RAM }),
      pagesInto: () => ({ into: new Float64Array(8), from: 0 }),
      runsInto: () => ({ into: new Float64Array(8), from: 0 }),
      forEachPage: () => ({ callback: () => {} }),
      forEachRun: () => ({ callback: () => {} }),
    },
  },
  region: {
    of: ({ region }) => region,
    methods: { remove: null, toString: null, move: () => ({ gpa: 2 * UNIT }), setReadOnly: () => ({ readOnly: true }) },
  },
  device: {
    of: ({ device }) => device,
    methods: { remove: null, toString: null, move: () => ({ address: 0x2000_0000 }) },
  },
  mapping: { of: ({ spare }) => spare, methods: MAPPING },
  reservation: {
    of: ({ reservation }) => reservation,
    methods: {
      ...MAPPING,
      mapAnonymous: () => ({ offset: 0, size: 4096, options: { prot: 3 } }),
      mapMemfd: () => ({ offset: 0, size: 4096, options: { prot: 3, name: 'x' } }),
      mapHugetlb: () => ({ offset: 0, size: 2 * UNIT, options: { prot: 3 } }),
      mapFile: () => ({
        offset: 0,
        file: process.execPath,
        options: { prot: 1, offset: 0, size: 4096, shared: false },
      }),
      mapDevice: () => ({ offset: 0, fd: 0, options: { prot: 3, size: 4096, offset: 0 } }),
    },
  },
  eventfd: { of: ({ eventfd }) => eventfd, methods: EVENT_FD },
  vcpu: {
    of: ({ vcpu }) => vcpu,
    methods: {
      ...HANDLE,
      mapPart: null,
      kick: null,
      getMpState: null,
      pause: null,
      run: () => ({ options: { signal: new AbortController().signal } }),
      runSync: () => ({ options: { timeoutMs: 10 } }),
      exits: () => ({ options: { signal: new AbortController().signal } }),
      getRegsBytes: () => ({ size: 1024 }),
      setRegsBytes: () => ({ bytes: bytes(1024) }),
      getSregsBytes: () => ({ size: 1024 }),
      setSregsBytes: () => ({ bytes: bytes(1024) }),
      getOneReg: () => ({ id: 0x3030_0000_0000_0000n }),
      getOneRegBytes: () => ({ id: 0x3030_0000_0000_0000n }),
      setOneReg: () => ({ id: 0x3030_0000_0000_0000n, value: 0 }),
      setMpState: () => ({ state: 0 }),
      preFaultMemory: () => ({ gpa: 0, size: 4096 }),
      enableCap: () => ({ cap: 1, args: [0], flags: 0 }),
      ioctl: () => ({ request: 0xaeff, arg: 0 }),
    },
  },
  'vcpu.kvmRun': {
    of: ({ vcpu }) => vcpu.kvmRun,
    methods: {
      exit: null,
      mmio: null,
      io: null,
      immediateExit: () => ({ immediateExit: false }),
      exitReason: () => ({ exitReason: 0 }),
      u16: () => ({ offset: 0 }),
      u32: () => ({ offset: 0 }),
      u64: () => ({ offset: 0 }),
      address: () => ({ offset: 0 }),
    },
  },
};

const CODE_SEGMENT = {
  base: 0n,
  limit: 0xffff,
  selector: 8,
  type: 11,
  present: 1,
  dpl: 0,
  db: 0,
  s: 1,
  l: 0,
  g: 0,
  avl: 0,
  unusable: 0,
};

export const X86_64: Faces = {
  'memory with a guest_memfd': {
    of: ({ other }) => other.memory,
    methods: {
      ...Object.fromEntries(Object.keys(ADDRESS_SPACE).map((name) => [name, null])),
      addRam: ({ spare, memfd }) => ({
        gpa: 2 * UNIT,
        mapping: spare,
        options: { offset: 0, size: RAM, guestMemfd: memfd, guestMemfdOffset: 0 },
      }),
    },
  },
  'guest memfd': {
    of: ({ memfd }) => memfd as object,
    methods: {
      ...HANDLE,
      map: () => ({ options: { prot: 3, ...address } }),
      punchHole: () => ({ offset: 0, length: 4096 }),
      allocate: () => ({ offset: 0, length: 4096 }),
    },
  },
  'page faults': {
    of: ({ faults }) => faults as object,
    methods: {
      close: null,
      bring: null,
      dropViews: null,
      copy: () => ({ offset: 0, bytes: bytes(4096) }),
      zero: () => ({ offset: 0, length: 4096 }),
      wake: () => ({ offset: 0, length: 4096 }),
      protect: () => ({ offset: 0, length: 4096 }),
      unprotect: () => ({ offset: 0, length: 4096 }),
    },
  },
  'tracked writes': {
    of: ({ writes }) => writes as object,
    methods: {
      close: null,
      collect: null,
      runs: null,
      dropViews: null,
      memoryChanged: null,
      forEachPage: () => ({ callback: () => {} }),
    },
  },
  'vm.x86_64': {
    of: ({ vm }) => vm.x86_64,
    methods: { setTssAddr: () => ({ gpa: 0xfffb_d000 }), setIdentityMapAddr: () => ({ gpa: 0xfffb_c000 }) },
  },
  'vcpu.x86_64': {
    of: ({ vcpu }) => vcpu.x86_64,
    methods: {
      getRegs: null,
      getSregs: null,
      setRegs: () => ({ regs: { rip: 0x1000, rflags: 2 } }),
      setSregs: () => ({ sregs: { cr0: 1, cs: CODE_SEGMENT, gdt: { base: 0, limit: 0 } } }),
    },
  },
};

/** Registers of the other architectures, by name. */
export const REGISTERS: Readonly<Partial<Record<Arch, Faces>>> = {
  s390x: {
    'vcpu.s390x': {
      of: ({ vcpu }) => vcpu.s390x,
      methods: {
        getRegs: null,
        initialReset: null,
        normalReset: null,
        clearReset: null,
        setRegs: () => ({ regs: { pswMask: 0, prefix: 0x2000, a3: 1, cr1: 2, r15: 3 } }),
        setInitialPsw: () => ({ mask: 0, address: 0 }),
        cpuState: () => ({ facilities: {} }),
      },
    },
  },
  ppc64: {
    'vcpu.ppc64': {
      of: ({ vcpu }) => vcpu.ppc64,
      methods: {
        enablePapr: null,
        getRegs: null,
        getSlb: null,
        getKeyRegs: null,
        setRegs: () => ({ regs: { pc: 0x1000, msr: 1, r3: 2 } }),
        setSlb: () => ({ slb: [vrmaSegment()] }),
        setKeyRegs: () => ({ regs: { amr: 1, uamor: 2 } }),
      },
    },
  },
  aarch64: {
    'vcpu.aarch64': {
      of: ({ vcpu }) => vcpu.aarch64,
      methods: {
        getRegs: null,
        init: () => ({ features: [2] }),
        setRegs: () => ({ regs: { pc: 0x1000, x30: 2 } }),
      },
    },
  },
  riscv64: {
    'vcpu.riscv64': {
      of: ({ vcpu }) => vcpu.riscv64,
      methods: { getRegs: null, setRegs: () => ({ regs: { pc: 0x1000, t6: 2 } }) },
    },
  },
};
