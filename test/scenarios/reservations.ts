import { CAP } from '../../lib/uapi/capabilities.ts';
import { DIRTY_GFN, DIRTY_LOG_PAGE_OFFSET, MADV, MAP, MEM, PROT } from '../../lib/uapi/flags.ts';
import { KVM_DIRTY_GFN, KVM_RUN } from '../../lib/uapi/structs.ts';
import { type Guest, guest, load, mmio, run } from './guest-memory.ts';
import { HptGuest } from './hpt-guest-vm.ts';
import { KeyedVm } from './s390x-keys.ts';
import { PSW, pattern, S390xVm, s390xScenario } from './s390x-vm.ts';
import { EVERYWHERE, type Scenario, type ScenarioHost, type ScriptOp } from './scenario.ts';

const LOG = MEM.LOG_DIRTY_PAGES;
const RW = PROT.READ | PROT.WRITE;
const ANONYMOUS = MAP.PRIVATE | MAP.ANONYMOUS;
const PAGES = 8;
/** Where there is always another page of the region than the guest's code, and where loads go. */
const GPA = 0x1000_0000;

/** A reservation of some pages (on s390x a slot's unit), into which memory is put page by page. */
class Pages {
  readonly hva: number;
  readonly size: number;
  readonly #s: ScenarioHost;

  constructor(s: ScenarioHost, pages = PAGES) {
    const { calls, unit } = s;
    this.#s = s;
    this.size = Math.ceil((pages * calls.pageSize) / unit) * unit;
    this.hva = calls.mmap(this.size, PROT.NONE, ANONYMOUS | MAP.NORESERVE, -1, 0, unit, 0);
  }

  at(page: number): number {
    return this.hva + page * this.#s.calls.pageSize;
  }

  put(page: number, count = 1): number {
    return this.#s.calls.mmapFixed(this.at(page), count * this.#s.calls.pageSize, RW, ANONYMOUS, -1, 0);
  }

  /** A page of a memfd that begins with these bytes. */
  putMemfd(page: number, content: Uint8Array, prot: number = RW): number {
    const { calls } = this.#s;
    const memfd = calls.memfdCreate('piece', calls.pageSize, 0);
    const hva = calls.mmap(calls.pageSize, RW, MAP.SHARED, memfd, 0, 0, 0);
    calls.writeMemory(hva, content);
    calls.mmapFixed(this.at(page), calls.pageSize, prot, MAP.SHARED, memfd, 0);
    return calls.close(memfd);
  }

  take(page: number, count = 1): number {
    const { calls } = this.#s;
    return calls.mmapFixed(this.at(page), count * calls.pageSize, PROT.NONE, ANONYMOUS | MAP.NORESERVE, -1, 0);
  }

  protect(page: number, prot: number): number {
    return this.#s.calls.mprotect(this.at(page), this.#s.calls.pageSize, prot);
  }

  read(page: number, length = 4): number {
    return this.#s.calls.readMemory(this.at(page), new Uint8Array(length));
  }

  slot(vm: number, slot: number, flags = 0): number {
    return this.#s.calls.setUserMemoryRegion(vm, slot, flags, GPA, this.size, this.hva);
  }

  dirty(vm: number, slot: number): void {
    this.#s.dirtyLog(vm, slot, this.size / this.#s.calls.pageSize);
  }
}

const store = (address: number, value: number): ScriptOp => ({ op: 'store', address, size: 1, value });
const pause: ScriptOp = { op: 'pause' };
const done: ScriptOp = { op: 'done' };
const WITH_GUESTS = ['x86_64', 'aarch64', 'riscv64'] as const;
const PAGE = 4096;

/** One KVM_RUN that fails, and on x86 what kvm_run says about it. */
function fail(s: ScenarioHost, g: Guest): void {
  if (s.arch !== 'x86_64') {
    s.calls.run(g.vcpu, 2000);
    return;
  }
  run(s, g);
  const { flags } = KVM_RUN.memory_fault;
  s.calls.readMemory(g.run + flags, new Uint8Array(24));
}

