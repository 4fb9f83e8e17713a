import { CAP } from '../../lib/uapi/capabilities.ts';
import { IOEVENTFD, MAP, MEM, PROT } from '../../lib/uapi/flags.ts';
import { KVM_RUN } from '../../lib/uapi/structs.ts';
import type { Scenario, ScenarioHost, ScriptOp } from './scenario.ts';

export const LOG = MEM.LOG_DIRTY_PAGES;
/** The guest's code is in a slot of its own so that it disturbs no log. */
const CODE_SLOT = 31;
const CODE_UNITS = 4;
const RUN_MS = 2000;

export interface Guest {
  readonly vm: number;
  readonly vcpu: number;
  /** Where kvm_run is mapped. */
  readonly run: number;
  readonly code: { readonly hva: number; readonly gpa: number };
}

/** A VM with a vCPU, and room for its code at 15 units. `made` is a VM that there is already. */
export function guest(s: ScenarioHost, before?: (vm: number) => void, made?: number): Guest {
  const { calls, unit } = s;
  const { kvm, vm } = made === undefined ? s.vm() : { kvm: calls.openKvm(), vm: made };
  before?.(vm);
  const vcpu = s.vcpu(vm);
  const size = calls.getVcpuMmapSize(kvm, 0);
  const run = calls.mmap(size, PROT.READ | PROT.WRITE, MAP.SHARED, vcpu, 0, 0, 0);
  const hva = s.memory(CODE_UNITS);
  const gpa = 15 * unit;
  calls.setUserMemoryRegion(vm, CODE_SLOT, 0, gpa, CODE_UNITS * unit, hva);
  return { vm, vcpu, run, code: { hva, gpa } };
}

export function load(s: ScenarioHost, g: Guest, ops: readonly ScriptOp[]): void {
  s.load(g.vm, g.vcpu, g.code.hva, g.code.gpa, ops);
}

/** One KVM_RUN, and what it says about the exit. */
export function run(s: ScenarioHost, g: Guest): void {
  s.calls.run(g.vcpu, RUN_MS);
  s.calls.readMemory(g.run + KVM_RUN.exit_reason, new Uint8Array(4));
}

export function mmio(s: ScenarioHost, g: Guest): void {
  run(s, g);
  // phys_addr, data, len, is_write; what the kernel leaves in the data of a load isn't defined.
  s.calls.readMemory(g.run + KVM_RUN.mmio.phys_addr, new Uint8Array(8));
  s.calls.readMemory(g.run + KVM_RUN.mmio.len, new Uint8Array(5));
}

export function port(s: ScenarioHost, g: Guest): void {
  run(s, g);
  s.calls.readMemory(g.run + KVM_RUN.io.direction, new Uint8Array(16));
}

/** KVM_RUN, and which internal error it ended in. */
function internalError(s: ScenarioHost, g: Guest): void {
  run(s, g);
  s.calls.readMemory(g.run + KVM_RUN.internal.suberror, new Uint8Array(4));
}

export const store = (address: number, value: number, size: 1 | 2 | 4 = 1): ScriptOp => ({
  op: 'store',
  address,
  size,
  value,
});
const pause: ScriptOp = { op: 'pause' };
export const done: ScriptOp = { op: 'done' };
/** Where guest code can be run on the real kernel, and MMIO exits are made. */
export const WITH_GUESTS = ['x86_64', 'aarch64', 'riscv64'] as const;
export const PAGE = 4096;

