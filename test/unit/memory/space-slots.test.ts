import { afterEach, describe, expect, it } from 'vitest';
import { GUEST_MEMFD_FLAG, Kvm, type MemoryRegion, type Vm } from '../../../lib/index.ts';
import { EmulatedKernel, ERRNO, MEM } from '../../../lib/raw.ts';

const UNIT = 0x10_0000;
const GIB = 2 ** 30;
/** A slot has fewer than 2^31 pages, and pieces of a region begin at whole GiB. */
const LARGEST = 2 ** 43 - GIB;

/** What the kernel was told of each slot and did, by a wrapper around it; and which of its next calls it refuses. */
function watched() {
  const kernel = new EmulatedKernel({ arch: 'x86_64' });
  const slots = new Map<number, string>();
  const state = { kernel, slots, calls: 0, refused: Number.POSITIVE_INFINITY };
  const { setUserMemoryRegion } = kernel;
  kernel.setUserMemoryRegion = (vm, slot, flags, gpa, size, hva) => {
    if (state.calls++ === state.refused) return -ERRNO.ENOMEM;
    const result = setUserMemoryRegion.call(kernel, vm, slot, flags, gpa, size, hva);
    if (result < 0) return result;
    if (BigInt(size) === 0n) slots.delete(slot);
    else slots.set(slot, `${BigInt(gpa)} ${BigInt(size)} ${BigInt(hva)} ${flags}`);
    return result;
  };
  return state;
}

/** The slots by address, whatever their ids are now. */
const placesOf = (slots: ReadonlyMap<number, string>): string[] => [...slots.values()].sort();
const booksOf = (vm: Vm): string[] =>
  [...vm.memslots]
    .map(({ baseGfn, npages, hva, flags }) => `${baseGfn * 4096} ${npages * 4096} ${hva} ${flags}`)
    .sort();
const flagsOf = (vm: Vm): number[] => [...vm.memslots].map(({ flags }) => flags);

