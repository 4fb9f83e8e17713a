import { AddressSpace, Kvm, Mapping, PageFaults, RangeTable, TrackedWrites } from '../../../../lib/index.ts';
import * as raw from '../../../../lib/raw.ts';
import type { Arguments } from '../attack.ts';
import { type Functions, methodsOf } from './table.ts';

const opening = (): Arguments => ({
  options: { backend: 'emulated', arch: 'x86_64', release: '6.12', pageSize: 4096, trace: () => {} },
});
const kernel = (): raw.EmulatedKernel => new raw.EmulatedKernel({ arch: 'x86_64' });

const entry = { start: 0, end: 8 };

function tableOfRanges(): RangeTable<typeof entry> {
  const table = new RangeTable<typeof entry>();
  table.insert({ start: 16, end: 24 });
  return table;
}

const served = (): Mapping => Mapping.anonymous(kernel(), 0x4000);

/** What makes the first objects, and the table that all memory is looked up in. */
export const OPENING: Functions = {
  'Kvm.open': [(options: never) => Kvm.open(options).close(), opening],
  openCalls: [raw.openCalls, opening],
  'new AddressSpace': [
    (options: never) => new AddressSpace(options),
    () => ({ options: { littleEndian: true, pageSize: 4096 } }),
  ],
  'new PageFaults': [
    (mapping: never, handlers: never) => new PageFaults(mapping, handlers),
    () => ({ mapping: served(), handlers: { missing: () => null, store: () => {}, onError: () => {} } }),
  ],
  'new TrackedWrites': [(mapping: never) => new TrackedWrites(mapping), () => ({ mapping: served() })],
  ...methodsOf('RangeTable', tableOfRanges, {
    find: () => ({ at: 0 }),
    indexOf: () => ({ at: 0 }),
    atOrBelow: () => ({ at: 0 }),
    lastAtOrBelow: () => ({ at: 0 }),
    startAt: () => ({ index: 0 }),
    endAt: () => ({ index: 0 }),
    has: () => ({ entry: { ...entry } }),
    overlapping: () => ({ start: 0, end: 8 }),
    insert: () => ({ entry: { ...entry } }),
    remove: () => ({ entry: { ...entry } }),
  }),
};

export const RAW: Functions = {
  archOfNode: [raw.archOfNode, () => ({ nodeArch: 'x64' })],
  isLittleEndianHost: [raw.isLittleEndianHost, () => ({ arch: 'ppc64' })],
  asIdOf: [raw.asIdOf, () => ({ word: 0 })],
  slotIdOf: [raw.slotIdOf, () => ({ word: 0 })],
  slotWord: [raw.slotWord, () => ({ asId: 0, id: 0 })],
  errnoName: [raw.errnoName, () => ({ errno: -22 })],
  exitName: [raw.exitName, () => ({ reason: 5 })],
  requestName: [raw.requestName, () => ({ request: 0xae80, arch: 'x86_64' })],
  requestNumber: [raw.requestNumber, () => ({ name: 'KVM_RUN', arch: 'x86_64' })],
  requestSize: [raw.requestSize, () => ({ name: 'KVM_RUN' })],
  symbolic: [raw.symbolic, () => ({ set: 'MEM', value: 5, arch: 'x86_64' })],
  'symbolic of a request': [(value: never) => raw.symbolic('REQUEST', value, 'x86_64'), () => ({ value: 5 })],
  syscallOf: [raw.syscallOf, () => ({ name: 'run' })],
  signaturesOf: [raw.signaturesOf, () => ({ group: 's390x' })],
  hostOf: [raw.hostOf, () => ({ calls: kernel() })],
  checked: [raw.checked, () => ({ calls: kernel() })],
  traced: [
    raw.traced,
    () => ({
      calls: kernel(),
      sink: () => {},
      options: {
        symbols: true,
        observer: { opened: () => {}, closed: () => {}, mapped: () => {}, unmapped: () => {} },
      },
    }),
  ],
  'new EmulatedKernel': [
    (options: never) => new raw.EmulatedKernel(options),
    () => ({ options: { arch: 'x86_64', release: '6.12', pageSize: 4096, x86_64: {}, maxFds: 8 } }),
  ],
  'EmulatedKernel.loadGuest': [
    (vcpu: never, program: never) => {
      const calls = kernel();
      const made = calls.createVcpu(calls.createVm(calls.openKvm(), 0), 0);
      calls.loadGuest(vcpu === 0x10_0002 ? (made as never) : vcpu, program);
    },
    () => ({ vcpu: 0x10_0002, program: (function* () {})() }),
  ],
  store: [raw.store, () => ({ address: 0, size: 4, value: 0n })],
  checkOp: [raw.checkOp, () => ({ op: { op: 'hypercall', nr: 1, args: [1n] } })],
  changed: [raw.changed, () => ({ value: 1n })],
  checkCode: [raw.checkCode, () => ({ code: { gpa: 0, size: 8 } })],
  outs: [raw.outs, () => ({ port: 0, size: 4, address: 0, count: 1 })],
  ins: [raw.ins, () => ({ port: 0, size: 4, address: 0, count: 1 })],
  update: [raw.update, () => ({ address: 0, size: 4, change: (old: bigint) => old })],
  load: [raw.load, () => ({ address: 0, size: 4 })],
  out: [raw.out, () => ({ port: 0, size: 4, value: 0n })],
  input: [raw.input, () => ({ port: 0, size: 4 })],
  hypercall: [raw.hypercall, () => ({ nr: 0, args: 1n })],
  execute: [raw.execute, () => ({ address: 0 })],
  instruction: [raw.instruction, () => ({ name: 'IPTE', operands: 1n })],
  'what a guest yields': [
    (op: never) => {
      using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
      using vm = kvm.createVm();
      const vcpu = vm.createVcpu();
      kvm.emulated?.loadGuest(
        vcpu.fd,
        (function* () {
          yield op;
        })(),
      );
      vcpu.runSync({ timeoutMs: 5 });
    },
    () => ({
      op: { op: 'store', address: 0x1000, size: 4, value: 0n, port: 0, args: [], operands: [], name: 'x', nr: 1 },
    }),
  ],
};
