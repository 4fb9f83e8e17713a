import { afterEach, describe, expect, it, vi } from 'vitest';
import { aarch64Architecture } from '../../../lib/arch/aarch64/emulated/architecture.ts';
import { x86_64Architecture } from '../../../lib/arch/x86_64/emulated/architecture.ts';
import type { ArchVm } from '../../../lib/emulated/arch-state.ts';
import { EmulatedGuestMemfd } from '../../../lib/emulated/guest-memfd.ts';
import { EmulatedHostMemory } from '../../../lib/emulated/host-memory.ts';
import type { Machine } from '../../../lib/emulated/machine.ts';
import { EmulatedEventfd } from '../../../lib/emulated/open-file.ts';
import { EmulatedVm } from '../../../lib/emulated/vm.ts';
import { EmulatedKernel, ERRNO, MAP, PROT } from '../../../lib/raw.ts';
import { CAP } from '../../../lib/uapi/capabilities.ts';
import { DIRTY_LOG, GUEST_MEMFD_FLAG, MEM } from '../../../lib/uapi/flags.ts';
import { parseRelease } from '../../../lib/uapi/release.ts';
import { UFFDIO_REGISTER_MODE } from '../../../lib/uapi/userfaultfd.ts';

const PAGE = 4096;
const PRIVATE = 8n;
const RW = PROT.READ | PROT.WRITE;

const machineOf = (release: string): Machine =>
  x86_64Architecture(parseRelease(release), { swProtectedVm: true }).machine;

/** A VM with private memory, whose architecture does what it is told to. */
function open(arch: ArchVm = {}, { machine = machineOf('6.18'), type = 1 } = {}) {
  const memory = new EmulatedHostMemory(PAGE);
  const vm = new EmulatedVm(machine, memory, machine.vmTypes[type]!, () => arch);
  const map = (pages: number): number =>
    memory.map({ length: pages * PAGE, prot: RW, flags: MAP.PRIVATE | MAP.ANONYMOUS }, 0, 0, undefined);
  /** A slot by its word, with a guest_memfd if one is given. */
  const set = (
    slot: number,
    [gfn, pages, hva]: readonly [number, number, number],
    {
      flags = 0,
      file,
      offset = 0,
    }: { flags?: number; file?: EmulatedGuestMemfd<EmulatedVm> | number; offset?: number } = {},
  ): number =>
    vm.setUserMemoryRegion(
      {
        version: 2,
        slot,
        flags: file === undefined ? flags : flags | MEM.GUEST_MEMFD,
        gpa: BigInt(gfn * PAGE),
        size: BigInt(pages * PAGE),
        hva: BigInt(hva),
        guestMemfdOffset: BigInt(offset * PAGE),
      },
      () => file ?? -ERRNO.EBADF,
    );
  const memfd = (pages: number, flags = 0): EmulatedGuestMemfd<EmulatedVm> =>
    new EmulatedGuestMemfd(vm, pages * PAGE, flags, PAGE);
  return { vm, memory, map, set, memfd };
}

afterEach(() => vi.restoreAllMocks());

const convert = (vm: EmulatedVm, gfn: number, pages: number, isPrivate = true): number =>
  vm.setMemoryAttributes(BigInt(gfn * PAGE), BigInt(pages * PAGE), isPrivate ? PRIVATE : 0n, 0n);

it('hears of invalidated pages for as long as somebody has a descriptor of it, and no longer', () => {
  const calls = new EmulatedKernel({ arch: 'ppc64' });
  const { pageSize } = calls;
  const invalidated = vi.spyOn(EmulatedVm.prototype, 'invalidated');
  /** How many VMs hear of it. */
  const told = (): number => {
    const hva = calls.mmap(pageSize, RW, MAP.PRIVATE | MAP.ANONYMOUS, -1, 0, 0, 0);
    invalidated.mockClear();
    calls.munmap(hva, pageSize);
    return new Set(invalidated.mock.contexts).size;
  };
  const kvm = calls.openKvm();
  for (let i = 0; i < 10; i++) calls.close(calls.createVm(kvm, 0));
  expect(told()).toBe(0);
  const vm = calls.createVm(kvm, 1);
  const [first, second] = [calls.createVcpu(vm, 0), calls.createVcpu(vm, 1)];
  const htab = calls.ppc64!.getHtabFd(vm, 0, 0);
  expect(htab).toBeGreaterThan(0);
  calls.close(vm);
  expect(told()).toBe(1);
  calls.close(first);
  calls.close(htab);
  expect(told()).toBe(1);
  calls.close(second);
  expect(told()).toBe(0);
});