describe('a region of several slots', () => {
  const made: Disposable[] = [];
  // A GiB of addresses each, and a process with more than the machine has memory cannot fork.
  afterEach(() => {
    for (const handle of made.splice(0)) handle[Symbol.dispose]();
  });

  const setUp = () => {
    const watch = watched();
    const kvm = Kvm.open({ calls: watch.kernel });
    const vm = kvm.createVm();
    const ram = kvm.mapAnonymous(2 * LARGEST + GIB);
    made.push(vm, ram, kvm);
    return { watch, kvm, vm, ram, region: vm.memory.addRam(GIB, ram) };
  };

  it('has as many as its size needs, side by side', () => {
    const { vm, ram, region } = setUp();
    expect([...vm.memslots].map(({ baseGfn, npages, hva }) => [baseGfn * 4096, npages * 4096, hva])).toEqual([
      [GIB, LARGEST, ram.hva],
      [GIB + LARGEST, LARGEST, ram.hva + LARGEST],
      [GIB + 2 * LARGEST, GIB, ram.hva + 2 * LARGEST],
    ]);
    region.remove();
    expect(vm.memslots.size).toBe(0);
    vm.memory.addRam(0, ram, { offset: GIB, size: LARGEST });
    expect(vm.memslots.size).toBe(1);
  });

  it('moves up and down by less than a slot, and no two slots overlap meanwhile', () => {
    const { watch, vm, region } = setUp();
    const hvas = [...vm.memslots].map(({ hva }) => hva);
    for (const gpa of [2 * GIB, 0, 3 * GIB]) {
      region.move(gpa);
      expect([...vm.memslots].map(({ baseGfn }) => baseGfn * 4096)).toEqual([gpa, gpa + LARGEST, gpa + 2 * LARGEST]);
      expect([...vm.memslots].map(({ hva }) => hva)).toEqual(hvas);
      expect(placesOf(watch.slots)).toEqual(booksOf(vm));
    }
  });

  it.each<[what: string, calls: number, change: (region: MemoryRegion, vm: Vm) => void]>([
    ['removed', 3, (region) => region.remove()],
    ['moved up', 3, (region) => region.move(2 * GIB)],
    ['moved down', 3, (region) => region.move(0)],
    ['made read-only', 6, (region) => region.setReadOnly(true)],
    ['shown twice', 3, (region, vm) => void vm.memory.addRam(2 ** 46, region.mapping)],
  ])('is as it was when one of the calls that it is %s with is refused', (_, calls, change) => {
    for (let refused = 0; refused < calls; refused++) {
      const { watch, vm, region } = setUp();
      vm.memory.writeU32(GIB + 2 * LARGEST, 77);
      const [places, books] = [placesOf(watch.slots), booksOf(vm)];
      expect(books).toEqual(places);
      [watch.calls, watch.refused] = [0, refused];
      expect(() => change(region, vm)).toThrow(expect.objectContaining({ code: 'ENOMEM' }));
      watch.refused = Number.POSITIVE_INFINITY;
      expect([placesOf(watch.slots), booksOf(vm)]).toEqual([places, books]);
      expect([...vm.memory.regions()]).toEqual([region]);
      expect([region.gpa, region.readOnly]).toEqual([GIB, false]);
      expect(vm.memory.readU32(GIB + 2 * LARGEST)).toBe(77);
      // Its slots are known as those that they are now, and it can be done again.
      for (const gpa of [4 * GIB, 0, GIB]) {
        region.move(gpa);
        const gpas = [...vm.memslots].map(({ baseGfn }) => baseGfn * 4096).sort((a, b) => a - b);
        expect(gpas).toEqual([gpa, gpa + LARGEST, gpa + 2 * LARGEST]);
      }
      expect([placesOf(watch.slots), booksOf(vm)]).toEqual([places, books]);
      change(region, vm);
      expect(placesOf(watch.slots)).toEqual(booksOf(vm));
      vm.close();
    }
    // No more calls than were refused one by one.
    const { watch, vm, region } = setUp();
    watch.calls = 0;
    change(region, vm);
    expect(watch.calls).toBe(calls);
  });

  it('is read-only in each slot, or in none', () => {
    const { vm, region } = setUp();
    expect(flagsOf(vm)).toEqual([0, 0, 0]);
    region.setReadOnly(true);
    expect(flagsOf(vm)).toEqual(new Array(3).fill(MEM.READONLY));
    region.setReadOnly(false);
    expect(flagsOf(vm)).toEqual([0, 0, 0]);
  });
});

it('a slot that could not be made read-only is known as the one that was made in its place, and others as they were', () => {
  const watch = watched();
  using kvm = Kvm.open({ calls: watch.kernel });
  using vm = kvm.createVm();
  const small = kvm.mapAnonymous(UNIT);
  const regions = [
    vm.memory.addRam(0, small),
    vm.memory.addRam(GIB, kvm.mapAnonymous(LARGEST + GIB)),
    vm.memory.addRam(UNIT, small),
    vm.memory.addRam(2 * UNIT, small),
  ];
  const gpasOf = () => [...vm.memslots].map(({ baseGfn }) => baseGfn * 4096).sort((a, b) => a - b);
  const gpas = [0, UNIT, 2 * UNIT, GIB, GIB + LARGEST];
  expect(gpasOf()).toEqual(gpas);
  for (const region of regions) {
    // It is deleted, and not made anew.
    [watch.calls, watch.refused] = [0, 1];
    expect(() => region.setReadOnly(true)).toThrow(expect.objectContaining({ code: 'ENOMEM' }));
    watch.refused = Number.POSITIVE_INFINITY;
    expect(gpasOf()).toEqual(gpas);
    expect(flagsOf(vm)).toEqual([0, 0, 0, 0, 0]);
    vm.dirtyPages.start();
    expect(flagsOf(vm)).toEqual(new Array(5).fill(MEM.LOG_DIRTY_PAGES));
    vm.dirtyPages.stop();
    expect(flagsOf(vm)).toEqual([0, 0, 0, 0, 0]);
    const { gpa } = region;
    region.move(2 ** 45);
    expect(gpasOf().at(-1)).toBeGreaterThanOrEqual(2 ** 45);
    region.move(gpa);
    expect(gpasOf()).toEqual(gpas);
    expect(placesOf(watch.slots)).toEqual(booksOf(vm));
  }
  for (const region of regions) region.remove();
  expect([vm.memslots.size, watch.slots.size]).toEqual([0, 0]);
});

