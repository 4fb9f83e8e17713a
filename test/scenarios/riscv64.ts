import { CAP } from '../../lib/uapi/capabilities.ts';
import { MEM, PROT } from '../../lib/uapi/flags.ts';
import type { Scenario } from './scenario.ts';

const PAGE = 0x1000;

/** What only riscv64 checks of a memslot. */
export const riscv64Scenarios: readonly Scenario[] = [
  {
    name: 'riscv64/highest-address',
    arches: ['riscv64'],
    run: (s) => {
      const { calls } = s;
      const { kvm, vm } = s.vm();
      const hva = s.memory(4);
      calls.checkExtension(kvm, CAP.VM_GPA_BITS);
      const bits = BigInt(calls.checkExtension(vm, CAP.VM_GPA_BITS));
      const end = 1n << bits;
      for (const pages of [0n, 1n, 2n, 3n]) {
        const gpa = end - pages * BigInt(PAGE);
        calls.setUserMemoryRegion(vm, 0, 0, gpa, PAGE, hva);
        calls.setUserMemoryRegion(vm, 0, 0, gpa, 0, 0);
      }
      calls.setUserMemoryRegion(vm, 0, 0, 0, PAGE, hva);
      calls.setUserMemoryRegion(vm, 0, 0, end - BigInt(PAGE), PAGE, hva);
      calls.setUserMemoryRegion(vm, 0, 0, end - 2n * BigInt(PAGE), PAGE, hva);
      calls.setUserMemoryRegion(vm, 1, 0, 0, PAGE, hva);
    },
  },
  {
    name: 'riscv64/unwritable-host-memory',
    arches: ['riscv64'],
    run: (s) => {
      const { calls } = s;
      const { vm } = s.vm();
      const hva = s.memory(8);
      calls.mprotect(hva + PAGE, PAGE, PROT.READ);
      calls.setUserMemoryRegion(vm, 0, 0, 0, 4 * PAGE, hva);
      calls.setUserMemoryRegion(vm, 0, MEM.READONLY, 0, 4 * PAGE, hva);
      calls.setUserMemoryRegion(vm, 1, 0, 0x10_0000, 4 * PAGE, hva + 4 * PAGE);
      calls.mprotect(hva + 5 * PAGE, PAGE, PROT.READ);
      // Nothing changes, then the flags, the place, and the slot goes.
      calls.setUserMemoryRegion(vm, 1, 0, 0x10_0000, 4 * PAGE, hva + 4 * PAGE);
      calls.setUserMemoryRegion(vm, 1, MEM.LOG_DIRTY_PAGES, 0x10_0000, 4 * PAGE, hva + 4 * PAGE);
      calls.setUserMemoryRegion(vm, 1, 0, 0x20_0000, 4 * PAGE, hva + 4 * PAGE);
      calls.setUserMemoryRegion(vm, 1, 0, 0x10_0000, 0, 0);
      calls.mprotect(hva + 4 * PAGE, 4 * PAGE, PROT.NONE);
      calls.setUserMemoryRegion(vm, 2, 0, 0x10_0000, PAGE, hva + 7 * PAGE);
      calls.setUserMemoryRegion(vm, 2, MEM.READONLY, 0x10_0000, PAGE, hva + 7 * PAGE);
      // Both at once: the address is looked at first.
      calls.setUserMemoryRegion(vm, 3, 0, 1n << 62n, PAGE, hva + 7 * PAGE);
    },
  },
];