it('lets its irqfds go with its own descriptor, and its architecture with the last one', () => {
  const went: string[] = [];
  const { vm } = open({ released: () => void went.push('architecture') });
  const eventfd = new EmulatedEventfd(0, true);
  expect(vm.irqfds.add(eventfd, 5)).toBe(0);
  vm.hold();
  vm.released();
  expect([eventfd.irqfds.size, went]).toEqual([0, []]);
  vm.letGo();
  expect(went).toEqual(['architecture']);
  // An architecture may have nothing to let go.
  expect(() => open().vm.released()).not.toThrow();
});

describe('a memslot', () => {
  it('is told to the architecture when it comes and before it goes, and to those with caches afterwards', () => {
    const heard: string[] = [];
    const { vm, map, set } = open({
      memslotFlushed: ({ id, baseGfn, invalid }) => void heard.push(`flushed ${id} at ${baseGfn}: ${invalid}`),
      memslotCommitted: ({ id, baseGfn, invalid, flags }) =>
        void heard.push(`committed ${id} at ${baseGfn}: ${invalid}, ${flags}`),
    });
    vm.onMemslotsChanged.add(() => heard.push('changed'));
    const hva = map(4);
    const told = (...of: Parameters<typeof set>): unknown[] => [set(...of), ...heard.splice(0)];
    expect(told(3, [8, 4, hva])).toEqual([0, 'committed 3 at 8: false, 0', 'changed']);
    expect(told(3, [8, 4, hva])).toEqual([0]);
    expect(told(4, [11, 4, hva])).toEqual([-ERRNO.EEXIST]);
    const { LOG_DIRTY_PAGES: flags } = MEM;
    expect(told(3, [8, 4, hva], { flags })).toEqual([0, `committed 3 at 8: false, ${flags}`, 'changed']);
    expect(told(3, [20, 4, hva])).toEqual([0, 'flushed 3 at 8: true', 'committed 3 at 20: false, 0', 'changed']);
    expect([vm.usableSlot(8), vm.usableSlot(20)?.id, vm.usableSlot(23)?.id]).toEqual([undefined, 3, 3]);
    expect(told(3, [0, 0, 0])).toEqual([0, 'flushed 3 at 20: true', 'changed']);
    expect(vm.usableSlot(20)).toBeUndefined();
    expect(told(3, [0, 0, 0])).toEqual([-ERRNO.EINVAL]);
  });

  it('is not used while it goes or moves', () => {
    const used: unknown[] = [];
    const { vm, map, set } = open({ memslotFlushed: ({ baseGfn }) => void used.push(vm.usableSlot(baseGfn)) });
    const hva = map(1);
    expect([set(0, [1, 1, hva]), set(0, [2, 1, hva]), set(0, [0, 0, 0])]).toEqual([0, 0, 0]);
    expect(used).toEqual([undefined, undefined]);
  });

  it('is found in its own address space', () => {
    const { vm, map, set } = open({}, { type: 0 });
    const [first, second] = [map(1), map(1)];
    // as_id << 16 | id.
    expect([set(5, [1, 1, first]), set(0x1_0005, [1, 1, second]), set(0x2_0005, [1, 1, second])]).toEqual([
      0,
      0,
      -ERRNO.EINVAL,
    ]);
    expect([vm.usableSlot(1)?.hva, vm.usableSlot(1, 1)?.hva]).toEqual([BigInt(first), BigInt(second)]);
    expect([vm.usableSlot(1, 2), vm.usableSlot(0)]).toEqual([undefined, undefined]);
    expect(set(0x1_0005, [0, 0, 0])).toBe(0);
    expect([vm.usableSlot(1)?.id, vm.usableSlot(1, 1)]).toEqual([5, undefined]);
  });

  it('lies inside one mapping or beside all, and leaves its pages free where it may not', () => {
    const { map, set, memfd } = open();
    const [first, file] = [map(2), memfd(4)];
    expect(set(0, [0, 2, first + PAGE], { file })).toBe(-ERRNO.EPERM);
    expect(set(0, [0, 2, first - PAGE], { file })).toBe(-ERRNO.EPERM);
    expect(file.bindings).toEqual([]);
    expect(set(0, [0, 2, first], { file })).toBe(0);
    expect(set(1, [8, 2, first - 2 * PAGE])).toBe(0);
    expect(set(2, [16, 2, 0x1000])).toBe(0);
  });
});