/** Regions over addresses without memory, into which memory comes and from which it goes. */
export const reservationScenarios: readonly Scenario[] = [
  {
    name: 'reservation/calls',
    arches: EVERYWHERE,
    run: (s) => {
      const { calls } = s;
      const size = calls.pageSize;
      const r = new Pages(s);
      const other = s.memory(1);
      // What nothing was put into.
      r.read(0);
      calls.writeMemory(r.at(0), new Uint8Array(4));
      calls.view(r.hva, r.size);
      calls.mprotect(r.at(0), size, RW);
      calls.madvise(r.at(0), size, MADV.DONTNEED);
      // What isn't whole pages inside a reservation, and what can't be mapped.
      calls.mmapFixed(r.at(0) + 1, size, RW, ANONYMOUS, -1, 0);
      calls.mmapFixed(r.hva + r.size - size, 2 * size, RW, ANONYMOUS, -1, 0);
      calls.mmapFixed(r.at(0), 0, RW, ANONYMOUS, -1, 0);
      calls.mmapFixed(r.at(0), r.size + 1, RW, ANONYMOUS, -1, 0);
      calls.mmapFixed(other, size, RW, ANONYMOUS, -1, 0);
      calls.mmapFixed(r.at(0), size, RW, MAP.ANONYMOUS, -1, 0);
      calls.mmapFixed(r.at(0), size, RW, MAP.SHARED | MAP.PRIVATE, -1, 0);
      calls.mmapFixed(r.at(0), size, RW, ANONYMOUS | 0x10, -1, 0);
      calls.mmapFixed(r.at(0), size, 0x10, ANONYMOUS, -1, 0);
      calls.mmapFixed(r.at(0), size, RW, MAP.SHARED, -2, 0);
      calls.mmapFixed(r.at(0), size, RW, MAP.SHARED, 0x7fff_ffff, 0);
      const event = calls.eventfd(0);
      calls.mmapFixed(r.at(0), size, RW, MAP.SHARED, event, 0);
      const memfd = calls.memfdCreate('piece', 2 * size, 0);
      calls.mmapFixed(r.at(0), size, RW, MAP.SHARED, memfd, 1);
      // Pieces beside each other, over each other, and one of a length that isn't whole pages.
      r.put(0, 2);
      calls.writeMemory(r.at(0), new Uint8Array(2 * size).fill(1));
      calls.mmapFixed(r.at(1), size + 1, RW, MAP.SHARED, memfd, 0);
      calls.writeMemory(r.at(2) - 2, new Uint8Array(4).fill(2));
      r.read(0, 4 * size);
      calls.gather(Float64Array.of(r.at(0), r.at(2), r.at(3)), Uint32Array.of(2, 2, 2), new Uint8Array(6));
      calls.mmapFixed(r.at(1), size, PROT.READ, MAP.SHARED, memfd, size);
      r.read(1);
      calls.writeMemory(r.at(1), new Uint8Array(4));
      calls.mprotect(r.at(0), 3 * size, PROT.READ);
      calls.writeMemory(r.at(0), new Uint8Array(4));
      calls.mprotect(r.at(0), 4 * size, RW);
      calls.madvise(r.at(0), size, MADV.DONTNEED);
      calls.madvise(r.at(0), size, MADV.REMOVE);
      calls.madvise(r.at(1), 2 * size, MADV.DONTNEED);
      r.read(1);
      calls.mprotect(r.at(0), 3 * size, RW);
      calls.madvise(r.at(1), 2 * size, MADV.REMOVE);
      r.read(0, 4 * size);
      r.take(1);
      r.read(0, 4 * size);
      r.read(2);
      calls.munmap(r.at(0), size);
      r.put(0);
      r.read(0);
      r.take(0, PAGES);
      r.put(3);
      r.read(3);
      calls.view(r.hva, r.size);
      calls.munmap(r.hva, r.size);
      r.put(3);
      r.read(3);
    },
  },
  {
    name: 'reservation/slot-without-memory',
    arches: EVERYWHERE,
    run: (s) => {
      const { vm } = s.vm();
      const r = new Pages(s);
      r.slot(vm, 0, LOG);
      r.dirty(vm, 0);
      r.put(1);
      s.calls.writeMemory(r.at(1), Uint8Array.of(1));
      r.dirty(vm, 0);
      r.take(1);
      r.slot(vm, 0);
      s.calls.setUserMemoryRegion(vm, 0, 0, 2 * GPA, r.size, r.hva);
      s.calls.munmap(r.hva, r.size);
      s.calls.setUserMemoryRegion(vm, 0, 0, 0, 0, 0);
    },
  },
  {
    name: 'reservation/pieces-come-and-go',
    arches: WITH_GUESTS,
    runsGuest: true,
    run: (s) => {
      const g = guest(s);
      const r = new Pages(s);
      r.slot(g.vm, 0, LOG);
      r.put(1);
      load(s, g, [
        store(GPA + PAGE, 1),
        pause,
        store(GPA + 3 * PAGE, 2),
        pause,
        store(GPA + 3 * PAGE + 1, 3),
        store(GPA + 4 * PAGE, 4),
        done,
      ]);
      run(s, g);
      r.putMemfd(3, Uint8Array.of(0x33));
      run(s, g);
      r.dirty(g.vm, 0);
      // Memory of other kinds takes the places of what the guest has been to; that changes no page in the log.
      r.put(3, 2);
      r.dirty(g.vm, 0);
      r.read(3);
      run(s, g);
      for (const page of [1, 3, 4]) r.read(page);
      r.dirty(g.vm, 0);
    },
  },
  {
    name: 'reservation/replaced-while-logged',
    arches: WITH_GUESTS,
    runsGuest: true,
    run: (s) => {
      const g = guest(s);
      const r = new Pages(s);
      r.slot(g.vm, 0, LOG);
      r.put(1);
      load(s, g, [
        ...[store(GPA + PAGE, 1), pause, store(GPA + PAGE + 1, 2), pause],
        ...[store(GPA + PAGE + 2, 3), pause, store(GPA + PAGE + 3, 4), done],
      ]);
      run(s, g);
      // What was dirty stays so, whatever is there now.
      r.putMemfd(1, Uint8Array.of(0x11, 0x11, 0x11, 0x11));
      r.dirty(g.vm, 0);
      run(s, g);
      r.dirty(g.vm, 0);
      r.read(1);
      r.take(1);
      r.put(1);
      run(s, g);
      r.take(1);
      r.dirty(g.vm, 0);
      r.put(0, 3);
      run(s, g);
      r.dirty(g.vm, 0);
      r.read(1);
    },
  },
  {
    name: 'reservation/replaced-with-a-ring',
    arches: WITH_GUESTS,
    runsGuest: true,
    run: (s) => {
      const { calls } = s;
      const bytes = 4096;
      const g = guest(s, (vm) => calls.enableCap(vm, CAP.DIRTY_LOG_RING_ACQ_REL, 0, [bytes]));
      const ring = calls.mmap(bytes, RW, MAP.SHARED, g.vcpu, DIRTY_LOG_PAGE_OFFSET * PAGE, 0, 0);
      const entries = () => calls.readMemory(ring, new Uint8Array(8 * KVM_DIRTY_GFN.size));
      const r = new Pages(s);
      r.slot(g.vm, 0, LOG);
      r.put(0, 3);
      load(s, g, [
        ...[store(GPA, 1), store(GPA + PAGE, 1), pause, store(GPA, 2), store(GPA + PAGE, 2), pause],
        ...[store(GPA, 3), store(GPA + PAGE, 3), pause, store(GPA, 4), store(GPA + PAGE, 4), done],
      ]);
      run(s, g);
      entries();
      // The guest's next store to a page that is another is noticed, although its entry wasn't given back.
      r.put(1);
      run(s, g);
      entries();
      r.protect(0, PROT.READ);
      r.protect(0, RW);
      run(s, g);
      entries();
      for (let i = 0; i < 2; i++) {
        calls.writeMemory(ring + i * KVM_DIRTY_GFN.size, new Uint8Array(Uint32Array.of(DIRTY_GFN.RESET).buffer));
      }
      calls.resetDirtyRings(g.vm);
      run(s, g);
      entries();
    },
  },
  {
    name: 'reservation/no-memory-yet',
    arches: WITH_GUESTS,
    runsGuest: true,
    needsProcessor: true,
    run: (s) => {
      const g = guest(s);
      const r = new Pages(s);
      r.slot(g.vm, 0, LOG);
      load(s, g, [
        store(GPA + PAGE + 8, 1),
        pause,
        store(GPA + PAGE + 9, 2),
        { op: 'copy', from: GPA + 2 * PAGE, to: GPA + PAGE + 10, size: 1 },
        done,
      ]);
      fail(s, g);
      fail(s, g);
      r.dirty(g.vm, 0);
      // A neighbour is of no use.
      r.put(0);
      fail(s, g);
      r.put(1);
      run(s, g);
      r.dirty(g.vm, 0);
      r.take(1);
      fail(s, g);
      r.dirty(g.vm, 0);
      r.putMemfd(1, new Uint8Array(16).fill(0x11));
      fail(s, g);
      r.putMemfd(2, Uint8Array.of(0x22), PROT.READ);
      run(s, g);
      s.calls.readMemory(r.at(1), new Uint8Array(16));
      r.dirty(g.vm, 0);
    },
  },
  {
    name: 'reservation/read-only-piece',
    arches: WITH_GUESTS,
    runsGuest: true,
    needsProcessor: true,
    run: (s) => {
      const g = guest(s);
      const r = new Pages(s);
      r.slot(g.vm, 0, LOG);
      r.put(0);
      r.putMemfd(1, Uint8Array.of(0x11), PROT.READ);
      r.put(2);
      r.protect(2, PROT.READ);
      load(s, g, [
        store(GPA, 1),
        { op: 'copy', from: GPA + PAGE, to: GPA + 1, size: 1 },
        store(GPA + PAGE + 1, 2),
        pause,
        store(GPA + 2 * PAGE, 3),
        pause,
        store(GPA + PAGE + 2, 4),
        done,
      ]);
      fail(s, g);
      fail(s, g);
      for (const page of [0, 1]) r.read(page);
      r.dirty(g.vm, 0);
      r.protect(1, RW);
      run(s, g);
      fail(s, g);
      r.put(2);
      run(s, g);
      r.dirty(g.vm, 0);
      r.protect(1, PROT.READ);
      fail(s, g);
      r.protect(1, PROT.NONE);
      fail(s, g);
      r.protect(1, RW);
      run(s, g);
      for (const page of [0, 1, 2]) r.read(page);
      r.dirty(g.vm, 0);
    },
  },
  {
    name: 'reservation/taken-for-a-device',
    arches: ['x86_64'],
    runsGuest: true,
    run: (s) => {
      const g = guest(s);
      const r = new Pages(s);
      r.slot(g.vm, 0, MEM.READONLY);
      r.putMemfd(1, Uint8Array.of(0x11, 0x12));
      r.put(2);
      // A read-only slot makes every store an MMIO exit, whatever is there, and before anything is.
      load(s, g, [store(GPA + 3 * PAGE, 1), store(GPA + PAGE, 2), store(GPA + 2 * PAGE, 3), done]);
      mmio(s, g);
      mmio(s, g);
      r.take(2);
      mmio(s, g);
      run(s, g);
      for (const page of [1, 2, 3]) r.read(page);
    },
  },
  {
    name: 'reservation/hpt',
    arches: ['ppc64'],
    runsGuest: true,
    run: (s) => {
      const g = new HptGuest(s, 18);
      const r = new Pages(s);
      const { pageSize } = s.calls;
      // The last 4 KiB of a host page, which may have 64.
      const at = (page: number): number => GPA + (page + 1) * pageSize - 4096;
      r.slot(g.vm, 1, LOG);
      g.map();
      for (const page of [1, 2, 3]) g.real(at(page), 0x10n, 3);
      const reader = g.reader();
      g.drain(reader);
      const bytes = (page: number) => s.calls.readMemory(r.at(page) + (at(page) % pageSize), new Uint8Array(8));
      g.load([
        ...[store(at(1), 1), pause, store(at(1) + 1, 2), pause, store(at(1) + 2, 3), pause],
        ...[{ op: 'copy', from: at(2), to: at(1) + 4, size: 1 } as const, store(at(2) + 1, 4), pause, store(at(3), 5)],
        done,
      ]);
      // Not yet there.
      g.run();
      g.run();
      r.put(1);
      g.mmio();
      g.drain(reader);
      r.dirty(g.vm, 1);
      // Another piece in its place.
      r.put(1);
      g.drain(reader);
      g.mmio();
      g.drain(reader);
      r.dirty(g.vm, 1);
      // Gone, and there again.
      r.take(1);
      g.drain(reader);
      g.run();
      r.put(1);
      g.mmio();
      bytes(1);
      r.dirty(g.vm, 1);
      // Read-only: loads pass, stores don't.
      r.put(2);
      s.calls.writeMemory(r.at(2) + (at(2) % pageSize), Uint8Array.of(0x22));
      r.protect(2, PROT.READ);
      g.run();
      bytes(1);
      g.drain(reader);
      r.dirty(g.vm, 1);
      r.protect(2, RW);
      g.mmio();
      g.drain(reader);
      r.putMemfd(3, new Uint8Array(0));
      g.mmio();
      for (const page of [1, 2, 3]) bytes(page);
      r.dirty(g.vm, 1);
    },
  },
  s390xScenario('reservation/mem-op', (s) => {
    const m = new S390xVm(s);
    m.memory(1);
    const r = new Pages(s);
    m.slot(r.hva, 1, GPA, 1, LOG);
    const page = (index: number): number => GPA + index * PAGE;
    const log = (): void => r.dirty(m.vm, 1);
    for (const size of [8, PAGE + 8]) {
      m.absoluteRead(page(0), size);
      m.absoluteWrite(page(0), size);
    }
    log();
    r.put(0);
    m.absoluteWrite(page(0) + 8, 8);
    m.absoluteWrite(page(1) - 8, 16, { buf: pattern(16, 0x33) });
    m.absoluteRead(page(1) - 16, 24);
    log();
    r.putMemfd(1, Uint8Array.of(0x11));
    m.absoluteRead(page(1) - 8, 16);
    m.absoluteWrite(page(1) - 8, 16, { buf: pattern(16, 0x44) });
    log();
    // Another piece in its place, which is no change of the guest's.
    r.put(1);
    m.absoluteRead(page(1), 8);
    log();
    m.absoluteWrite(page(1), 8);
    log();
    r.protect(1, PROT.READ);
    m.absoluteRead(page(1), 8);
    m.absoluteWrite(page(1), 8);
    r.take(1);
    m.absoluteRead(page(1), 8);
    m.absoluteWrite(page(1), 8);
    m.compareExchange(page(1), new Uint8Array(8), pattern(8));
    r.put(1);
    m.compareExchange(page(1), new Uint8Array(8), pattern(8));
    m.absoluteRead(page(1), 8);
    log();
    // Logical accesses come to the same pages.
    m.latch(PSW.MODE_64);
    m.read(page(1), 8);
    r.take(1);
    m.read(page(1), 8);
    m.write(page(1), 8);
  }),
  s390xScenario('reservation/keys', (s) => {
    const m = new KeyedVm(s);
    const r = new Pages(s, 512);
    m.slot(r.hva, 2, GPA, 1, LOG);
    const gfn = GPA / PAGE;
    const keys = (): void => {
      m.getKeys(gfn, 4);
    };
    const log = (): void => r.dirty(m.vm, 1);
    keys();
    m.setKeys(gfn + 1, 0x10);
    r.put(0, 4);
    for (let page = 0; page < 4; page++) m.absoluteWrite(GPA + page * PAGE, 8);
    m.setKeys(gfn, 0x10, 0x20, 0x30, 0x40);
    keys();
    log();
    // Another page, which has no key of its own yet; and none.
    r.put(1);
    keys();
    m.absoluteWrite(GPA + PAGE, 8);
    keys();
    r.take(2);
    keys();
    m.setKeys(gfn + 2, 0x50);
    keys();
    m.checks(GPA + 2 * PAGE, 8, 5);
    r.put(2);
    keys();
    m.checks(GPA + 2 * PAGE, 8, 5);
    m.absoluteRead(GPA + 2 * PAGE, 8);
    keys();
    log();
    // With a whole segment its page table goes, in which the keys are.
    r.put(0, 256);
    keys();
    m.absoluteWrite(GPA, 8);
    keys();
    m.setKeys(gfn, 0x10, 0x20, 0x30, 0x40);
    keys();
    r.take(1, 511);
    keys();
    r.take(0, 512);
    keys();
    m.setKeys(gfn, 0x10);
    r.put(0, 512);
    keys();
    log();
  }),
];