describe('the log of all regions', () => {
  it('is on or off for all of them, those to come too, and for none when one is refused', () => {
    const watch = watched();
    using kvm = Kvm.open({ calls: watch.kernel });
    using vm = kvm.createVm();
    for (let i = 0; i < 3; i++) vm.memory.addRam(i * UNIT, kvm.mapAnonymous(UNIT), { readOnly: i === 1 });
    const plain = [0, MEM.READONLY, 0];
    const logged = plain.map((flags) => flags | MEM.LOG_DIRTY_PAGES);
    for (let refused = 0; refused < 3; refused++) {
      [watch.calls, watch.refused] = [0, refused];
      expect(() => vm.dirtyPages.start()).toThrow(expect.objectContaining({ code: 'ENOMEM' }));
      expect(flagsOf(vm)).toEqual(plain);
      expect(placesOf(watch.slots)).toEqual(booksOf(vm));
      expect(vm.dirtyPages.started).toBe(false);
    }
    watch.refused = Number.POSITIVE_INFINITY;
    vm.dirtyPages.start();
    expect(flagsOf(vm)).toEqual(logged);
    vm.memory.addRam(4 * UNIT, kvm.mapAnonymous(UNIT));
    expect(flagsOf(vm)).toEqual([...logged, MEM.LOG_DIRTY_PAGES]);
    vm.dirtyPages.stop();
    expect(flagsOf(vm)).toEqual([...plain, 0]);
  });

  it('is on for all of them again after an end that was refused, whatever was taken by hand since', () => {
    const watch = watched();
    using kvm = Kvm.open({ calls: watch.kernel });
    using vm = kvm.createVm();
    const ram = kvm.mapAnonymous(2 * UNIT);
    for (const offset of [0, UNIT]) vm.memory.addRam(offset, ram, { offset, size: UNIT });
    vm.dirtyPages.start();
    [watch.calls, watch.refused] = [0, 1];
    expect(() => vm.dirtyPages.stop()).toThrow(expect.objectContaining({ code: 'ENOMEM' }));
    watch.refused = Number.POSITIVE_INFINITY;
    const [first] = [...vm.memslots];
    const byHand = { slot: first!.word, guestPhysAddr: 0, memorySize: UNIT, userspaceAddr: ram.hva };
    vm.setUserMemoryRegion(byHand);
    expect(flagsOf(vm)).toEqual([0, MEM.LOG_DIRTY_PAGES]);
    vm.dirtyPages.start();
    expect(flagsOf(vm)).toEqual([MEM.LOG_DIRTY_PAGES, MEM.LOG_DIRTY_PAGES]);
    vm.memory.writeU8(0, 1);
    expect(vm.dirtyPages.collect().runs()).toEqual([{ gfn: 0, npages: 1 }]);
  });
});

it('a VM that can not have all regions of a space has none of them, and those of before', () => {
  for (let refused = 0; refused < 3; refused++) {
    const watch = watched();
    using kvm = Kvm.open({ calls: watch.kernel });
    using space = kvm.createAddressSpace();
    for (let i = 0; i < 3; i++) space.addRam(i * UNIT, kvm.mapAnonymous(UNIT));
    using vm = kvm.createVm();
    const before = vm.memory;
    [watch.calls, watch.refused] = [0, refused];
    expect(() => vm.bind(space)).toThrow(expect.objectContaining({ code: 'ENOMEM' }));
    watch.refused = Number.POSITIVE_INFINITY;
    expect([vm.memslots.size, watch.slots.size, vm.memory === before]).toEqual([0, 0, true]);
    expect(space.memoryRegions.map(({ mapping }) => mapping.pins)).toEqual([1, 1, 1]);
    vm.bind(space);
    expect([vm.memslots.size, watch.slots.size]).toEqual([3, 3]);
    expect(space.memoryRegions.map(({ mapping }) => mapping.pins)).toEqual([2, 2, 2]);
    vm.close();
    expect(space.memoryRegions.map(({ mapping }) => mapping.pins)).toEqual([1, 1, 1]);
  }
});