describe('a slot with a guest_memfd', () => {
  it('has pages of its VM’s file that no other slot has', () => {
    for (const [release, overlapping] of [
      ['6.18', -ERRNO.EINVAL],
      ['7.0', -ERRNO.EEXIST],
    ] as const) {
      const { map, set, memfd } = open({}, { machine: machineOf(release) });
      const [hva, file] = [map(8), memfd(8)];
      const bind = (slot: number, pages: number, offset: number, of: typeof file | number = file): number =>
        set(slot, [slot * 16, pages, hva], { file: of, offset });
      expect(bind(0, 2, 2)).toBe(0);
      expect([bind(1, 2, 1), bind(1, 2, 3), bind(1, 4, 1), bind(1, 1, 2), bind(1, 2, 2)]).toEqual(
        Array(5).fill(overlapping),
      );
      expect([bind(1, 2, 0), bind(2, 4, 4)]).toEqual([0, 0]);
      // What goes leaves its own pages, and none of the others'.
      expect(set(2, [0, 0, 0])).toBe(0);
      expect([bind(3, 1, 1), bind(3, 1, 3), bind(3, 5, 4), bind(3, 4, 4)]).toEqual([
        overlapping,
        overlapping,
        -ERRNO.EINVAL,
        0,
      ]);
      expect([bind(4, 1, 0, -ERRNO.EBADF), bind(4, 1, 0, open().memfd(1))]).toEqual([-ERRNO.EBADF, -ERRNO.EINVAL]);
    }
  });

  it('has one that can be mapped where no memory is private', () => {
    const { machine } = aarch64Architecture(parseRelease('6.18'));
    const { map, set, memfd } = open({}, { machine, type: 0 });
    const hva = map(1);
    expect(set(0, [0, 1, hva], { file: memfd(1) })).toBe(-ERRNO.EINVAL);
    expect(set(0, [0, 1, hva], { file: memfd(1, GUEST_MEMFD_FLAG.MMAP) })).toBe(0);
  });

  it('is the guest’s where frames are private, and user space’s memory otherwise', () => {
    const { vm, memory, map, set, memfd } = open();
    const [hva, file] = [map(4), memfd(8)];
    expect(set(0, [16, 4, hva], { file, offset: 4 })).toBe(0);
    expect(convert(vm, 17, 2)).toBe(0);
    const slot = vm.usableSlot(16)!;
    const move = (gpa: number, write: boolean, ...values: number[]): unknown => {
      const bytes = Uint8Array.from(values);
      return [vm.moveGuest(slot, gpa, bytes, write), ...bytes];
    };
    for (const page of [16, 17, 18, 19]) expect(move(page * PAGE + 8, true, page, 1)).toEqual([2, page, 1]);
    const shared = new Uint8Array(4 * PAGE);
    expect(memory.read(hva, shared)).toBe(shared.length);
    expect([0, 1, 2, 3].map((page) => shared[page * PAGE + 8])).toEqual([16, 0, 0, 19]);
    const pages = new Uint8Array(file.backing.window(0));
    expect([0, 1, 2, 3, 4, 5, 6, 7].map((page) => pages[page * PAGE + 8])).toEqual([0, 0, 0, 0, 0, 17, 18, 0]);
    for (const page of [16, 17, 18, 19]) expect(move(page * PAGE + 8, false, 0, 0)).toEqual([2, page, 1]);
    // KVM itself reads and writes user space's.
    const host = Uint8Array.of(7);
    expect([vm.moveHost(slot, 17 * PAGE + 8, host, false), host[0]]).toEqual([1, 0]);
    expect(vm.moveHost(slot, 17 * PAGE + 8, Uint8Array.of(9), true)).toBe(1);
    expect(move(17 * PAGE + 8, false, 0)).toEqual([1, 17]);
    const there = (gfn: number): boolean => vm.hasGuestPage(slot, gfn, true);
    memory.unmap(hva, 4 * PAGE);
    expect([16, 17, 18, 19].map(there)).toEqual([false, true, true, false]);
    file.released();
    expect([16, 17, 18, 19].map(there)).toEqual([false, false, false, false]);
    expect(move(17 * PAGE + 8, false, 5)).toEqual([0, 5]);
  });

  it('that can be mapped is the guest’s as a whole', () => {
    const { vm, memory, map, set, memfd } = open();
    const hva = map(2);
    expect(set(0, [0, 1, hva], { file: memfd(1, GUEST_MEMFD_FLAG.MMAP) })).toBe(0);
    expect(set(1, [1, 1, hva + PAGE])).toBe(0);
    const slots = [0, 1].map((gfn) => vm.usableSlot(gfn)!);
    expect(slots.map((slot, gfn) => vm.isGuestMemfds(slot, gfn))).toEqual([true, false]);
    expect(vm.isGuestMemfds(undefined, 5)).toBe(false);
    memory.unmap(hva, 2 * PAGE);
    expect(slots.map((slot, gfn) => vm.hasGuestPage(slot, gfn, true))).toEqual([true, false]);
    // A private frame of a slot without one has nothing.
    expect(convert(vm, 1, 1)).toBe(0);
    expect(vm.isGuestMemfds(slots[1], 1)).toBe(true);
    expect(vm.moveGuest(slots[1]!, PAGE, new Uint8Array(1), false)).toBe(0);
  });

  it('is not looked at by an emulator of the guest’s instructions', () => {
    const machine = { ...machineOf('6.18'), emulatesGuestCode: true };
    const { vm, memory, map, set, memfd } = open({}, { machine });
    const hva = map(1);
    expect(set(0, [0, 1, hva], { file: memfd(1) })).toBe(0);
    expect(convert(vm, 0, 1)).toBe(0);
    expect(vm.moveGuest(vm.usableSlot(0)!, 3, Uint8Array.of(5), true)).toBe(1);
    const back = new Uint8Array(1);
    expect([memory.read(hva + 3, back), back[0]]).toEqual([1, 5]);
  });
});

