import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Kvm, type Vcpu, type Vm } from '../../../lib/index.ts';
import { ERRNO, MEM, store } from '../../../lib/raw.ts';
import { backends, UNIT } from '../handles/backends.ts';
import { loadGuest, loadStores, runsGuests, runsOnProcessor, type Step } from '../handles/guests.ts';

/** Slots and vCPUs change or go, and nothing dirty goes with them unsaid. */
describe.each(backends)('what the kernel forgets on $name', (backend) => {
  let kvm: Kvm;
  let vm: Vm;
  let page: number;
  const collected = (): number[] => [...vm.dirtyPages.collect().pages()];

  beforeEach(() => {
    kvm = Kvm.open(backend.options);
    vm = kvm.createVm();
    page = kvm.pageSize;
  });
  afterEach(() => {
    vm.close();
    kvm.close();
  });

  it('what is pending moves with its region, also where it overlaps the old place', () => {
    const region = vm.memory.addRam(0, kvm.mapAnonymous(2 * UNIT));
    vm.dirtyPages.start();
    vm.memory.writeU8(0, 1);
    vm.memory.writeU8(UNIT, 1);
    region.move(UNIT);
    expect(collected()).toEqual([UNIT / page, (2 * UNIT) / page]);
    vm.memory.writeU8(2 * UNIT, 1);
    region.move(0);
    expect(collected()).toEqual([UNIT / page]);
  });

  it('a change of READONLY loses neither what is pending nor what was collected, done or refused', () => {
    const region = vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
    vm.dirtyPages.start();
    vm.memory.writeU8(3 * page, 1);
    expect(collected()).toEqual([3]);
    vm.memory.writeU8(5 * page, 1);
    try {
      region.setReadOnly(true);
    } catch (error) {
      expect(error).toMatchObject({ code: 'EINVAL' });
    }
    expect([...vm.dirtyPages.pages()]).toEqual([3]);
    expect(collected()).toEqual([5]);
  });

  it('a slot that is not logged any more is told before anything is fetched, and nothing of the others is lost', () => {
    const region = vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
    const gone = vm.memory.addRam(2 * UNIT, kvm.mapAnonymous(UNIT));
    const ram = kvm.mapAnonymous(UNIT);
    const byHand = { slot: 9, flags: 0, guestPhysAddr: 4 * UNIT, memorySize: UNIT, userspaceAddr: ram.hva };
    vm.setUserMemoryRegion(byHand);
    vm.dirtyPages.start();
    // Logged from here on, and so collected.
    vm.setUserMemoryRegion({ ...byHand, flags: 1 });
    ram.write(page, Uint8Array.of(1));
    vm.memory.writeU8(3 * page, 1);
    vm.memory.writeU8(2 * UNIT, 1);
    gone.remove();
    vm.setUserMemoryRegion(byHand);
    const refused = expect.objectContaining({
      code: 'ENOENT',
      slot: 9,
      gpa: 4 * UNIT,
      size: UNIT,
      explanation: expect.stringContaining('LOG_DIRTY_PAGES was taken from slot 9 by hand: give it back'),
    });
    expect(() => vm.dirtyPages.collect()).toThrow(refused);
    expect(() => vm.dirtyPages.collect()).toThrow(refused);
    vm.setUserMemoryRegion({ ...byHand, flags: 1 });
    expect(vm.dirtyPages.collect().runs()).toEqual([
      { gfn: 3, npages: 1 },
      { gfn: (4 * UNIT) / page, npages: UNIT / page },
    ]);
    expect(vm.dirtyPages.removed.map(({ runs }) => runs)).toEqual([[{ gfn: (2 * UNIT) / page, npages: 1 }]]);
    vm.memory.writeU8(5 * page, 1);
    vm.setUserMemoryRegion(byHand);
    expect(() => vm.dirtyPages.collect()).toThrow(refused);
    vm.setUserMemoryRegion({ ...byHand, memorySize: 0 });
    expect(collected()).toEqual([5]);
    expect(region.size).toBe(UNIT);
  });

  it('a collection that fails in the middle is told whole by the next', () => {
    vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
    vm.memory.addRam(2 * UNIT, kvm.mapAnonymous(UNIT));
    const gone = vm.memory.addRam(4 * UNIT, kvm.mapAnonymous(UNIT));
    vm.dirtyPages.start();
    vm.memory.writeU8(3 * page, 1);
    expect(collected()).toEqual([3]);
    vm.memory.writeU8(4 * UNIT, 1);
    gone.remove();
    vm.memory.writeU8(5 * page, 1);
    const ask = kvm.calls.getDirtyLog;
    const answer = vi.spyOn(kvm.calls, 'getDirtyLog').mockImplementation((_vm, slot, bitmap) => {
      if (slot !== 0) return -ERRNO.ENOMEM;
      // As if the guest had stored to page 7, of which the kernel tells once.
      bitmap!.fill(0);
      bitmap![0] = 1 << 7;
      return 0;
    });
    expect(() => vm.dirtyPages.collect()).toThrow(expect.objectContaining({ code: 'ENOMEM', slot: 1 }));
    answer.mockRestore();
    expect(kvm.calls.getDirtyLog).toBe(ask);
    expect(collected()).toEqual([5, 7]);
    expect(vm.dirtyPages.removed.map(({ runs }) => runs)).toEqual([[{ gfn: (4 * UNIT) / page, npages: 1 }]]);
  });

  it('a page that is seen at two addresses is dirty at both, whoever wrote it', () => {
    const ram = kvm.mapAnonymous(3 * UNIT);
    vm.memory.addRam(0, ram, { size: 2 * UNIT });
    vm.memory.addRam(4 * UNIT, ram, { offset: UNIT, size: 2 * UNIT });
    vm.dirtyPages.start();
    vm.memory.writeU8(UNIT + 3 * page, 1);
    vm.memory.writeU8(4 * UNIT + 5 * page, 1);
    vm.memory.writeU8(2 * page, 1);
    vm.memory.writeU8(5 * UNIT, 1);
    const frames = [2 * page, UNIT + 3 * page, UNIT + 5 * page, 4 * UNIT + 3 * page, 4 * UNIT + 5 * page, 5 * UNIT];
    expect(collected()).toEqual(frames.map((gpa) => gpa / page));
    expect(collected()).toEqual([]);
  });

  it('what was dirty of a region that goes is dirty where others show the same page', () => {
    const ram = kvm.mapAnonymous(3 * UNIT);
    const gone = vm.memory.addRam(0, ram, { size: 2 * UNIT });
    vm.memory.addRam(4 * UNIT, ram, { offset: UNIT, size: 2 * UNIT });
    // These two show each other's memory, of which nothing went.
    vm.memory.addRam(8 * UNIT, ram, { offset: 2 * UNIT, size: UNIT });
    vm.dirtyPages.start();
    for (const gpa of [3 * page, UNIT, UNIT + 3 * page]) vm.memory.writeU8(gpa, 1);
    gone.remove();
    expect(collected()).toEqual([(4 * UNIT) / page, (4 * UNIT) / page + 3]);
    expect(vm.dirtyPages.removed.map(({ runs }) => runs)).toEqual([
      [3, UNIT / page, UNIT / page + 3].map((gfn) => ({ gfn, npages: 1 })),
    ]);
    expect(collected()).toEqual([]);
  });

  it('what was dirty of a region that goes is dirty where others show it, wherever the region was', () => {
    const ram = kvm.mapAnonymous(UNIT);
    const gone = vm.memory.addRam(3 * UNIT, ram);
    vm.memory.addRam(UNIT, ram);
    vm.dirtyPages.start();
    for (const at of [0, 5 * page]) vm.memory.writeU8(3 * UNIT + at, 1);
    gone.remove();
    expect(collected()).toEqual([UNIT / page, UNIT / page + 5]);
  });

  it('what was dirty of a region that goes is dirty only in the pages that another shows of it, before it or behind', () => {
    const ram = kvm.mapAnonymous(3 * UNIT);
    const gone = vm.memory.addRam(0, ram, { offset: UNIT, size: UNIT });
    // All up to its end, and one unit out of its middle: whole pages of each kernel's.
    vm.memory.addRam(4 * UNIT, ram, { size: 2 * UNIT });
    vm.dirtyPages.start();
    for (const gpa of [2 * page, UNIT - page]) vm.memory.writeU8(gpa, 1);
    gone.remove();
    expect(collected()).toEqual([(5 * UNIT) / page + 2, (6 * UNIT) / page - 1]);
  });

  it('a slot made anew with another size is another one, and the last one’s pages are told', () => {
    const ram = kvm.mapAnonymous(2 * UNIT);
    const place = {
      slot: 5,
      guestPhysAddr: 0,
      memorySize: 2 * UNIT,
      userspaceAddr: ram.hva,
      flags: MEM.LOG_DIRTY_PAGES,
    };
    vm.setUserMemoryRegion(place);
    vm.dirtyPages.start();
    vm.memory.markDirty(3 * page, 1);
    vm.setUserMemoryRegion({ ...place, memorySize: 0 });
    vm.setUserMemoryRegion({ ...place, memorySize: UNIT });
    expect(collected()).toEqual([3]);
    expect(vm.dirtyPages.removed).toMatchObject([
      { slot: { npages: (2 * UNIT) / page }, runs: [{ gfn: 3, npages: 1 }] },
    ]);
  });

  it('a bind that is refused leaves dirty tracking as it was', () => {
    vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
    const { dirtyPages } = vm;
    dirtyPages.start();
    vm.memory.writeU8(2 * page, 1);
    const other = kvm.mapAnonymous(UNIT);
    const byHand = { slot: 9, guestPhysAddr: 4 * UNIT, memorySize: UNIT, userspaceAddr: other.hva };
    vm.setUserMemoryRegion(byHand);
    const space = kvm.createAddressSpace();
    space.addRam(4 * UNIT, kvm.mapAnonymous(UNIT));
    expect(() => vm.bind(space)).toThrow(expect.objectContaining({ code: 'EEXIST' }));
    expect(vm.dirtyPages).toBe(dirtyPages);
    vm.memory.writeU8(3 * page, 1);
    expect(collected()).toEqual([2, 3]);
    vm.setUserMemoryRegion({ ...byHand, memorySize: 0 });
    vm.bind(space);
    expect(dirtyPages.started).toBe(false);
    expect(vm.dirtyPages).not.toBe(dirtyPages);
  });

  it('those of memory that the VM has no more are not collected as if nothing were dirty', () => {
    vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
    const { dirtyPages } = vm;
    const space = kvm.createAddressSpace();
    space.addRam(0, kvm.mapAnonymous(UNIT));
    vm.bind(space);
    const isOver = expect.objectContaining({ code: 'EBADF', explanation: expect.stringContaining('vm.dirtyPages') });
    expect(() => dirtyPages.start()).toThrow(isOver);
    expect(() => dirtyPages.collect()).toThrow(isOver);
    expect(dirtyPages.started).toBe(false);
    vm.dirtyPages.start();
    dirtyPages.stop();
    vm.memory.writeU8(page, 1);
    expect(collected()).toEqual([1]);
    const last = vm.dirtyPages;
    vm.close();
    expect(() => last.start()).toThrow(expect.objectContaining({ code: 'EBADF' }));
  });

  it('a slot made anew has what the last slot there had, not an earlier one of the same memory', () => {
    const mapping = kvm.mapAnonymous(UNIT);
    const byHand = kvm.mapAnonymous(UNIT);
    vm.setUserMemoryRegion({ slot: 9, guestPhysAddr: 4 * UNIT, memorySize: UNIT, userspaceAddr: byHand.hva });
    using refused = kvm.createAddressSpace();
    refused.addRam(4 * UNIT, byHand);
    vm.dirtyPages.start();
    vm.memory.addRam(0, mapping).remove();
    const region = vm.memory.addRam(UNIT, mapping);
    vm.memory.writeU8(UNIT + 3 * page, 1);
    region.move(0);
    expect(() => vm.bind(refused)).toThrow(expect.objectContaining({ code: 'EEXIST' }));
    vm.memory.writeU8(5 * page, 1);
    try {
      region.setReadOnly(true);
    } catch (error) {
      expect(error).toMatchObject({ code: 'EINVAL' });
    }
    expect(collected()).toEqual([3, 5]);
  });

  it('a region that goes leaves its last pages to be asked for, and its place to others', () => {
    const region = vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
    vm.dirtyPages.start();
    for (const gfn of [1, 2, 7]) vm.memory.writeU8(gfn * page, 1);
    region.remove();
    vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
    expect(collected()).toEqual([]);
    expect(vm.dirtyPages.removed).toMatchObject([
      {
        slot: { baseGfn: 0 },
        runs: [
          { gfn: 1, npages: 2 },
          { gfn: 7, npages: 1 },
        ],
      },
    ]);
    expect(collected()).toEqual([]);
    expect(vm.dirtyPages.removed).toEqual([]);
  });

  it('what a mapping’s own calls change is dirty wherever it is shown', () => {
    const ram = kvm.mapAnonymous(2 * UNIT);
    const held = kvm.reserve(UNIT);
    vm.memory.addRam(0, ram, { offset: UNIT });
    held.mapAnonymous(0, UNIT);
    vm.memory.addRam(4 * UNIT, held);
    vm.dirtyPages.start();
    ram.discard(UNIT + page, page);
    ram.write(UNIT + 3 * page, Uint8Array.of(1));
    ram.write(0, Uint8Array.of(1));
    held.mapMemfd(page, page);
    held.unmapPart(2 * page, page);
    held.discard(4 * page, page);
    const first = (4 * UNIT) / page;
    expect(collected()).toEqual([1, 3, first + 1, first + 2, first + 4]);
  });

  it('ids of vCPUs count up from the highest there was', () => {
    vm.createVcpu();
    vm.createVcpu().close();
    expect(vm.createVcpu().id).toBe(2);
  });

  if (!runsGuests(backend)) return;

  describe('with a guest that stores', () => {
    let vcpu: Vcpu;
    const stores = async (...gfns: number[]): Promise<void> => {
      loadStores(
        kvm,
        vm,
        vcpu,
        gfns.map((gfn) => gfn * page),
      );
      await vcpu.run();
    };
    const pages = (): number[] => collected().filter((gfn) => gfn !== 1);

    it('READONLY and moves keep what only the kernel knew', async () => {
      vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
      const region = vm.memory.addRam(UNIT, kvm.mapAnonymous(UNIT));
      vcpu = vm.createVcpu();
      vm.dirtyPages.start();
      await stores(UNIT / page + 2);
      region.setReadOnly(true);
      expect(pages()).toEqual([UNIT / page + 2]);
      region.setReadOnly(false);
      await stores(UNIT / page + 3);
      region.move(4 * UNIT);
      expect(pages()).toEqual([(4 * UNIT) / page + 3]);
    });

    it('a slot set by hand that moves, or is not logged for a while, loses nothing of what only the kernel knew, or nobody', async () => {
      vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
      const ram = kvm.mapAnonymous(UNIT);
      const byHand = { slot: 9, flags: 1, guestPhysAddr: 4 * UNIT, memorySize: UNIT, userspaceAddr: ram.hva };
      vm.setUserMemoryRegion(byHand);
      vcpu = vm.createVcpu();
      vm.dirtyPages.start();
      await stores((4 * UNIT) / page + 3);
      vm.setUserMemoryRegion({ ...byHand, flags: 0 });
      // Nobody knows what is stored now.
      await stores((4 * UNIT) / page + 4);
      vm.setUserMemoryRegion(byHand);
      expect(vm.dirtyPages.collect().runs().at(-1)).toEqual({ gfn: (4 * UNIT) / page, npages: UNIT / page });
      await stores((4 * UNIT) / page + 5);
      vm.setUserMemoryRegion({ ...byHand, guestPhysAddr: 8 * UNIT });
      expect(pages()).toEqual([(8 * UNIT) / page + 5]);
    });

    it("a guest's store is dirty at each address of the page, also where one came later", async () => {
      const ram = kvm.mapAnonymous(UNIT);
      vm.memory.addRam(0, ram);
      vcpu = vm.createVcpu();
      vm.dirtyPages.start();
      pages();
      vm.memory.addRam(4 * UNIT, ram);
      await stores(6, (4 * UNIT) / page + 9);
      const expected = [6, 9, (4 * UNIT) / page + 6, (4 * UNIT) / page + 9];
      expect(pages().filter((gfn) => gfn % (UNIT / page) > 1)).toEqual(expected);
    });

    it.each(['removed', 'moved', 'bound away', 'taken off the port bus'])(
      'coalesced stores reach handlers that are then %s',
      async (change) => {
        const ram = kvm.mapAnonymous(UNIT);
        vm.memory.addRam(0, ram);
        const seen: number[] = [];
        const write = (offset: number): void => {
          seen.push(offset);
          // Another change in the middle of it.
          if (offset === 2) region.remove();
        };
        const isPort = change === 'taken off the port bus';
        const bus = isPort ? vm.io.ports : vm.memory.mmio;
        const base = isPort ? 0x40 : 8 * UNIT;
        const region = bus.add(base, 16, { write });
        vm.io.registerCoalescedMmio(base, 16, { pio: isPort });
        vcpu = vm.createVcpu();
        const put = (at: number): Step => (isPort ? { out: at, value: 1 } : { store: at, value: 1 });
        loadGuest(kvm, vm, vcpu, [put(base), put(base + 1), put(base + 2), { store: 12 * UNIT, value: 1 }]);
        // Another thread's guest is not out of the kernel yet, which would hand them over.
        expect(kvm.calls.run(vcpu.fd, 0)).toBe(0);
        expect(seen).toEqual([]);
        if (change === 'moved') region.move(9 * UNIT);
        else if (change !== 'bound away') region.remove();
        else {
          const space = kvm.createAddressSpace();
          space.addRam(0, ram);
          vm.bind(space);
        }
        expect(seen).toEqual([0, 1, 2]);
      },
    );

    it('a closed vCPU leaves its dirty ring', async (test) => {
      test.skip(vm.checkExtension('DIRTY_LOG_RING') === 0 || !runsOnProcessor(kvm), 'it needs a dirty ring that fills');
      vm.enableDirtyRing(4096);
      vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
      vcpu = vm.createVcpu();
      vm.dirtyPages.start();
      await stores(4, 6);
      vcpu.close();
      expect(pages()).toEqual([4, 6]);
    });

    it('coalesced stores reach their handlers when the last vCPU closes, and before an INTR', async (test) => {
      test.skip(kvm.emulated === undefined, 'a real guest can’t be made to stop between a store and an exit');
      const seen: unknown[] = [];
      vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
      vm.memory.addMmio(8 * UNIT, 16, { write: (offset, value) => seen.push([offset, value]) });
      vm.io.registerCoalescedMmio(8 * UNIT, 16);
      vcpu = vm.createVcpu();
      const script = function* (offset: number) {
        yield store(8 * UNIT + offset, 1, 5n);
      };
      kvm.emulated!.loadGuest(vcpu.fd, script(1));
      vcpu.runSync({ timeoutMs: 5 });
      expect(seen).toEqual([[1, 5]]);
      kvm.emulated!.loadGuest(vcpu.fd, script(2));
      kvm.calls.run(vcpu.fd, 5);
      vcpu.close();
      expect(seen).toEqual([
        [1, 5],
        [2, 5],
      ]);
    });
  });
});
