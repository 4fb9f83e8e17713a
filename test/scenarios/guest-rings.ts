import { CAP } from '../../lib/uapi/capabilities.ts';
import { DIRTY_GFN, DIRTY_LOG_PAGE_OFFSET, MADV, MAP, PROT } from '../../lib/uapi/flags.ts';
import { KVM_DIRTY_GFN } from '../../lib/uapi/structs.ts';
import { done, guest, LOG, load, mmio, PAGE, run, store, WITH_GUESTS } from './guest-memory.ts';
import type { Scenario, ScriptOp } from './scenario.ts';

/** What a guest's stores put into rings that user space reads: of coalesced stores, and of dirty pages. */
export const guestRingScenarios: readonly Scenario[] = [
  {
    name: 'guest/coalesced-mmio',
    arches: ['x86_64'],
    runsGuest: true,
    run: (s) => {
      const { calls, unit } = s;
      const g = guest(s);
      const hva = s.memory(1);
      calls.setUserMemoryRegion(g.vm, 0, 0, 0, unit, hva);
      const ring = calls.mmap(PAGE, PROT.READ | PROT.WRITE, MAP.SHARED, g.vcpu, 2 * PAGE, 0, 0);
      calls.registerCoalescedMmio(g.vm, 0xd000_0000, 0x100, 0);
      load(s, g, [
        ...Array.from({ length: 171 }, (_, i) => store(0xd000_0000 + (i & 0xff), i & 0xff)),
        store(0xd000_0200, 1),
        done,
      ]);
      // The ring is full while an entry is still empty (half of them, before 6.12): then a store is an ordinary exit.
      mmio(s, g);
      const indexes = new Uint8Array(8);
      calls.readMemory(ring, indexes);
      calls.readMemory(ring + 8, new Uint8Array(8 + 4 + 4 + 1));
      calls.readMemory(ring + 8 + 24 * 168, new Uint8Array(8 + 4 + 4 + 1));
      // The reader has taken all.
      calls.writeMemory(ring, indexes.subarray(4));
      mmio(s, g);
      calls.readMemory(ring, new Uint8Array(8));
      run(s, g);
    },
  },
  {
    name: 'guest/coalesced-mmio-behind-kvm-run',
    arches: WITH_GUESTS,
    runsGuest: true,
    run: (s) => {
      const { calls, unit } = s;
      const g = guest(s);
      const page = calls.checkExtension(calls.openKvm(), CAP.COALESCED_MMIO);
      const alone = calls.mmap(PAGE, PROT.READ | PROT.WRITE, MAP.SHARED, g.vcpu, page * PAGE, 0, 0);
      const rings = [g.run + page * PAGE, alone];
      calls.setUserMemoryRegion(g.vm, 0, 0, 0, unit, s.memory(1));
      calls.registerCoalescedMmio(g.vm, 0xd000_0000, 0x100, 0);
      const go = (...values: readonly number[]): void => {
        load(s, g, [...values.map((value) => store(0xd000_0000, value, 4)), done]);
        run(s, g);
        for (const ring of rings) {
          calls.readMemory(ring, new Uint8Array(8));
          for (let entry = 0; entry < 4; entry++) calls.readMemory(ring + 8 + 24 * entry, new Uint8Array(20));
        }
      };
      go(1, 2);
      calls.writeMemory(rings[0]!, Uint8Array.of(2, 0, 0, 0));
      go(3);
      calls.writeMemory(rings[1]!, Uint8Array.of(3, 0, 0, 0));
      go(4);
    },
  },
  {
    name: 'guest/dirty-ring',
    arches: WITH_GUESTS,
    runsGuest: true,
    run: (s) => {
      const { calls, unit } = s;
      const bytes = 4096;
      const g = guest(s, (vm) => {
        calls.enableCap(vm, CAP.DIRTY_LOG_RING_ACQ_REL, 0, [0]);
        calls.enableCap(vm, CAP.DIRTY_LOG_RING_ACQ_REL, 0, [3000]);
        calls.enableCap(vm, CAP.DIRTY_LOG_RING_ACQ_REL, 0, [2048]);
        calls.enableCap(vm, CAP.DIRTY_LOG_RING_ACQ_REL, 0, [0x20_0000]);
        calls.resetDirtyRings(vm);
        calls.enableCap(vm, CAP.DIRTY_LOG_RING_ACQ_REL, 0, [bytes]);
        calls.enableCap(vm, CAP.DIRTY_LOG_RING_ACQ_REL, 0, [bytes]);
      });
      const ring = calls.mmap(bytes, PROT.READ | PROT.WRITE, MAP.SHARED, g.vcpu, DIRTY_LOG_PAGE_OFFSET * PAGE, 0, 0);
      const hva = s.memory(400);
      calls.setUserMemoryRegion(g.vm, 2, LOG, 1024 * unit, 400 * unit, hva);
      s.dirtyLog(g.vm, 2, 400);
      calls.clearDirtyLog(g.vm, 2, 0, 64, new Uint8Array(8));
      load(s, g, [store(1024 * PAGE, 1), store(1027 * PAGE, 1), store(1030 * PAGE, 1), done]);
      run(s, g);
      calls.readMemory(ring, new Uint8Array(4 * KVM_DIRTY_GFN.size));
      calls.resetDirtyRings(g.vm);
      const reset = new Uint8Array(Uint32Array.of(DIRTY_GFN.RESET).buffer);
      calls.writeMemory(ring, reset);
      calls.writeMemory(ring + 2 * KVM_DIRTY_GFN.size, reset);
      // The second entry wasn't given back, so the third has to wait.
      calls.resetDirtyRings(g.vm);
      calls.writeMemory(ring + KVM_DIRTY_GFN.size, reset);
      calls.resetDirtyRings(g.vm);
      calls.readMemory(ring, new Uint8Array(4 * KVM_DIRTY_GFN.size));
    },
  },
  {
    name: 'guest/dirty-ring-of-loads',
    arches: WITH_GUESTS,
    runsGuest: true,
    needsProcessor: true,
    run: (s) => {
      const { calls, unit } = s;
      const g = guest(s, (vm) => calls.enableCap(vm, CAP.DIRTY_LOG_RING_ACQ_REL, 0, [PAGE]));
      const ring = calls.mmap(PAGE, PROT.READ | PROT.WRITE, MAP.SHARED, g.vcpu, DIRTY_LOG_PAGE_OFFSET * PAGE, 0, 0);
      const hva = s.memory(8);
      const sink = s.memory(1);
      calls.setUserMemoryRegion(g.vm, 1, 0, 40 * unit, unit, sink);
      calls.setUserMemoryRegion(g.vm, 2, LOG, 64 * unit, 8 * unit, hva);
      let taken = 0;
      /** What was loaded and stored, and what the ring has of it, which is given back. */
      const go = (...ops: readonly ScriptOp[]): void => {
        load(s, g, [...ops, done]);
        run(s, g);
        const entry = new Uint8Array(KVM_DIRTY_GFN.size);
        for (; calls.readMemory(ring + taken * entry.length, entry) > 0 && entry[0] === DIRTY_GFN.DIRTY; taken++) {
          calls.writeMemory(ring + taken * entry.length, new Uint8Array(Uint32Array.of(DIRTY_GFN.RESET).buffer));
        }
        calls.resetDirtyRings(g.vm);
      };
      const loads = (page: number): ScriptOp => ({ op: 'copy', from: page * PAGE, to: 40 * PAGE, size: 4 });
      go(loads(65));
      // It is mapped; a store is noticed again, and once.
      go(loads(65));
      go(store(65 * PAGE, 1), loads(66), store(66 * PAGE, 1), store(65 * PAGE, 2));
      // Others are there at its place; and then it is at another.
      calls.madvise(hva, 8 * unit, MADV.REMOVE);
      go(loads(65), loads(66));
      calls.setUserMemoryRegion(g.vm, 2, LOG, 80 * unit, 8 * unit, hva);
      go(loads(81), loads(82));
      // What nobody logs is mapped, and makes nothing dirty when it is logged later.
      calls.setUserMemoryRegion(g.vm, 2, 0, 80 * unit, 8 * unit, hva);
      go(loads(84));
      calls.setUserMemoryRegion(g.vm, 2, LOG, 80 * unit, 8 * unit, hva);
      go(loads(84), loads(85), store(84 * PAGE, 1));
    },
  },
  {
    name: 'guest/dirty-ring-full',
    arches: WITH_GUESTS,
    runsGuest: true,
    needsProcessor: true,
    run: (s) => {
      const { calls, unit } = s;
      const bytes = 4096;
      const g = guest(s, (vm) => calls.enableCap(vm, CAP.DIRTY_LOG_RING_ACQ_REL, 0, [bytes]));
      const ring = calls.mmap(bytes, PROT.READ | PROT.WRITE, MAP.SHARED, g.vcpu, DIRTY_LOG_PAGE_OFFSET * PAGE, 0, 0);
      const hva = s.memory(400);
      calls.setUserMemoryRegion(g.vm, 2, LOG, 1024 * unit, 400 * unit, hva);
      load(s, g, [...Array.from({ length: 300 }, (_, i) => store((1024 + i) * PAGE, 1)), done]);
      // 256 entries, 64 of them reserved.
      run(s, g);
      run(s, g);
      const reset = new Uint8Array(Uint32Array.of(DIRTY_GFN.RESET).buffer);
      for (let i = 0; i < 192; i++) calls.writeMemory(ring + i * KVM_DIRTY_GFN.size, reset);
      calls.resetDirtyRings(g.vm);
      run(s, g);
    },
  },
];
