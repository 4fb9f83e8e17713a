import { CAP } from '../../lib/uapi/capabilities.ts';
import { FALLOC, GUEST_MEMFD_FLAG, MADV, MAP, MEM, MEMORY_ATTRIBUTE_PRIVATE, PROT } from '../../lib/uapi/flags.ts';
import { guest, load, run } from './guest-memory.ts';
import { EVERYWHERE, type Scenario } from './scenario.ts';

const { GUEST_MEMFD } = MEM;
const { MMAP, INIT_SHARED } = GUEST_MEMFD_FLAG;
const SHARED_MEMORY = MMAP | INIT_SHARED;
const RW = PROT.READ | PROT.WRITE;

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
    name: 'guest-memfd/flags',
    arches: EVERYWHERE,
    run: (s) => {
      const { calls, unit } = s;
      const { kvm, vm } = s.vm();
      for (const fd of [kvm, vm]) {
        for (const cap of [CAP.GUEST_MEMFD, CAP.GUEST_MEMFD_FLAGS]) calls.checkExtension(fd, cap);
      }
      for (const flags of [MMAP, INIT_SHARED, SHARED_MEMORY, 4, SHARED_MEMORY | 4, 0x8000_0000_0000_0000n]) {
        calls.createGuestMemfd(vm, 4 * unit, flags);
      }
    },
  },
  {
    name: 'guest-memfd/mmap',
    arches: ['x86_64', 'aarch64'],
    run: (s) => {
      const { calls, unit } = s;
      const { vm } = s.vm();
      const map = (fd: number, flags: number, length = 4 * unit, offset = 0): number =>
        calls.mmap(length, RW, flags, fd, offset, 0, 0);
      const look = (hva: number): void => {
        calls.readMemory(hva, new Uint8Array(4));
      };
      map(calls.createGuestMemfd(vm, 4 * unit, 0), MAP.SHARED);
      // Pages that are not shared fault.
      const unshared = calls.createGuestMemfd(vm, 4 * unit, MMAP);
      map(unshared, MAP.PRIVATE);
      const closed = map(unshared, MAP.SHARED);
      if (closed < 0) return; // Before 6.18 there is none to be mapped.
      look(closed);
      calls.writeMemory(closed, Uint8Array.of(1));
      // What is shared is the same everywhere, up to the end of the file.
      const memfd = calls.createGuestMemfd(vm, 4 * unit, SHARED_MEMORY);
      const hva = map(memfd, MAP.SHARED);
      const longer = map(memfd, MAP.SHARED, 8 * unit);
      const behind = map(memfd, MAP.SHARED, 4 * unit, 2 * unit);
      calls.writeMemory(hva + 2 * unit, Uint8Array.of(1, 2));
      for (const address of [hva, longer + 2 * unit, behind, longer + 4 * unit, behind + 2 * unit]) look(address);
      // Not needed pages stay; a hole is zero again.
      for (const advice of [MADV.DONTNEED, MADV.REMOVE]) {
        calls.madvise(hva, 4 * unit, advice);
        look(hva + 2 * unit);
      }
      calls.read(memfd, new Uint8Array(4));
      calls.write(memfd, new Uint8Array(4));
      calls.mprotect(hva, unit, PROT.READ);
      calls.writeMemory(hva, Uint8Array.of(1));
      calls.writeMemory(longer, Uint8Array.of(3));
      calls.close(memfd);
      look(hva);
    },
  },
  {
    name: 'guest-memfd/bind-mappable',
    arches: ['x86_64', 'aarch64'],
    run: (s) => {
      const { calls, unit } = s;
      const { vm } = s.vm();
      const memfds = [SHARED_MEMORY, MMAP, 0].map((flags) => calls.createGuestMemfd(vm, 8 * unit, flags));
      const hva = s.memory(8);
      const bind = (slot: number, fd: number, offset: number, flags = 0): void => {
        calls.setUserMemoryRegion2(vm, slot, GUEST_MEMFD | flags, slot * 8 * unit, 4 * unit, hva, fd, offset * unit);
      };
      for (const [slot, fd] of memfds.entries()) bind(slot, fd, 0);
      const [memfd = -1] = memfds;
      // A range that has a slot; and what such a slot cannot be.
      bind(3, memfd, 2);
      for (const flags of [MEM.LOG_DIRTY_PAGES, MEM.READONLY]) bind(3, memfd, 4, flags);
      bind(3, memfd, 4);
      // The slot stays when the descriptor goes.
      calls.close(memfd);
      bind(4, memfd, 0);
      calls.setUserMemoryRegion(vm, 3, 0, 0, 0, 0);
      calls.setUserMemoryRegion(vm, 3, 0, 0, 0, 0);
    },
  },
  {
    name: 'guest-memfd/guest-memory',
    arches: ['x86_64', 'aarch64'],
    runsGuest: true,
    run: (s) => {
      const { calls, unit } = s;
      const g = guest(s);
      const memfd = calls.createGuestMemfd(g.vm, 4 * unit, SHARED_MEMORY);
      const hva = calls.mmap(4 * unit, RW, MAP.SHARED, memfd, 0, 0, 0);
      if (hva < 0) return; // Before 6.18 there is none to be mapped.
      // Its addresses in user space are others than the guest's memory.
      const elsewhere = s.memory(4);
      calls.setUserMemoryRegion2(g.vm, 1, GUEST_MEMFD, 4 * unit, 4 * unit, elsewhere, memfd, 0);
      calls.writeMemory(hva + unit, Uint8Array.of(0x5a));
      load(s, g, [
        { op: 'store', address: 4 * unit + 8, size: 4, value: 0x1234_5678 },
        { op: 'copy', from: 5 * unit, to: 6 * unit, size: 1 },
        { op: 'done' },
      ]);
      run(s, g);
      for (const at of [8, 2 * unit]) {
        calls.readMemory(hva + at, new Uint8Array(4));
        calls.readMemory(elsewhere + at, new Uint8Array(4));
      }
    },
  },
  {
    name: 'guest-memfd/holes',
    arches: EVERYWHERE,
    run: (s) => {
      const { calls, unit } = s;
      const { kvm, vm } = s.vm();
      const { KEEP_SIZE, PUNCH_HOLE } = FALLOC;
      const hole = KEEP_SIZE | PUNCH_HOLE;
      for (const fd of [kvm, vm, calls.eventfd(0), 0x7fff_ffff]) calls.fallocate(fd, hole, 0, unit);
      const memfd = calls.createGuestMemfd(vm, 4 * unit, 0);
      for (const mode of [0, PUNCH_HOLE, 0x8000, KEEP_SIZE | 0x10]) {
        calls.fallocate(memfd, mode, 0, unit);
        calls.fallocate(vm, mode, 0, unit);
      }
      for (const mode of [KEEP_SIZE, hole]) {
        calls.fallocate(memfd, mode, 0, 4 * unit);
        calls.fallocate(memfd, mode, unit, unit);
        calls.fallocate(memfd, mode, 3 * unit, 2 * unit);
        calls.fallocate(memfd, mode, 1, unit);
        calls.fallocate(memfd, mode, 0, calls.pageSize / 2);
        calls.fallocate(memfd, mode, 0, 0);
        calls.fallocate(memfd, mode, 0x8000_0000_0000_0000n, unit);
        calls.fallocate(memfd, mode, 0, 0x8000_0000_0000_0000n);
        calls.fallocate(memfd, mode, 0x7fff_ffff_ffff_0000n, 0x1_0000);
      }
      // What was there is zeros again, also for who has it mapped.
      const mapped = calls.createGuestMemfd(vm, 4 * unit, SHARED_MEMORY);
      const hva = calls.mmap(4 * unit, RW, MAP.SHARED, mapped, 0, 0, 0);
      if (hva < 0) return;
      calls.writeMemory(hva + unit - 1, Uint8Array.of(1, 2));
      calls.fallocate(mapped, hole, unit, unit);
      calls.readMemory(hva + unit - 1, new Uint8Array(2));
      calls.fallocate(mapped, KEEP_SIZE, 0, 4 * unit);
      calls.readMemory(hva + unit - 1, new Uint8Array(2));
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
