import { CAP } from '../../lib/uapi/capabilities.ts';
import { FALLOC, MEM, MEMORY_ATTRIBUTE_PRIVATE, VM_TYPE } from '../../lib/uapi/flags.ts';
import { KVM_RUN } from '../../lib/uapi/structs.ts';
import { type Guest, guest, load, port, run } from './guest-memory.ts';
import type { Scenario, ScenarioHost, ScriptOp } from './scenario.ts';

const PAGES = 8;
/** The slot whose pages are shared or private by their attributes, at guest physical 0. */
const SLOT = 0;
/** Where the guest copies to what it loads: a slot that is always shared. */
const SINK = 40;
const SINK_SLOT = 20;

const pause: ScriptOp = { op: 'pause' };
const done: ScriptOp = { op: 'done' };

/** A guest in a VM with private memory. */
class PrivateGuest {
  readonly g: Guest;
  readonly hva: number;
  readonly sink: number;
  readonly memfd: number;
  readonly #s: ScenarioHost;

  constructor(s: ScenarioHost, vm: number, withMemfd = true) {
    this.#s = s;
    const { calls, unit } = s;
    this.g = guest(s, undefined, vm);
    this.hva = s.memory(PAGES);
    this.sink = s.memory(1);
    calls.setUserMemoryRegion(this.g.vm, SINK_SLOT, 0, SINK * unit, unit, this.sink);
    this.memfd = withMemfd ? calls.createGuestMemfd(this.g.vm, PAGES * unit, 0) : -1;
    this.slot();
  }

  slot(pages = PAGES, gpa = 0): number {
    const { calls, unit } = this.#s;
    return this.memfd < 0
      ? calls.setUserMemoryRegion(this.g.vm, SLOT, 0, gpa * unit, pages * unit, this.hva)
      : calls.setUserMemoryRegion2(this.g.vm, SLOT, MEM.GUEST_MEMFD, gpa * unit, pages * unit, this.hva, this.memfd, 0);
  }

  convert(page: number, count: number, isPrivate: boolean): number {
    const { calls, unit } = this.#s;
    const attributes = isPrivate ? MEMORY_ATTRIBUTE_PRIVATE : 0;
    return calls.setMemoryAttributes(this.g.vm, page * unit, count * unit, attributes, 0);
  }

