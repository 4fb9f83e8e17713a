import { MEM, PROT } from '../../lib/uapi/flags.ts';
import { EVERYWHERE, type Scenario } from './scenario.ts';

const U64_MAX = 0xffff_ffff_ffff_ffffn;

/** SET_USER_MEMORY_REGION: every check, in the kernel's order, and every kind of change. */
export const memslotScenarios: readonly Scenario[] = [
  {
    name: 'memslots/create-and-delete',
    arches: EVERYWHERE,
    run: (s) => {
      const { vm } = s.vm();
      const hva = s.memory(4);
      s.calls.setUserMemoryRegion(vm, 0, 0, 0, 4 * s.unit, hva);
      // Nothing changes: success without work.
      s.calls.setUserMemoryRegion(vm, 0, 0, 0, 4 * s.unit, hva);
      s.calls.setUserMemoryRegion(vm, 0, 0, 0, 0, 0);
      // There is no slot 0 any more.
      s.calls.setUserMemoryRegion(vm, 0, 0, 0, 0, 0);
      s.calls.setUserMemoryRegion(vm, 0, 0, 8 * s.unit, 4 * s.unit, hva);
    },
  },
  {
    name: 'memslots/refused-arguments',
    arches: EVERYWHERE,
    run: (s) => {
      const { vm } = s.vm();
      const { calls, unit } = s;
      const page = calls.pageSize;
      const hva = s.memory(4);
      const slots = s.arch === 'x86_64' ? 32764 : 32767;
      calls.setUserMemoryRegion(vm, 40000, 0, 0, unit, hva);
      calls.setUserMemoryRegion(vm, slots, 0, 0, unit, hva);
      calls.setUserMemoryRegion(vm, slots - 1, 0, 0, unit, hva);
      calls.setUserMemoryRegion(vm, slots - 1, 0, 0, 0, 0);
      calls.setUserMemoryRegion(vm, 0, 8, 0, unit, hva);
      calls.setUserMemoryRegion(vm, 0, 0x1_0000, 0, unit, hva);
      calls.setUserMemoryRegion(vm, 0, MEM.GUEST_MEMFD, 0, unit, hva);
      calls.setUserMemoryRegion(vm, 0, 0, 0, unit + 1, hva);
      calls.setUserMemoryRegion(vm, 0, 0, 0, page / 2, hva);
      calls.setUserMemoryRegion(vm, 0, 0, 1, unit, hva);
      calls.setUserMemoryRegion(vm, 0, 0, page / 2, unit, hva);
      calls.setUserMemoryRegion(vm, 0, 0, 0, unit, hva + 1);
      calls.setUserMemoryRegion(vm, 0, 0, 0, unit, hva + page / 2);
      calls.setUserMemoryRegion(vm, 0, 0, 0, unit, U64_MAX - BigInt(page) + 1n);
      calls.setUserMemoryRegion(vm, 0xffff_0000, 0, 0, unit, hva);
      calls.setUserMemoryRegion(vm, 0, 0, U64_MAX - BigInt(unit) + 1n, 2 * unit, hva);
      calls.setUserMemoryRegion(vm, 0, 0, U64_MAX - BigInt(unit) + 1n, unit, hva);
    },
  },
  {
    name: 'memslots/last-host-addresses',
    arches: EVERYWHERE,
    run: (s) => {
      const { vm } = s.vm();
      const { calls, unit } = s;
      // To the end of 64 bits, and over it.
      for (const [slot, units] of [1, 2].entries()) {
        calls.setUserMemoryRegion(vm, slot, 0, slot * 4 * unit, units * unit, U64_MAX - BigInt(unit) + 1n);
      }
    },
  },
  {
    name: 'memslots/delete-is-validated-too',
    arches: EVERYWHERE,
    run: (s) => {
      const { vm } = s.vm();
      const { calls, unit } = s;
      const hva = s.memory(2);
      calls.setUserMemoryRegion(vm, 3, 0, unit, 2 * unit, hva);
      calls.setUserMemoryRegion(vm, 3, 8, unit, 0, hva);
      calls.setUserMemoryRegion(vm, 3, 0, unit + 1, 0, hva);
      calls.setUserMemoryRegion(vm, 3, 0, unit, 0, hva + 1);
      // Addresses of other places don't matter.
      calls.setUserMemoryRegion(vm, 3, 0, 64 * unit, 0, hva);
    },
  },
  {
    name: 'memslots/overlap',
    arches: EVERYWHERE,
    run: (s) => {
      const { vm } = s.vm();
      const { calls, unit } = s;
      const hva = s.memory(16);
      calls.setUserMemoryRegion(vm, 1, 0, 4 * unit, 4 * unit, hva);
      calls.setUserMemoryRegion(vm, 2, 0, 4 * unit, 4 * unit, hva);
      calls.setUserMemoryRegion(vm, 2, 0, 3 * unit, 2 * unit, hva);
      calls.setUserMemoryRegion(vm, 2, 0, 7 * unit, 2 * unit, hva);
      calls.setUserMemoryRegion(vm, 2, 0, 5 * unit, unit, hva);
      calls.setUserMemoryRegion(vm, 2, 0, 0, 16 * unit, hva);
      // Neighbours, and the same host memory twice.
      calls.setUserMemoryRegion(vm, 2, 0, 0, 4 * unit, hva);
      calls.setUserMemoryRegion(vm, 3, 0, 8 * unit, 4 * unit, hva);
      // Moving onto another slot, and onto a part of itself.
      calls.setUserMemoryRegion(vm, 3, 0, 7 * unit, 4 * unit, hva);
      calls.setUserMemoryRegion(vm, 3, 0, 10 * unit, 4 * unit, hva);
      // The place it left is free.
      calls.setUserMemoryRegion(vm, 4, 0, 8 * unit, 2 * unit, hva);
      calls.setUserMemoryRegion(vm, 4, 0, 9 * unit, 2 * unit, hva);
    },
  },
  {
    name: 'memslots/what-cannot-change',
    arches: EVERYWHERE,
    run: (s) => {
      const { vm } = s.vm();
      const { calls, unit } = s;
      const hva = s.memory(8);
      calls.setUserMemoryRegion(vm, 0, 0, 0, 4 * unit, hva);
      calls.setUserMemoryRegion(vm, 0, 0, 0, 2 * unit, hva);
      calls.setUserMemoryRegion(vm, 0, 0, 0, 8 * unit, hva);
      calls.setUserMemoryRegion(vm, 0, 0, 0, 4 * unit, hva + unit);
      calls.setUserMemoryRegion(vm, 0, MEM.READONLY, 0, 4 * unit, hva);
      // Moving and logging at once.
      calls.setUserMemoryRegion(vm, 0, MEM.LOG_DIRTY_PAGES, 4 * unit, 4 * unit, hva);
      calls.setUserMemoryRegion(vm, 0, MEM.LOG_DIRTY_PAGES, 4 * unit, 4 * unit, hva + unit);
      calls.setUserMemoryRegion(vm, 0, 0, 0, 4 * unit, hva);
    },
  },
  {
    name: 'memslots/read-only',
    arches: EVERYWHERE,
    run: (s) => {
      const { kvm, vm } = s.vm();
      const { calls, unit } = s;
      const hva = s.memory(4);
      calls.checkExtension(kvm, 81);
      calls.setUserMemoryRegion(vm, 0, MEM.READONLY, 0, unit, hva);
      calls.setUserMemoryRegion(vm, 0, 0, 0, unit, hva);
      calls.setUserMemoryRegion(vm, 1, MEM.READONLY | MEM.LOG_DIRTY_PAGES, 2 * unit, unit, hva);
      s.dirtyLog(vm, 1, unit / calls.pageSize);
      calls.setUserMemoryRegion(vm, 0, 0, 0, 0, 0);
    },
  },
  {
    name: 'memslots/address-spaces',
    arches: ['x86_64'],
    run: (s) => {
      const { vm } = s.vm();
      const { calls, unit } = s;
      const hva = s.memory(4);
      // Whether there is a second one depends on how the kernel was built.
      calls.checkExtension(vm, 118);
      calls.setUserMemoryRegion(vm, 0, 0, 0, 4 * unit, hva);
      calls.setUserMemoryRegion(vm, 1 << 16, 0, 0, 4 * unit, hva);
      calls.setUserMemoryRegion(vm, (1 << 16) | 1, 0, 2 * unit, 2 * unit, hva);
      calls.setUserMemoryRegion(vm, (1 << 16) | 1, 0, 4 * unit, 2 * unit, hva);
      calls.setUserMemoryRegion(vm, 2 << 16, 0, 0, 4 * unit, hva);
      calls.setUserMemoryRegion(vm, 0, 0, 0, 0, 0);
      calls.setUserMemoryRegion(vm, 1 << 16, 0, 0, 0, 0);
    },
  },
  {
    name: 'memslots/unmapped-host-memory',
    arches: EVERYWHERE,
    run: (s) => {
      const { vm } = s.vm();
      const { calls, unit } = s;
      // Nothing needs to be mapped behind a slot, neither before nor after; but riscv64's KVM sees that nothing can be written.
      calls.setUserMemoryRegion(vm, 0, 0, 0, unit, 0x10_0000_0000);
      const hva = s.memory(2);
      calls.setUserMemoryRegion(vm, 1, 0, unit, 2 * unit, hva);
      calls.munmap(hva, 2 * unit);
      calls.readMemory(hva, new Uint8Array(8));
      calls.setUserMemoryRegion(vm, 1, 0, 4 * unit, 2 * unit, hva);
      calls.setUserMemoryRegion(vm, 1, 0, 0, 0, 0);
    },
  },
  {
    name: 'memslots/one-mebibyte',
    arches: ['s390x'],
    run: (s) => {
      const { vm } = s.vm();
      const { calls, unit } = s;
      const hva = s.memory(4);
      calls.setUserMemoryRegion(vm, 0, 0, 0, 0x1000, hva);
      calls.setUserMemoryRegion(vm, 0, 0, 0, unit, hva + 0x1000);
      calls.setUserMemoryRegion(vm, 0, 0, 0, unit + 0x1000, hva);
      // The guest's address isn't checked.
      calls.setUserMemoryRegion(vm, 0, 0, 0x1000, unit, hva);
      calls.setUserMemoryRegion(vm, 0, 0, 0x2000, unit, hva);
      calls.setUserMemoryRegion(vm, 0, 0, 0, 0, 0);
    },
  },
  {
    name: 'memslots/largest',
    arches: ['x86_64', 'aarch64', 'riscv64'],
    run: (s) => {
      const { vm } = s.vm();
      const { calls } = s;
      const page = BigInt(calls.pageSize);
      const most = 0x7fff_ffffn * page;
      calls.setUserMemoryRegion(vm, 0, 0, 0, most + page, 0);
      calls.setUserMemoryRegion(vm, 0, 0, 0x1000_0000_0000_0000n, most + page, 0);
    },
  },
  {
    name: 'memslots/region2',
    arches: EVERYWHERE,
    run: (s) => {
      const { vm } = s.vm();
      const { calls, unit } = s;
      const hva = s.memory(4);
      calls.setUserMemoryRegion2(vm, 0, 0, 0, unit, hva, 0, 0);
      calls.setUserMemoryRegion2(vm, 0, MEM.LOG_DIRTY_PAGES, 0, unit, hva, 0, 0);
      calls.setUserMemoryRegion2(vm, 1, 16, 2 * unit, unit, hva, 0, 0);
      calls.setUserMemoryRegion2(vm, 0, 0, 0, 0, 0, 0, 0);
    },
  },
  {
    name: 'memslots/many',
    arches: EVERYWHERE,
    run: (s) => {
      const { vm } = s.vm();
      const { calls, unit } = s;
      const hva = s.memory(1);
      for (const slot of [5, 3, 9, 1, 7]) calls.setUserMemoryRegion(vm, slot, 0, slot * 2 * unit, unit, hva);
      for (const slot of [4, 2, 8, 0, 6]) calls.setUserMemoryRegion(vm, slot, 0, slot * 2 * unit + unit, unit, hva);
      calls.setUserMemoryRegion(vm, 10, 0, 6 * unit, unit, hva);
      for (const slot of [5, 0, 9]) calls.setUserMemoryRegion(vm, slot, 0, 0, 0, 0);
      calls.setUserMemoryRegion(vm, 10, 0, 10 * unit, unit, hva);
    },
  },
  {
    name: 'memslots/host-protection',
    arches: EVERYWHERE,
    run: (s) => {
      const { calls, unit } = s;
      const hva = s.memory(2);
      calls.writeMemory(hva, Uint8Array.of(1, 2, 3, 4));
      calls.mprotect(hva, unit, PROT.READ);
      calls.writeMemory(hva, Uint8Array.of(5));
      calls.readMemory(hva, new Uint8Array(4));
      calls.mprotect(hva, unit, PROT.NONE);
      calls.readMemory(hva, new Uint8Array(4));
      calls.mprotect(hva, unit, PROT.READ | PROT.WRITE);
      calls.readMemory(hva, new Uint8Array(4));
      calls.munmap(hva + unit, unit);
      // What is left of a copy that runs into nothing.
      calls.readMemory(hva + unit - 4, new Uint8Array(8));
      calls.writeMemory(hva + unit, Uint8Array.of(1));
      calls.mprotect(hva, 2 * unit, PROT.READ | PROT.WRITE);
      calls.munmap(hva, 2 * unit);
    },
  },
];