describe('memory attributes', () => {
  it('are of whole pages below the end of all addresses', () => {
    const { vm } = open();
    const set = (address: bigint, size: bigint, attributes = PRIVATE, flags = 0n): number =>
      vm.setMemoryAttributes(address, size, attributes, flags);
    const TOP = 1n << 64n;
    for (const refused of [
      set(0n, 0n),
      set(1n, 0x1000n),
      set(0x1000n, 0x800n),
      set(TOP - 0x1000n, 0x1000n),
      set(0x1000n, TOP - 0x1000n),
      set(0x1000n, 0x1000n, PRIVATE, 1n),
      set(0x1000n, 0x1000n, 1n),
      set(0x1000n, 0x1000n, PRIVATE | 1n),
    ])
      expect(refused).toBe(-ERRNO.EINVAL);
    expect(vm.isPrivate(1)).toBe(false);
    expect(set(TOP - 0x2000n, 0x1000n)).toBe(0);
    expect(set(0x1000n, 0x2000n)).toBe(0);
    expect([0, 1, 2, 3].map((gfn) => vm.isPrivate(gfn))).toEqual([false, true, true, false]);
    expect(set(0x2000n, 0x1000n, 0n)).toBe(0);
    expect([0, 1, 2, 3].map((gfn) => vm.isPrivate(gfn))).toEqual([false, true, false, false]);
    // Where nothing is private there is no attribute.
    const plain = open({}, { type: 0 }).vm;
    expect([
      plain.setMemoryAttributes(0n, 0x1000n, PRIVATE, 0n),
      plain.setMemoryAttributes(0n, 0x1000n, 0n, 0n),
    ]).toEqual([-ERRNO.EINVAL, 0]);
  });

  it('make the architecture forget the frames that they are of', () => {
    const heard: unknown[] = [];
    const { vm } = open({ pagesInvalidated: (first, end) => void heard.push([first, end]) });
    expect([convert(vm, 3, 2), convert(vm, 3, 0), convert(vm, 4, 1, false)]).toEqual([0, -ERRNO.EINVAL, 0]);
    expect(heard).toEqual([
      [3, 5],
      [4, 5],
    ]);
  });

  it('of frames that were a device’s count once slots have changed', () => {
    const { vm, map, set } = open();
    vm.accessedDevice(3);
    expect(convert(vm, 2, 2)).toBe(0);
    expect([vm.isPrivate(2), vm.isPrivate(3)]).toEqual([true, false]);
    const hva = map(1);
    expect(set(0, [0, 1, hva])).toBe(0);
    expect(vm.isPrivate(3)).toBe(true);
    vm.accessedDevice(3);
    // Nothing changes.
    expect(set(0, [0, 1, hva])).toBe(0);
    expect(vm.isPrivate(3)).toBe(false);
  });
});