  store(page: number, value: number, offset = 0x10): ScriptOp {
    return { op: 'store', address: page * this.#s.unit + offset, size: 4, value };
  }

  /** Loads from a page; `at` is a place in the sink. */
  loads(page: number, at: number, offset = 0x10): ScriptOp {
    return { op: 'copy', from: page * this.#s.unit + offset, to: SINK * this.#s.unit + 4 * at, size: 4 };
  }

  program(...ops: readonly ScriptOp[]): void {
    load(this.#s, this.g, ops);
  }

  run(): void {
    run(this.#s, this.g);
  }

  /** KVM_RUN, and where the fault was. */
  fault(): void {
    const { memory_fault } = KVM_RUN;
    run(this.#s, this.g);
    this.#s.calls.readMemory(this.g.run + memory_fault.flags, new Uint8Array(24));
  }

  /** What is in user space's memory, and what the guest loaded. */
  look(...pages: readonly number[]): void {
    const { calls, unit } = this.#s;
    for (const page of pages) calls.readMemory(this.hva + page * unit + 0x10, new Uint8Array(4));
    calls.readMemory(this.sink, new Uint8Array(16));
  }
}

function scenario(name: string, body: (s: ScenarioHost, vm: number) => void): Scenario {
  return {
    name: `private-memory/${name}`,
    arches: ['x86_64'],
    runsGuest: true,
    run: (s) => {
      const vm = s.calls.createVm(s.calls.openKvm(), VM_TYPE.X86_SW_PROTECTED);
      if (vm >= 0) body(s, vm);
    },
  };
}

/** VMs with private memory, which few kernels are built with. */
export const privateMemoryScenarios: readonly Scenario[] = [
  scenario('capabilities', (s, vm) => {
    const caps = ['GUEST_MEMFD', 'MEMORY_ATTRIBUTES', 'GUEST_MEMFD_FLAGS', 'PRE_FAULT_MEMORY', 'READONLY_MEM'] as const;
    for (const cap of [...caps, 'VM_TYPES', 'MULTI_ADDRESS_SPACE'] as const) s.calls.checkExtension(vm, CAP[cap]);
  }),
  scenario('both-contents', (s, vm) => {
    const p = new PrivateGuest(s, vm);
    p.program(
      ...[p.store(1, 0x11111111), p.store(2, 0x22222222), pause],
      ...[p.loads(1, 0), p.store(1, 0x33333333), p.loads(1, 1), p.loads(2, 2), pause],
      ...[p.loads(1, 0), p.store(1, 0x44444444), pause],
      ...[p.loads(1, 3), p.loads(2, 2), done],
    );
    p.run();
    p.look(1, 2);
    p.convert(1, 1, true);
    p.run();
    p.look(1, 2);
    // Shared again: what was stored there before; and back, where the private page still is.
    p.convert(1, 1, false);
    p.run();
    p.look(1, 2);
    p.convert(1, 2, true);
    p.run();
    p.look(1, 2);
  }),
  scenario('hole', (s, vm) => {
    const p = new PrivateGuest(s, vm);
    const { calls, unit } = s;
    p.convert(0, PAGES, true);
    p.program(p.store(1, 0x11111111), p.store(2, 0x22222222), pause, p.loads(1, 0), p.loads(2, 1), done);
    p.run();
    calls.fallocate(p.memfd, FALLOC.KEEP_SIZE | FALLOC.PUNCH_HOLE, unit, unit);
    p.run();
    p.look(1, 2);
  }),
  scenario('without-guest-memfd', (s, vm) => {
    const p = new PrivateGuest(s, vm, false);
    p.convert(1, 1, true);
    p.program(p.store(1, 0x11111111, 0x20), p.loads(2, 0), p.loads(3, 1), done);
    p.fault();
    p.fault();
    p.convert(1, 3, false);
    p.convert(3, 1, true);
    p.fault();
    p.convert(3, 1, false);
    p.run();
    p.look(1);
  }),
  scenario('across-pages', (s, vm) => {
    const p = new PrivateGuest(s, vm, false);
    p.convert(2, 1, true);
    p.program(p.store(1, 0x11111111, s.unit - 2), done);
    p.fault();
    p.look(1);
    p.convert(2, 1, false);
    p.run();
    s.calls.readMemory(p.hva + 2 * s.unit - 4, new Uint8Array(8));
  }),
  scenario('without-memslot', (s, vm) => {
    const p = new PrivateGuest(s, vm);
    p.convert(64, 1, true);
    p.program(p.store(64, 0x11111111), p.store(65, 0x22222222), p.loads(64, 0), done);
    p.fault();
    p.convert(64, 1, false);
    p.run();
    p.run();
    p.convert(64, 1, true);
    p.fault();
  }),
  scenario('closed-guest-memfd', (s, vm) => {
    const p = new PrivateGuest(s, vm);
    p.convert(1, 1, true);
    p.program(p.store(1, 0x11111111), pause, p.store(1, 0x22222222), p.loads(2, 0), done);
    p.run();
    s.calls.close(p.memfd);
    p.fault();
    p.convert(1, 1, false);
    p.run();
    p.look(1);
  }),
  scenario('slots-that-change', (s, vm) => {
    const p = new PrivateGuest(s, vm);
    p.convert(1, 2, true);
    p.program(p.store(1, 0x11111111), pause, p.loads(1, 0), pause, p.loads(9, 1), p.loads(1, 2), done);
    p.run();
    // The attributes are the frames', and the pages the file's.
    p.slot(0);
    p.slot();
    p.run();
    p.slot(0);
    p.slot(PAGES, 8);
    s.calls.setUserMemoryRegion(p.g.vm, 1, 0, 0, 8 * s.unit, s.memory(8));
    p.run();
    p.look(1);
    p.convert(9, 1, true);
    p.convert(1, 1, false);
    p.run();
    p.look(1);
  }),
  scenario('what-kvm-does-itself', (s, vm) => {
    const p = new PrivateGuest(s, vm);
    const { calls, unit } = s;
    calls.writeMemory(p.hva + unit + 0x10, Uint8Array.of(1, 2, 3, 4));
    p.convert(1, 1, true);
    p.program(
      { op: 'outs', port: 0x1f0, size: 4, from: unit + 0x10, count: 1 },
      p.store(1, 0x11111111),
      { op: 'outs', port: 0x1f0, size: 4, from: unit + 0x10, count: 1 },
      { op: 'ins', port: 0x1f0, size: 4, to: unit + 0x10, count: 1 },
      p.loads(1, 0),
      done,
    );
    for (let i = 0; i < 2; i++) {
      port(s, p.g);
      calls.readMemory(p.g.run + calls.pageSize, new Uint8Array(4));
    }
    port(s, p.g);
    calls.writeMemory(p.g.run + calls.pageSize, Uint8Array.of(9, 8, 7, 6));
    p.run();
    p.look(1);
  }),
  scenario('slots-that-are-refused', (s, vm) => {
    const { calls, unit } = s;
    const hva = s.memory(1);
    const memfd = calls.createGuestMemfd(vm, unit, 0);
    for (const flags of [MEM.READONLY, MEM.LOG_DIRTY_PAGES]) {
      calls.setUserMemoryRegion(vm, 0, flags, 0, unit, hva);
      calls.setUserMemoryRegion2(vm, 1, MEM.GUEST_MEMFD | flags, unit, unit, hva, memfd, 0);
    }
  }),
  scenario('faulted-in-beforehand', (s, vm) => {
    const p = new PrivateGuest(s, vm);
    const { calls, unit } = s;
    const fault = (page: number, pages: number): number =>
      calls.preFaultMemory(p.g.vcpu, BigUint64Array.of(BigInt(page * unit), BigInt(pages * unit)), 0);
    p.convert(1, 2, true);
    fault(0, 4);
    p.convert(SINK, 1, true);
    fault(SINK, 1);
    fault(PAGES - 1, 2);
  }),
];