/** What a running guest does to memory, and what KVM_RUN says about it. */
export const guestMemoryScenarios: readonly Scenario[] = [
  {
    name: 'guest/stores-make-pages-dirty',
    arches: WITH_GUESTS,
    runsGuest: true,
    run: (s) => {
      const { calls, unit } = s;
      const g = guest(s);
      const hva = s.memory(8);
      calls.setUserMemoryRegion(g.vm, 0, LOG, 0, 8 * unit, hva);
      load(s, g, [
        store(2 * PAGE, 0x41),
        store(2 * PAGE + 8, 0x1234, 2),
        store(5 * PAGE + 16, 0x0102_0304, 4),
        pause,
        store(7 * PAGE, 1),
        done,
      ]);
      run(s, g);
      s.dirtyLog(g.vm, 0, 8);
      s.dirtyLog(g.vm, 0, 8);
      run(s, g);
      s.dirtyLog(g.vm, 0, 8);
      calls.readMemory(hva + 2 * PAGE, new Uint8Array(16));
      calls.readMemory(hva + 5 * PAGE, new Uint8Array(24));
    },
  },
  {
    name: 'guest/a-move-keeps-the-log',
    arches: WITH_GUESTS,
    runsGuest: true,
    run: (s) => {
      const { calls, unit } = s;
      const g = guest(s);
      const hva = s.memory(8);
      calls.setUserMemoryRegion(g.vm, 0, LOG, 0, 8 * unit, hva);
      load(s, g, [store(PAGE, 1), done]);
      run(s, g);
      calls.setUserMemoryRegion(g.vm, 0, LOG, 32 * unit, 8 * unit, hva);
      load(s, g, [store(34 * PAGE, 1), done]);
      run(s, g);
      s.dirtyLog(g.vm, 0, 8);
      load(s, g, [store(35 * PAGE, 1), done]);
      run(s, g);
      // Logging that stops forgets.
      calls.setUserMemoryRegion(g.vm, 0, 0, 32 * unit, 8 * unit, hva);
      calls.setUserMemoryRegion(g.vm, 0, LOG, 32 * unit, 8 * unit, hva);
      s.dirtyLog(g.vm, 0, 8);
    },
  },
  {
    name: 'guest/manual-protect',
    arches: WITH_GUESTS,
    runsGuest: true,
    run: (s) => {
      const { calls, unit } = s;
      const g = guest(s);
      const hva = s.memory(8);
      calls.enableCap(g.vm, CAP.MANUAL_DIRTY_LOG_PROTECT2, 0, [1]);
      calls.setUserMemoryRegion(g.vm, 0, LOG, 0, 8 * unit, hva);
      load(s, g, [store(PAGE, 1), store(3 * PAGE, 1), done]);
      run(s, g);
      s.dirtyLog(g.vm, 0, 8);
      s.dirtyLog(g.vm, 0, 8);
      calls.clearDirtyLog(g.vm, 0, 0, 8, Uint8Array.of(2, 0, 0, 0, 0, 0, 0, 0));
      s.dirtyLog(g.vm, 0, 8);
      load(s, g, [store(PAGE, 1), done]);
      run(s, g);
      s.dirtyLog(g.vm, 0, 8);
    },
  },
  {
    name: 'guest/bits-lost-to-a-bad-buffer',
    arches: WITH_GUESTS,
    runsGuest: true,
    run: (s) => {
      const { calls, unit } = s;
      const g = guest(s);
      const hva = s.memory(8);
      calls.setUserMemoryRegion(g.vm, 0, LOG, 0, 8 * unit, hva);
      load(s, g, [store(PAGE, 1), done]);
      run(s, g);
      calls.getDirtyLog(g.vm, 0, null);
      s.dirtyLog(g.vm, 0, 8);
    },
  },
  {
    name: 'guest/mmio',
    arches: WITH_GUESTS,
    runsGuest: true,
    run: (s) => {
      const { calls, unit } = s;
      const g = guest(s);
      const hva = s.memory(1);
      calls.setUserMemoryRegion(g.vm, 0, LOG, 0, unit, hva);
      const device = 0xd000_0000;
      load(s, g, [
        store(device, 0x5a),
        store(device + 8, 0x1122_3344, 4),
        { op: 'copy', from: device + 16, to: 0x100, size: 4 },
        done,
      ]);
      mmio(s, g);
      calls.readMemory(g.run + KVM_RUN.mmio.data, new Uint8Array(1));
      mmio(s, g);
      calls.readMemory(g.run + KVM_RUN.mmio.data, new Uint8Array(4));
      mmio(s, g);
      calls.writeMemory(g.run + KVM_RUN.mmio.data, Uint8Array.of(0xef, 0xbe, 0xad, 0xde));
      run(s, g);
      calls.readMemory(hva + 0x100, new Uint8Array(4));
      s.dirtyLog(g.vm, 0, 1);
    },
  },
  {
    name: 'guest/ports',
    arches: ['x86_64'],
    runsGuest: true,
    run: (s) => {
      const { calls, unit } = s;
      const g = guest(s);
      const hva = s.memory(1);
      calls.setUserMemoryRegion(g.vm, 0, 0, 0, unit, hva);
      load(s, g, [
        { op: 'out', port: 0x3f8, size: 1, value: 0x48 },
        { op: 'out', port: 0x60, size: 4, value: 0x0102_0304 },
        { op: 'in', port: 0x64, to: 0x200, size: 2 },
        done,
      ]);
      port(s, g);
      calls.readMemory(g.run + PAGE, new Uint8Array(1));
      port(s, g);
      calls.readMemory(g.run + PAGE, new Uint8Array(4));
      port(s, g);
      calls.writeMemory(g.run + PAGE, Uint8Array.of(0xcd, 0xab));
      run(s, g);
      calls.readMemory(hva + 0x200, new Uint8Array(2));
    },
  },
  {
    name: 'guest/string-ports',
    arches: ['x86_64'],
    runsGuest: true,
    run: (s) => {
      const { calls, unit } = s;
      const g = guest(s);
      const hva = s.memory(2);
      calls.setUserMemoryRegion(g.vm, 0, MEM.LOG_DIRTY_PAGES, 0, 2 * unit, hva);
      calls.writeMemory(hva + 0x100, Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8));
      load(s, g, [
        { op: 'outs', port: 0x1f0, size: 1, from: 0x100, count: 3 },
        { op: 'outs', port: 0x1f0, size: 4, from: 0x100, count: 2 },
        pause,
        { op: 'ins', port: 0x1f0, size: 1, to: 0x201, count: 3 },
        { op: 'ins', port: 0x1f0, size: 4, to: unit - 8, count: 5 },
        { op: 'outs', port: 0x1f0, size: 1, from: 0x100, count: 0 },
        { op: 'ins', port: 0x1f0, size: 1, to: 0x100, count: 0 },
        done,
      ]);
      const answer = Uint8Array.from({ length: 32 }, (_, i) => 0xa0 + i);
      const answered = [0, 0, 0, 0, 0, 0, 3, 20];
      for (const bytes of answered) {
        port(s, g);
        if (bytes === 0) calls.readMemory(g.run + PAGE, new Uint8Array(4));
        else calls.writeMemory(g.run + PAGE, answer.subarray(0, bytes));
      }
      run(s, g);
      calls.readMemory(hva + 0x200, new Uint8Array(5));
      calls.readMemory(hva + unit - 8, new Uint8Array(24));
      s.dirtyLog(g.vm, 0, 2);
    },
  },
  {
    name: 'guest/read-modify-write',
    arches: ['x86_64'],
    runsGuest: true,
    run: (s) => {
      const { calls, unit } = s;
      const g = guest(s);
      const hva = s.memory(2);
      calls.setUserMemoryRegion(g.vm, 0, MEM.LOG_DIRTY_PAGES, 0, unit, hva);
      calls.setUserMemoryRegion(g.vm, 1, MEM.READONLY, unit, unit, hva + unit);
      calls.writeMemory(hva + 0x100, Uint8Array.of(0xff, 1, 2, 3));
      calls.writeMemory(hva + unit + 0x10, Uint8Array.of(5, 6, 7, 8));
      const device = 0xd000_0000;
      load(s, g, [
        { op: 'add', address: 0x100, size: 4, value: 2 },
        { op: 'add', address: device, size: 4, value: 0x11 },
        { op: 'add', address: device + 4, size: 1, value: 0x22 },
        // A page that may only be read: what is stored there is a device's.
        { op: 'add', address: unit + 0x10, size: 2, value: 1 },
        done,
      ]);
      for (const bytes of [[1, 2, 3, 4], [], [0xff], [], []]) {
        mmio(s, g);
        if (bytes.length === 0) calls.readMemory(g.run + KVM_RUN.mmio.data, new Uint8Array(1));
        else calls.writeMemory(g.run + KVM_RUN.mmio.data, Uint8Array.from(bytes));
      }
      run(s, g);
      calls.readMemory(hva + 0x100, new Uint8Array(4));
      calls.readMemory(hva + unit + 0x10, new Uint8Array(4));
      s.dirtyLog(g.vm, 0, 1);
    },
  },
  {
    name: 'guest/without-memslots',
    arches: ['x86_64'],
    runsGuest: true,
    run: (s) => {
      const { calls } = s;
      const g = guest(s);
      load(s, g, [pause, done]);
      calls.setUserMemoryRegion(g.vm, CODE_SLOT, 0, 0, 0, 0);
      internalError(s, g);
      internalError(s, g);
    },
  },
  {
    name: 'guest/code-goes-away',
    arches: ['x86_64'],
    runsGuest: true,
    run: (s) => {
      const { calls, unit } = s;
      const g = guest(s);
      const hva = s.memory(1);
      calls.setUserMemoryRegion(g.vm, 0, 0, 0, unit, hva);
      load(s, g, [pause, { op: 'store', address: 0x10, size: 1, value: 1 }, pause, done]);
      run(s, g);
      calls.setUserMemoryRegion(g.vm, CODE_SLOT, 0, 0, 0, 0);
      internalError(s, g);
      // An exception is pending, which new registers take away.
      calls.setUserMemoryRegion(g.vm, CODE_SLOT, 0, g.code.gpa, CODE_UNITS * unit, g.code.hva);
      load(s, g, [store(0x10, 1), pause, done]);
      run(s, g);
      calls.readMemory(hva + 0x10, new Uint8Array(1));
      run(s, g);
    },
  },
  {
    name: 'guest/read-only-slot',
    arches: WITH_GUESTS,
    runsGuest: true,
    run: (s) => {
      const { calls, unit } = s;
      const g = guest(s);
      const rom = s.memory(1);
      const ram = s.memory(1);
      calls.writeMemory(rom, Uint8Array.of(1, 2, 3, 4));
      calls.setUserMemoryRegion(g.vm, 0, MEM.READONLY, 0, unit, rom);
      calls.setUserMemoryRegion(g.vm, 1, 0, unit, unit, ram);
      load(s, g, [{ op: 'copy', from: 0, to: unit, size: 4 }, store(2, 0x99), done]);
      mmio(s, g);
      run(s, g);
      calls.readMemory(rom, new Uint8Array(4));
      calls.readMemory(ram, new Uint8Array(4));
    },
  },
  {
    name: 'guest/slot-deleted-and-made-again',
    arches: WITH_GUESTS,
    runsGuest: true,
    run: (s) => {
      const { calls, unit } = s;
      const g = guest(s);
      const hva = s.memory(1);
      calls.setUserMemoryRegion(g.vm, 0, LOG, 0, unit, hva);
      load(s, g, [store(0x10, 1), pause, store(0x11, 2), store(0x12, 3), done]);
      run(s, g);
      calls.setUserMemoryRegion(g.vm, 0, 0, 0, 0, 0);
      mmio(s, g);
      calls.setUserMemoryRegion(g.vm, 0, LOG, 0, unit, hva);
      run(s, g);
      calls.readMemory(hva + 0x10, new Uint8Array(4));
      s.dirtyLog(g.vm, 0, 1);
    },
  },
  {
    name: 'guest/host-memory-goes-away',
    arches: WITH_GUESTS,
    runsGuest: true,
    run: (s) => {
      const { calls, unit } = s;
      const g = guest(s);
      const hva = s.memory(2);
      calls.setUserMemoryRegion(g.vm, 0, 0, 0, 2 * unit, hva);
      load(s, g, [store(0, 1), pause, store(unit, 2), done]);
      run(s, g);
      calls.munmap(hva + unit, unit);
      s.calls.run(g.vcpu, RUN_MS);
    },
  },
  {
    name: 'guest/immediate-exit',
    arches: WITH_GUESTS,
    runsGuest: true,
    run: (s) => {
      const { calls, unit } = s;
      const g = guest(s);
      const hva = s.memory(1);
      calls.setUserMemoryRegion(g.vm, 0, 0, 0, unit, hva);
      load(s, g, [{ op: 'copy', from: 0xd000_0000, to: 0x20, size: 1 }, store(0x21, 7), done]);
      mmio(s, g);
      calls.writeMemory(g.run + KVM_RUN.mmio.data, Uint8Array.of(0x77));
      calls.writeMemory(g.run + KVM_RUN.immediate_exit, Uint8Array.of(1));
      // The load is completed, and nothing else happens.
      calls.run(g.vcpu, RUN_MS);
      calls.readMemory(hva + 0x21, new Uint8Array(1));
      calls.writeMemory(g.run + KVM_RUN.immediate_exit, Uint8Array.of(0));
      run(s, g);
      calls.readMemory(hva + 0x20, new Uint8Array(2));
    },
  },
  {
    name: 'guest/immediate-exit-leaves-the-reason',
    arches: WITH_GUESTS,
    runsGuest: true,
    run: (s) => {
      const { calls, unit } = s;
      const g = guest(s);
      calls.setUserMemoryRegion(g.vm, 0, 0, 0, unit, s.memory(1));
      load(s, g, [{ op: 'copy', from: 0xd000_0000, to: 0x20, size: 1 }, pause, done]);
      mmio(s, g);
      for (const on of [1, 1, 0, 1, 0]) {
        calls.writeMemory(g.run + KVM_RUN.immediate_exit, Uint8Array.of(on));
        run(s, g);
      }
    },
  },
  {
    name: 'guest/kick',
    arches: WITH_GUESTS,
    runsGuest: true,
    run: async (s) => {
      const { calls, unit } = s;
      const g = guest(s);
      const hva = s.memory(1);
      calls.setUserMemoryRegion(g.vm, 0, 0, 0, unit, hva);
      load(s, g, [{ op: 'spin' }]);
      const running = calls.runAsync(g.vcpu);
      calls.kick(g.vcpu);
      await running;
      calls.readMemory(g.run + KVM_RUN.immediate_exit, new Uint8Array(1));
      // A kick that comes first isn't lost.
      calls.kick(g.vcpu);
      await calls.runAsync(g.vcpu);
      calls.run(g.vcpu, 5);
    },
  },
  {
    name: 'guest/ioeventfd',
    arches: ['x86_64'],
    runsGuest: true,
    run: (s) => {
      const { calls, unit } = s;
      const g = guest(s);
      const hva = s.memory(1);
      calls.setUserMemoryRegion(g.vm, 0, 0, 0, unit, hva);
      const any = calls.eventfd(0);
      const seven = calls.eventfd(0);
      const ports = calls.eventfd(0);
      calls.ioeventfd(g.vm, 0xd000_0000, 2, any, 0, 0);
      calls.ioeventfd(g.vm, 0xd000_0010, 4, seven, IOEVENTFD.DATAMATCH, 7);
      calls.ioeventfd(g.vm, 0x80, 1, ports, IOEVENTFD.PIO, 0);
      load(s, g, [
        store(0xd000_0000, 1, 2),
        store(0xd000_0000, 2, 2),
        store(0xd000_0010, 7, 4),
        { op: 'out', port: 0x80, size: 1, value: 3 },
        store(0xd000_0000, 9, 1),
        store(0xd000_0010, 8, 4),
        done,
      ]);
      mmio(s, g);
      mmio(s, g);
      run(s, g);
      for (const fd of [any, seven, ports]) calls.read(fd, new Uint8Array(8));
      for (const fd of [any, seven, ports]) calls.read(fd, new Uint8Array(8));
    },
  },
];