it('the slots of a region have its pages of a guest_memfd side by side, too', () => {
  const kernel = new EmulatedKernel({ arch: 'x86_64', x86_64: { swProtectedVm: true } });
  using kvm = Kvm.open({ calls: kernel });
  using vm = kvm.createVm({ type: 1 });
  using pages = vm.createGuestMemfd(LARGEST + 3 * GIB);
  const ram = kvm.mapAnonymous(LARGEST + 2 * GIB);
  vm.memory.addRam(0, ram, { guestMemfd: pages, guestMemfdOffset: GIB });
  expect(
    [...vm.memslots].map(({ baseGfn, npages, guestMemfd, guestMemfdOffset }) => [
      baseGfn * 4096,
      npages * 4096,
      guestMemfd,
      guestMemfdOffset,
    ]),
  ).toEqual([
    [0, LARGEST, pages.fd, GIB],
    [LARGEST, 2 * GIB, pages.fd, GIB + LARGEST],
  ]);
});

describe('a slot by hand', () => {
  it('over pages of a guest_memfd that another has is refused with that one', () => {
    const PAGE = 4096;
    using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64', release: '6.18' });
    using vm = kvm.createVm();
    const { fd } = vm.createGuestMemfd(8 * PAGE, GUEST_MEMFD_FLAG.MMAP | GUEST_MEMFD_FLAG.INIT_SHARED);
    const ram = kvm.mapAnonymous(UNIT);
    const set = (slot: number, first: number, npages: number) =>
      vm.memslots.set({
        slot,
        flags: MEM.GUEST_MEMFD,
        guestPhysAddr: slot * UNIT,
        memorySize: npages * PAGE,
        userspaceAddr: ram.hva,
        guestMemfd: fd,
        guestMemfdOffset: first * PAGE,
      });
    set(0, 0, 2);
    set(1, 4, 2);
    for (const [first, npages, other] of [
      [1, 3, '[0x0, 0x2000), which is slot 0'],
      [2, 3, '[0x4000, 0x6000), which is slot 1'],
      [5, 1, '[0x4000, 0x6000), which is slot 1'],
    ] as const) {
      expect(() => set(2, first, npages)).toThrow(
        expect.objectContaining({ explanation: expect.stringContaining(`overlaps ${other}'s`) }),
      );
    }
    set(2, 2, 2);
    set(3, 6, 2);
    expect(vm.memslots.size).toBe(4);
  });

  it('over addresses without memory is one without a mapping, and goes like any other', () => {
    const watch = watched();
    using kvm = Kvm.open({ calls: watch.kernel });
    using vm = kvm.createVm();
    const slot = vm.memslots.set({ slot: 3, guestPhysAddr: 0, memorySize: UNIT, userspaceAddr: 2 ** 32 });
    expect(slot).toMatchObject({ id: 3, npages: UNIT / 4096, mapping: undefined });
    expect(vm.memslots.size).toBe(1);
    vm.memslots.delete(3);
    expect([vm.memslots.size, watch.slots.size]).toEqual([0, 0]);
  });

  it('that moves onto another is refused with that one, not with its own place', () => {
    using kvm = Kvm.open({ calls: watched().kernel });
    using vm = kvm.createVm();
    const ram = kvm.mapAnonymous(2 * UNIT);
    const first = { slot: 0, guestPhysAddr: 0, memorySize: 2 * UNIT, userspaceAddr: ram.hva };
    vm.setUserMemoryRegion(first);
    vm.setUserMemoryRegion({ slot: 1, guestPhysAddr: 2 * UNIT, memorySize: UNIT, userspaceAddr: ram.hva });
    expect(() => vm.setUserMemoryRegion({ ...first, guestPhysAddr: UNIT })).toThrow(
      expect.objectContaining({
        code: 'EEXIST',
        explanation: expect.stringContaining('overlaps slot 1 [0x200000, 0x300000)'),
      }),
    );
    vm.memslots.delete(1);
    expect(vm.memslots.set({ ...first, guestPhysAddr: UNIT })).toMatchObject({ baseGfn: UNIT / 4096 });
  });
});
