import { CAP } from '../../lib/uapi/capabilities.ts';
import { DIRTY_LOG, MAP, MEM, PROT } from '../../lib/uapi/flags.ts';
import { type Guest, guest, load, run } from './guest-memory.ts';
import type { Scenario, ScenarioHost, ScriptOp } from './scenario.ts';

const LOG = MEM.LOG_DIRTY_PAGES;
const PAGES = 8;
/** What is loaded is stored here, in a slot that isn't logged. */
const SINK = 40;
const SINK_SLOT = 20;

const done: ScriptOp = { op: 'done' };

/** A guest with memory at 0 for slot 0, which has its code and what it loads elsewhere. */
class LoadingGuest {
  readonly g: Guest;
  readonly hva: number;
  readonly #s: ScenarioHost;

  constructor(s: ScenarioHost, flags: number = LOG, hva = s.memory(PAGES), before?: (vm: number) => void) {
    this.#s = s;
    this.g = guest(s, before);
    this.hva = hva;
    s.calls.setUserMemoryRegion(this.g.vm, SINK_SLOT, 0, SINK * s.unit, s.unit, s.memory(1));
    this.slot(flags);
  }

  get page(): number {
    return this.#s.calls.pageSize;
  }

  slot(flags: number, bytes = PAGES * this.page, gpa = 0): void {
    this.#s.calls.setUserMemoryRegion(this.g.vm, 0, flags, gpa, bytes, this.hva);
  }

  /** Loads from pages, then stores to others, and asks for the log. */
  access(loads: readonly number[], stores: readonly number[] = [], log = true): void {
    const { page } = this;
    load(this.#s, this.g, [
      ...loads.map((at): ScriptOp => ({ op: 'copy', from: at * page, to: SINK * this.#s.unit, size: 4 })),
      ...stores.map((at): ScriptOp => ({ op: 'store', address: at * page + 8, size: 4, value: at })),
      done,
    ]);
    run(this.#s, this.g);
    if (log) this.#s.dirtyLog(this.g.vm, 0, PAGES);
  }
}

function scenario(name: string, body: (s: ScenarioHost) => void): Scenario {
  return { name: `guest-loads/${name}`, arches: ['x86_64', 'aarch64', 'riscv64'], runsGuest: true, run: body };
}

/** What the log says of pages that a guest only loads from. */
export const guestLoadScenarios: readonly Scenario[] = [
  scenario('first-and-again', (s) => {
    const g = new LoadingGuest(s);
    g.access([1, 2]);
    g.access([1, 3]);
    g.access([3], [1, 4]);
    g.access([4, 5]);
    g.access([1, 2, 3, 4, 5, 6]);
  }),
  scenario('slots-that-change', (s) => {
    const g = new LoadingGuest(s);
    g.access([1, 2]);
    const other = (size: number): void => {
      s.calls.setUserMemoryRegion(g.g.vm, 1, 0, 60 * s.unit, size, g.hva);
    };
    other(s.unit);
    g.access([1, 2]);
    other(0);
    g.access([1]);
    g.slot(0);
    g.slot(LOG);
    g.access([1, 2]);
    g.slot(LOG, PAGES * g.page, 16 * s.unit);
    g.slot(LOG);
    g.access([1]);
    g.slot(LOG, 0);
    g.slot(LOG);
    g.access([1]);
  }),
  scenario('mapped-before-the-log', (s) => {
    const g = new LoadingGuest(s, 0);
    g.access([1, 2], [3], false);
    g.slot(LOG);
    g.access([1, 3, 4]);
    g.access([1], [2]);
  }),
  scenario('host-takes-pages-away', (s) => {
    const g = new LoadingGuest(s);
    const { calls } = s;
    calls.mprotect(g.hva, 4 * g.page, PROT.READ);
    g.access([1, 2, 5]);
    calls.mprotect(g.hva, 4 * g.page, PROT.READ | PROT.WRITE);
    g.access([1, 5]);
    calls.mprotect(g.hva + 5 * g.page, g.page, PROT.READ);
    calls.mprotect(g.hva + 5 * g.page, g.page, PROT.READ | PROT.WRITE);
    g.access([1, 2, 5]);
  }),
  scenario('private-memory', (s) => {
    const { calls } = s;
    const { pageSize } = calls;
    const hva = calls.mmap(PAGES * pageSize, PROT.READ | PROT.WRITE, MAP.PRIVATE | MAP.ANONYMOUS, -1, 0, s.unit, 0);
    calls.writeMemory(hva + 2 * pageSize, Uint8Array.of(1));
    calls.readMemory(hva + 3 * pageSize, new Uint8Array(1));
    const g = new LoadingGuest(s, LOG, hva);
    g.access([1, 2, 3]);
    g.access([1], [3]);
    g.access([1, 2, 3]);
    calls.writeMemory(hva + pageSize, Uint8Array.of(1));
    g.access([1]);
  }),
  scenario('read-only', (s) => {
    const g = new LoadingGuest(s, LOG | MEM.READONLY);
    g.access([1, 2]);
    g.slot(0, 0);
    g.slot(LOG);
    g.access([1]);
  }),
  scenario('faulted-in-beforehand', (s) => {
    const g = new LoadingGuest(s);
    s.calls.preFaultMemory(g.g.vcpu, BigUint64Array.of(BigInt(g.page), BigInt(3 * g.page)), 0);
    s.dirtyLog(g.g.vm, 0, PAGES);
    g.access([1, 2, 4]);
  }),
  scenario('manual-protect', (s) => {
    for (const mode of [DIRTY_LOG.MANUAL_PROTECT_ENABLE, 3]) {
      const g = new LoadingGuest(s, 0, s.memory(PAGES), (vm) => {
        s.calls.enableCap(vm, CAP.MANUAL_DIRTY_LOG_PROTECT2, 0, [BigInt(mode)]);
      });
      g.access([1], [2], false);
      g.slot(LOG);
      g.access([1, 3]);
      s.calls.clearDirtyLog(g.g.vm, 0, 0, 64, Uint8Array.of(0xff, 0, 0, 0, 0, 0, 0, 0));
      g.access([1, 2, 3, 4], [5]);
      s.calls.clearDirtyLog(g.g.vm, 0, 0, 64, Uint8Array.of(0xff, 0, 0, 0, 0, 0, 0, 0));
      g.access([4, 5], [1]);
    }
  }),
];
