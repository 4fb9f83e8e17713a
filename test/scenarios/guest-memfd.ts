import { MEM, MEMORY_ATTRIBUTE_PRIVATE } from '../../lib/uapi/flags.ts';
import { EVERYWHERE, type Scenario } from './scenario.ts';

const { GUEST_MEMFD } = MEM;

/** guest_memfd, memory attributes and pre-faulting: what is refused, what is bound to what, and where none of it is. */
export const guestMemfdScenarios: readonly Scenario[] = [
  {
    name: 'guest-memfd/create',
    arches: EVERYWHERE,
    run: (s) => {
      const { calls, unit } = s;
      const { kvm, vm } = s.vm();
      const vcpu = calls.createVcpu(vm, 0);
      calls.createGuestMemfd(vm, 4 * unit, 0);
      calls.createGuestMemfd(vm, 4 * unit, 0x8000_0000);
      calls.createGuestMemfd(vm, 0, 0);
      calls.createGuestMemfd(vm, unit + 1, 0);
      calls.createGuestMemfd(vm, 0x8000_0000_0000_0000n, 0);
      calls.createGuestMemfd(kvm, unit, 0);
      calls.createGuestMemfd(vcpu, unit, 0);
    },
  },
  {
    name: 'guest-memfd/bind',
    arches: ['x86_64'],
    run: (s) => {
      const { calls, unit } = s;
      const { vm } = s.vm();
      const other = s.vm();
      const memfd = calls.createGuestMemfd(vm, 8 * unit, 0);
      const foreign = calls.createGuestMemfd(other.vm, 8 * unit, 0);
      const hva = s.memory(8);
      const bind = (slot: number, gpa: number, size: number, fd: number, offset: number | bigint, flags = 0): void => {
        calls.setUserMemoryRegion2(vm, slot, GUEST_MEMFD | flags, gpa * unit, size * unit, hva, fd, offset);
      };
      bind(0, 0, 4, memfd, 0);
      bind(1, 8, 4, memfd, 2 * unit);
      bind(1, 8, 4, memfd, 4 * unit);
      bind(2, 16, 1, memfd, 8 * unit);
      bind(2, 16, 1, memfd, 1);
      bind(2, 16, 1, foreign, 0);
      bind(2, 16, 1, -1, 0);
      bind(2, 16, 1, vm, 0);
      bind(3, 24, 1, memfd, 0, MEM.READONLY);
      bind(3, 24, 1, memfd, 0, MEM.LOG_DIRTY_PAGES);
      // It can be made and deleted, and nothing else.
      bind(0, 32, 4, memfd, 0);
      calls.setUserMemoryRegion2(vm, 0, 0, 0, 4 * unit, hva, 0, 0);
      calls.setUserMemoryRegion(vm, 0, 0, 0, 0, 0);
      bind(2, 16, 4, memfd, 0);
      // The flag is none of the first version's.
      calls.setUserMemoryRegion(vm, 5, GUEST_MEMFD, 40 * unit, unit, hva);
    },
  },
  {
    name: 'guest-memfd/attributes',
    arches: EVERYWHERE,
    run: (s) => {
      const { calls, unit } = s;
      const { vm } = s.vm();
      const page = calls.pageSize;
      calls.setMemoryAttributes(vm, 0, unit, 0, 0);
      calls.setMemoryAttributes(vm, 0, unit, MEMORY_ATTRIBUTE_PRIVATE, 0);
      calls.setMemoryAttributes(vm, 0, unit, 1, 0);
      calls.setMemoryAttributes(vm, 0, unit, 0, 1);
      calls.setMemoryAttributes(vm, 0, 0, 0, 0);
      calls.setMemoryAttributes(vm, page / 2, unit, 0, 0);
      calls.setMemoryAttributes(vm, 0, page / 2, 0, 0);
      calls.setMemoryAttributes(vm, 0xffff_ffff_ffff_0000n, 0x1_0000, 0, 0);
      calls.setMemoryAttributes(vm, 0xffff_ffff_ffff_0000n, 0x2_0000, 0, 0);
    },
  },
  {
    name: 'guest-memfd/pre-fault',
    arches: EVERYWHERE,
    run: (s) => {
      const { calls, unit } = s;
      const { vm } = s.vm();
      const vcpu = calls.createVcpu(vm, 0);
      const hva = s.memory(4);
      calls.setUserMemoryRegion(vm, 0, 0, 4 * unit, 4 * unit, hva);
      const fault = (gpa: number | bigint, size: number | bigint, flags = 0): void => {
        calls.preFaultMemory(vcpu, BigUint64Array.of(BigInt(gpa), BigInt(size)), flags);
      };
      fault(4 * unit, 2 * unit, 1);
      fault(4 * unit, 0);
      fault(4 * unit + 1, unit);
      fault(4 * unit, calls.pageSize / 2);
      fault(0xffff_ffff_ffff_f000n, 0x2000);
      fault(0, unit);
      fault(4 * unit, 2 * unit);
      fault(6 * unit, 8 * unit);
      calls.preFaultMemory(vm, BigUint64Array.of(0n, 4096n), 0);
    },
  },
];