describe('pages that become others', () => {
  const invalidatedOf = (slots: readonly (readonly [gfn: number, pages: number, at: number])[]) => {
    const heard: [number, number][] = [];
    const { vm, map, set } = open({ pagesInvalidated: (first, end) => void heard.push([first, end]) });
    const hva = map(32);
    for (const [id, [gfn, pages, at]] of slots.entries()) expect(set(id, [gfn, pages, hva + at * PAGE])).toBe(0);
    return (first: number, end: number): [number, number][] => {
      vm.invalidated(hva + first * PAGE, hva + end * PAGE);
      return heard.splice(0);
    };
  };

  it('are told by the frames of each slot that shows them', () => {
    const told = invalidatedOf([
      [100, 4, 8],
      [200, 8, 10],
    ]);
    expect(told(4, 8)).toEqual([]);
    expect(told(4, 9)).toEqual([[100, 101]]);
    expect(told(9, 10)).toEqual([[101, 102]]);
    expect(told(11, 13)).toEqual([
      [103, 104],
      [201, 203],
    ]);
    expect(told(12, 30)).toEqual([[202, 208]]);
    expect(told(18, 30)).toEqual([]);
    expect(told(0, 32)).toEqual([
      [100, 104],
      [200, 208],
    ]);
  });

  it('are put into a ring again by the guest’s next stores', () => {
    const { vm, map, set } = open();
    expect(vm.enableCap(CAP.DIRTY_LOG_RING, 0, [0x1000n])).toBe(0);
    const hva = map(4);
    expect(set(0, [16, 4, hva], { flags: MEM.LOG_DIRTY_PAGES })).toBe(0);
    const ring = vm.dirtyLog.newRing()!;
    const pushed = vi.spyOn(ring, 'push');
    const marked = (): unknown[] => {
      pushed.mockClear();
      for (const gfn of [16, 17, 18, 19]) vm.dirtyLog.mark(vm.usableSlot(gfn)!, gfn, ring);
      return pushed.mock.calls.map(([, page]) => page);
    };
    expect([marked(), marked()]).toEqual([[0, 1, 2, 3], []]);
    vm.invalidated(hva + PAGE, hva + 3 * PAGE);
    expect(marked()).toEqual([1, 2]);
  });
});

describe('a page that a userfaultfd brings', () => {
  it('is waited for where the guest has it, and until it is there', async () => {
    const { vm, memory, map, set } = open();
    const hva = map(4);
    expect(set(0, [16, 4, hva])).toBe(0);
    const at = 17 * PAGE + 0x808;
    expect(vm.waits(at, true, 'guest')).toBeUndefined();
    const faults: unknown[] = [];
    const faulted = (...fault: unknown[]): void => void faults.push(fault);
    memory.served.register({ faulted }, hva, hva + 4 * PAGE, UFFDIO_REGISTER_MODE.MISSING, {
      resolvesStores: false,
      protectsMissing: false,
    });
    // Where there is no slot, nobody brings anything.
    expect([vm.waits(5 * PAGE, true, 'guest'), vm.waits(20 * PAGE, true, 'guest')]).toEqual([undefined, undefined]);
    expect(faults).toEqual([]);
    const woken: string[] = [];
    const wait = vm.waits(at, true, 'guest')!.then(() => void woken.push('stored'));
    expect(faults).toEqual([[hva + PAGE, true, false]]);
    memory.served.wake(hva + 2 * PAGE, hva + 4 * PAGE);
    await Promise.resolve();
    expect(woken).toEqual([]);
    memory.served.brought(hva + PAGE);
    expect(vm.waits(at, true, 'guest')).toBeUndefined();
    memory.served.wake(hva + PAGE, hva + 2 * PAGE);
    await wait;
    expect(woken).toEqual(['stored']);
  });
});

