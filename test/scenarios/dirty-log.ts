import { CAP } from '../../lib/uapi/capabilities.ts';
import { MEM } from '../../lib/uapi/flags.ts';
import { EVERYWHERE, type Scenario } from './scenario.ts';

const LOG = MEM.LOG_DIRTY_PAGES;

/** GET_DIRTY_LOG and CLEAR_DIRTY_LOG without a guest: who may ask, for what, in which buffers. */
export const dirtyLogScenarios: readonly Scenario[] = [
  {
    name: 'dirty-log/who-may-ask',
    arches: EVERYWHERE,
    run: (s) => {
      const { vm } = s.vm();
      const { calls, unit } = s;
      const hva = s.memory(4);
      const npages = unit / calls.pageSize;
      calls.setUserMemoryRegion(vm, 0, 0, 0, unit, hva);
      calls.setUserMemoryRegion(vm, 1, LOG, 2 * unit, unit, hva);
      s.dirtyLog(vm, 0, npages);
      s.dirtyLog(vm, 1, npages);
      s.dirtyLog(vm, 2, npages);
      s.dirtyLog(vm, 40000, npages);
      s.dirtyLog(vm, 0xffff_0001, npages);
      // Logging goes off and on again.
      calls.setUserMemoryRegion(vm, 1, 0, 2 * unit, unit, hva);
      s.dirtyLog(vm, 1, npages);
      calls.setUserMemoryRegion(vm, 1, LOG, 2 * unit, unit, hva);
      s.dirtyLog(vm, 1, npages);
      calls.setUserMemoryRegion(vm, 1, LOG, 2 * unit, 0, hva);
      s.dirtyLog(vm, 1, npages);
    },
  },
  {
    name: 'dirty-log/bad-buffers',
    arches: EVERYWHERE,
    run: (s) => {
      const { vm } = s.vm();
      const { calls, unit } = s;
      const hva = s.memory(4);
      // A page more than a word's 64.
      const units = Math.max(1, Math.ceil((65 * calls.pageSize) / unit));
      const size = s.arch === 's390x' ? unit : units * unit;
      const memory = s.arch === 's390x' ? hva : s.memory(units);
      calls.setUserMemoryRegion(vm, 0, LOG, 0, size, memory);
      const bytes = Math.ceil(size / calls.pageSize / 64) * 8;
      calls.getDirtyLog(vm, 0, null);
      calls.getDirtyLog(vm, 0, new Uint8Array(0));
      calls.getDirtyLog(vm, 0, new Uint8Array(bytes - 8));
      calls.getDirtyLog(vm, 0, new Uint8Array(bytes - 1));
      calls.getDirtyLog(vm, 0, new Uint8Array(bytes));
      // What lies behind the bitmap isn't touched.
      calls.getDirtyLog(vm, 0, new Uint8Array(bytes + 8).fill(0xee));
    },
  },
  {
    name: 'dirty-log/host-writes-are-not-seen',
    arches: EVERYWHERE,
    run: (s) => {
      const { vm } = s.vm();
      const { calls, unit } = s;
      const hva = s.memory(1);
      calls.setUserMemoryRegion(vm, 0, LOG, 0, unit, hva);
      calls.writeMemory(hva, Uint8Array.of(1, 2, 3));
      s.dirtyLog(vm, 0, unit / calls.pageSize);
    },
  },
  {
    name: 'dirty-log/manual-protect',
    arches: EVERYWHERE,
    run: (s) => {
      const { vm } = s.vm();
      const { calls } = s;
      const cap = CAP.MANUAL_DIRTY_LOG_PROTECT2;
      calls.enableCap(vm, cap, 0, [2]);
      calls.enableCap(vm, cap, 0, [4]);
      calls.enableCap(vm, cap, 1, [1]);
      calls.enableCap(vm, cap, 0, [1]);
      calls.enableCap(vm, cap, 0, [3]);
      calls.enableCap(vm, cap, 0, [0]);
      calls.enableCap(vm, 9999, 0, []);
    },
  },
  {
    name: 'dirty-log/initially-set',
    arches: ['x86_64', 'aarch64', 'riscv64'],
    run: (s) => {
      const { vm } = s.vm();
      const { calls, unit } = s;
      const hva = s.memory(70);
      calls.enableCap(vm, CAP.MANUAL_DIRTY_LOG_PROTECT2, 0, [3]);
      calls.setUserMemoryRegion(vm, 0, LOG, 0, 70 * unit, hva);
      s.dirtyLog(vm, 0, 70);
      s.dirtyLog(vm, 0, 70);
      calls.clearDirtyLog(vm, 0, 0, 64, Uint8Array.of(0x0f, 0, 0, 0, 0, 0, 0, 0x80));
      s.dirtyLog(vm, 0, 70);
      calls.clearDirtyLog(vm, 0, 64, 6, new Uint8Array(8).fill(0xff));
      s.dirtyLog(vm, 0, 70);
      // A move keeps what was gathered.
      calls.setUserMemoryRegion(vm, 0, LOG, 100 * unit, 70 * unit, hva);
      s.dirtyLog(vm, 0, 70);
      // A new start is all set again.
      calls.setUserMemoryRegion(vm, 0, 0, 100 * unit, 70 * unit, hva);
      calls.setUserMemoryRegion(vm, 0, LOG, 100 * unit, 70 * unit, hva);
      s.dirtyLog(vm, 0, 70);
    },
  },
  {
    name: 'dirty-log/clear-alignment',
    arches: EVERYWHERE,
    run: (s) => {
      const { vm } = s.vm();
      const { calls } = s;
      const pages = 130;
      const size = s.arch === 's390x' ? s.unit : pages * calls.pageSize;
      const npages = size / calls.pageSize;
      const hva = s.memory(size / s.unit);
      calls.setUserMemoryRegion(vm, 0, LOG, 0, size, hva);
      const bitmap = new Uint8Array(64);
      calls.clearDirtyLog(vm, 0, 1, 64, bitmap);
      calls.clearDirtyLog(vm, 0, 0, 3, bitmap);
      calls.clearDirtyLog(vm, 0, 0, 64, bitmap);
      calls.clearDirtyLog(vm, 0, 0, 0, bitmap);
      calls.clearDirtyLog(vm, 0, 128, npages - 128, bitmap);
      calls.clearDirtyLog(vm, 0, 128, npages - 128 + 1, bitmap);
      calls.clearDirtyLog(vm, 0, 0, npages, bitmap);
      calls.clearDirtyLog(vm, 0, 64 * 4096, 64, bitmap);
      calls.clearDirtyLog(vm, 0, 0xffff_ffff_ffff_ffc0n, 64, bitmap);
      calls.clearDirtyLog(vm, 0, 0, 64, null);
      calls.clearDirtyLog(vm, 0, 0, 64, new Uint8Array(7));
      calls.clearDirtyLog(vm, 1, 0, 64, bitmap);
      calls.clearDirtyLog(vm, 40000, 0, 64, bitmap);
      // A misaligned start is noticed before a missing slot.
      calls.clearDirtyLog(vm, 1, 3, 64, bitmap);
    },
  },
];