describe('capabilities of a VM', () => {
  it('are its type’s own, or else those of all', () => {
    const machine = machineOf('6.18');
    const own = new Map([[CAP.USER_MEMORY as number, 7]]);
    const memory = new EmulatedHostMemory(PAGE);
    const vm = new EmulatedVm(machine, memory, { ...machine.vmTypes[0]!, capabilities: own }, () => ({}));
    expect([CAP.USER_MEMORY, CAP.IOEVENTFD, 0xffff].map((cap) => vm.checkExtension(cap))).toEqual([7, 1, 0]);
  });

  it('are enabled one by one, and flags are for none', () => {
    const enabled: unknown[] = [];
    const enableCap = (cap: number, args: readonly bigint[]): number => enabled.push([cap, args]);
    const { vm } = open({ enableCap });
    expect([vm.enableCap(116, 0, [5n]), vm.enableCap(116, 1, [5n])]).toEqual([1, -ERRNO.EINVAL]);
    expect(enabled).toEqual([[116, [5n]]]);
    expect(open().vm.enableCap(116, 0, [0n])).toBe(-ERRNO.EINVAL);
    const { MANUAL_DIRTY_LOG_PROTECT2, DIRTY_LOG_RING, DIRTY_LOG_RING_ACQ_REL, DIRTY_LOG_RING_WITH_BITMAP } = CAP;
    for (const cap of [DIRTY_LOG_RING, DIRTY_LOG_RING_ACQ_REL]) {
      const other = open().vm;
      expect(other.enableCap(cap, 0, [0x1000n])).toBe(0);
      expect(other.dirtyLog.usesRings).toBe(true);
      // There is no bitmap beside the ring on x86_64.
      expect(other.enableCap(DIRTY_LOG_RING_WITH_BITMAP, 0, [0n])).toBe(-ERRNO.EINVAL);
    }
    // There is on aarch64, from when the ring is there and until there are memslots.
    const arm = aarch64Architecture(parseRelease('6.18')).machine;
    const withBitmap = (before: { ring?: boolean; slot?: boolean }, flags = 0): number => {
      const { vm: other, map, set } = open({}, { machine: arm, type: 0 });
      if (before.ring === true) expect(other.enableCap(DIRTY_LOG_RING_ACQ_REL, 0, [0x1000n])).toBe(0);
      if (before.slot === true) expect(set(0, [0, 1, map(1)])).toBe(0);
      return other.enableCap(DIRTY_LOG_RING_WITH_BITMAP, flags, [0n]);
    };
    expect(withBitmap({ ring: true })).toBe(0);
    expect([withBitmap({}), withBitmap({ ring: true, slot: true }), withBitmap({ ring: true }, 1)]).toEqual(
      Array(3).fill(-ERRNO.EINVAL),
    );
    // A ring comes before the vCPUs.
    vm.adopt({ id: 0, running: false, ring: undefined });
    expect(vm.enableCap(DIRTY_LOG_RING, 0, [0x1000n])).toBe(-ERRNO.EINVAL);
    const enable = BigInt(DIRTY_LOG.MANUAL_PROTECT_ENABLE);
    expect([
      vm.enableCap(MANUAL_DIRTY_LOG_PROTECT2, 1, [enable]),
      vm.enableCap(MANUAL_DIRTY_LOG_PROTECT2, 0, [enable]),
    ]).toEqual([-ERRNO.EINVAL, 0]);
  });
});
