import { inspect } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { AddressSpace, DIRTY_LOG, Kvm, type KvmError, type Vm } from '../../../lib/index.ts';
import { EmulatedKernel, ERRNO, MEM } from '../../../lib/raw.ts';
import { UNIT } from '../handles/backends.ts';
import { loadStores } from '../handles/guests.ts';

const PAGE = 4096;
/** The frames of UNIT. */
const FRAMES = UNIT / PAGE;

let kernel: EmulatedKernel;
let kvm: Kvm;
let vm: Vm;
/** What was asked of the kernel, by name. */
let asked: string[];

beforeEach(() => {
  kernel = new EmulatedKernel({ arch: 'x86_64' });
  asked = [];
  for (const name of ['getDirtyLog', 'clearDirtyLog', 'setUserMemoryRegion'] as const) {
    const real = kernel[name].bind(kernel) as (...args: never[]) => number;
    (kernel as unknown as Record<string, unknown>)[name] = (...args: never[]) => {
      asked.push(name);
      return real(...args);
    };
  }
  kvm = Kvm.open({ calls: kernel });
  vm = kvm.createVm();
});
afterEach(() => {
  vm.close();
  kvm.close();
});

const collected = (options?: { clear: boolean }): number[] => [...vm.dirtyPages.collect(options).pages()];
const write = (...gfns: number[]): void => {
  for (const gfn of gfns) vm.memory.writeU8(gfn * PAGE, 1);
};

describe('collecting', () => {
  it('is refused while what was collected is gone through, and not afterwards', () => {
    vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
    const { dirtyPages } = vm;
    dirtyPages.start();
    write(3, 9);
    dirtyPages.collect();
    const busy = {
      code: 'EBUSY',
      syscall: 'collect dirty pages',
      explanation: 'the pages that were collected are just being gone through: collect when that is over',
    };
    const again = () => void dirtyPages.collect();
    expect(() => dirtyPages.forEachPage(again)).toThrow(expect.objectContaining(busy));
    expect(() => dirtyPages.forEachRun(again)).toThrow(expect.objectContaining(busy));
    write(4);
    expect(collected()).toEqual([4]);
  });

  it('is said not to be started, or to have ended, by each call that needs it', () => {
    vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
    const { dirtyPages } = vm;
    const stopped = { code: 'ENOENT', explanation: 'dirty tracking is not started' };
    expect(dirtyPages.started).toBe(false);
    expect(() => dirtyPages.collect()).toThrow(expect.objectContaining({ ...stopped, syscall: 'collect dirty pages' }));
    expect(() => dirtyPages.clear()).toThrow(expect.objectContaining({ ...stopped, syscall: 'clear dirty pages' }));
    dirtyPages.start();
    expect(dirtyPages.started).toBe(true);
    dirtyPages.stop();
    expect(() => dirtyPages.collect()).toThrow(expect.objectContaining(stopped));
    dirtyPages.start();
    vm.close();
    expect(dirtyPages.started).toBe(false);
    expect(() => dirtyPages.start()).toThrow(expect.objectContaining({ code: 'EBADF', syscall: 'start dirty pages' }));
  });

  it('asks for each slot once, and clears under manual protection only where something is dirty', () => {
    vm.enableCap('MANUAL_DIRTY_LOG_PROTECT2', [DIRTY_LOG.MANUAL_PROTECT_ENABLE]);
    vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
    vm.memory.addRam(UNIT, kvm.mapAnonymous(UNIT));
    vm.dirtyPages.start();
    asked.length = 0;
    expect(collected()).toEqual([]);
    expect(asked).toEqual(['getDirtyLog', 'getDirtyLog']);
  });

  it('turns the log on for each slot that lacks it, and off again', () => {
    const flags = () => [...vm.memslots].map((slot) => slot.flags);
    vm.memory.addRam(0, kvm.mapAnonymous(UNIT), { readOnly: true });
    vm.memory.addRam(UNIT, kvm.mapAnonymous(UNIT));
    asked.length = 0;
    vm.dirtyPages.start();
    expect(flags()).toEqual([MEM.READONLY | MEM.LOG_DIRTY_PAGES, MEM.LOG_DIRTY_PAGES]);
    vm.dirtyPages.start();
    expect(asked).toEqual(['setUserMemoryRegion', 'setUserMemoryRegion']);
    vm.dirtyPages.stop();
    expect(flags()).toEqual([MEM.READONLY, 0]);
    vm.dirtyPages.stop();
    expect(asked).toHaveLength(4);
  });

  it('turns it on only for those that lack it', () => {
    const ram = kvm.mapAnonymous(2 * UNIT);
    vm.memory.addRam(0, ram, { size: UNIT });
    vm.memory.addRam(UNIT, ram, { offset: UNIT, size: UNIT });
    const [first] = vm.memslots;
    vm.memslots.set({ slot: first!.id, guestPhysAddr: 0, memorySize: UNIT, userspaceAddr: ram.hva, flags: 1 });
    asked.length = 0;
    vm.dirtyPages.start();
    expect(asked).toEqual(['setUserMemoryRegion']);
  });

  it('begins anew with nothing after it was stopped', () => {
    vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
    vm.dirtyPages.start();
    write(3);
    vm.dirtyPages.collect();
    vm.dirtyPages.stop();
    write(4);
    vm.dirtyPages.start();
    expect(collected()).toEqual([]);
  });

  it('ends with the block that uses it, and tells of nothing removed before something was', () => {
    const region = vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
    expect(vm.dirtyPages.removed).toEqual([]);
    {
      using dirty = vm.dirtyPages.start();
      expect([dirty.removed, dirty.started]).toEqual([[], true]);
      write(3);
      region.remove();
      expect(dirty.removed).toEqual([]);
      expect(dirty.collect().removed).toHaveLength(1);
    }
    expect([vm.dirtyPages.started, vm.dirtyPages.removed]).toEqual([false, []]);
  });

  it('has nothing of a part of a mapping that no region shows', () => {
    const ram = kvm.mapAnonymous(2 * UNIT);
    vm.memory.addRam(0, ram, { offset: UNIT });
    vm.dirtyPages.start();
    ram.discard(0, 2 * PAGE);
    expect(collected()).toEqual([]);
    ram.discard(UNIT - PAGE, 2 * PAGE);
    expect(collected()).toEqual([0]);
  });

  it('tells of no run where nothing is dirty', () => {
    vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
    vm.dirtyPages.start();
    vm.dirtyPages.collect();
    expect(vm.dirtyPages.runs()).toEqual([]);
  });

  it('ignores entries of rings behind the end of their slot', () => {
    const ram = kvm.mapAnonymous(2 * UNIT);
    vm.memory.addRam(0, ram, { size: UNIT });
    vm.memory.addRam(UNIT, ram, { offset: UNIT, size: UNIT });
    const [slot] = vm.memslots;
    vm.dirtyPages.start();
    vm.dirtyPages.harvested(slot!.id, FRAMES);
    vm.dirtyPages.harvested(slot!.id, FRAMES - 1);
    // Of a slot that is gone.
    vm.dirtyPages.harvested(7, 0);
    expect(collected()).toEqual([FRAMES - 1]);
  });

  it('has no reason for what a kernel refuses that should not', () => {
    vm.enableCap('MANUAL_DIRTY_LOG_PROTECT2', [DIRTY_LOG.MANUAL_PROTECT_ENABLE]);
    vm.memory.addRam(2 * UNIT, kvm.mapAnonymous(UNIT));
    vm.dirtyPages.start();
    const refusalOf = (call: () => unknown): unknown => {
      try {
        call();
      } catch (error) {
        const { code, syscall, slot, gpa, size, explanation } = error as KvmError;
        return { code, syscall, slot, gpa, size, explanation };
      }
      return 'nothing is refused';
    };
    const { getDirtyLog, clearDirtyLog } = kernel;
    const where = { slot: 0, gpa: 2 * UNIT, size: UNIT, explanation: undefined };
    for (const code of ['ENXIO', 'ENOENT', 'EINVAL', 'EFAULT'] as const) {
      kernel.getDirtyLog = () => -ERRNO[code];
      const collect = () => vm.dirtyPages.collect();
      expect(refusalOf(collect)).toEqual({ code, syscall: 'ioctl(KVM_GET_DIRTY_LOG)', ...where });
      kernel.getDirtyLog = (_vm, _slot, bits) => {
        bits![0] = 1;
        return 0;
      };
      kernel.clearDirtyLog = () => -ERRNO[code];
      expect(refusalOf(collect)).toEqual({ code, syscall: 'ioctl(KVM_CLEAR_DIRTY_LOG)', ...where });
      Object.assign(kernel, { getDirtyLog, clearDirtyLog });
    }
  });

  it('counts all pages of a slot as dirty that goes while a guest may store to it', async () => {
    const region = vm.memory.addRam(4 * UNIT, kvm.mapAnonymous(UNIT));
    const other = vm.memory.addRam(8 * UNIT, kvm.mapAnonymous(UNIT));
    vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
    const vcpu = vm.createVcpu();
    loadStores(kvm, vm, vcpu, [8]);
    vm.dirtyPages.start();
    const run = vcpu.run();
    region.remove();
    await run;
    other.remove();
    // Once it does not run, the kernel's answer is the last word: nothing is dirty of the other.
    expect(vm.dirtyPages.collect().removed.map(({ slot, runs }) => [slot.baseGfn, runs])).toEqual([
      [4 * FRAMES, [{ gfn: 4 * FRAMES, npages: FRAMES }]],
    ]);
  });

  it('counts all pages of a slot as dirty of which the kernel says nothing before it changes', () => {
    const region = vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
    vm.dirtyPages.start();
    const { getDirtyLog } = kernel;
    kernel.getDirtyLog = () => -22;
    region.move(2 * UNIT);
    kernel.getDirtyLog = getDirtyLog;
    expect(collected()).toEqual(Array.from({ length: FRAMES }, (_, i) => 2 * FRAMES + i));
    // Where it answers, only what it said.
    region.move(0);
    expect(collected()).toEqual([]);
  });

  it('keeps what only the kernel knew of a slot that loses its log', () => {
    const ram = kvm.mapAnonymous(UNIT);
    vm.dirtyPages.start();
    const place = { slot: 5, guestPhysAddr: 0, memorySize: UNIT, userspaceAddr: ram.hva };
    vm.memslots.set({ ...place, flags: MEM.LOG_DIRTY_PAGES });
    asked.length = 0;
    vm.memslots.set({ ...place, flags: 0 });
    expect(asked).toEqual(['getDirtyLog', 'setUserMemoryRegion']);
    // It has no log to be kept, nor has one that gets it.
    asked.length = 0;
    vm.memslots.set({ ...place, flags: MEM.LOG_DIRTY_PAGES });
    expect(asked).toEqual(['setUserMemoryRegion']);
  });

  it('is of one address space of the VM: slots of another are not its', () => {
    const ram = kvm.mapAnonymous(UNIT);
    vm.memory.addRam(0, ram);
    vm.dirtyPages.start();
    const other = { guestPhysAddr: 16 * UNIT, memorySize: UNIT, userspaceAddr: ram.hva };
    vm.memslots.set({ slot: 0x1_0000, flags: MEM.LOG_DIRTY_PAGES, ...other });
    asked.length = 0;
    collected();
    expect(asked).toEqual(['getDirtyLog']);
  });

  it('follows slots that are set by hand, if they have the log', () => {
    vm.dirtyPages.start();
    const ram = kvm.mapAnonymous(UNIT);
    const place = { slot: 5, guestPhysAddr: 0, memorySize: UNIT, userspaceAddr: ram.hva };
    vm.memslots.set({ ...place, flags: 0 });
    asked.length = 0;
    collected();
    expect(asked).toEqual([]);
    // They may be moved.
    vm.memslots.set({ ...place, guestPhysAddr: UNIT });
    vm.memslots.set({ ...place, guestPhysAddr: 0 });
    expect(collected()).toEqual([]);
    vm.memslots.set({ ...place, memorySize: 0 });
    vm.memslots.set({ ...place, flags: MEM.LOG_DIRTY_PAGES });
    asked.length = 0;
    collected();
    expect(asked).toEqual(['getDirtyLog']);
  });
});

describe('what is removed', () => {
  it('is told with its runs in ascending order, however far apart and in which order they were written', () => {
    // More than one chunk of 2^15 frames.
    const region = vm.memory.addRam(0, kvm.mapAnonymous(2 ** 29));
    vm.dirtyPages.start();
    write(0x1_8001, 0x1_8000, 0x7fff, 0x8000, 5);
    region.remove();
    vm.dirtyPages.collect();
    expect(vm.dirtyPages.removed.map(({ runs }) => runs)).toEqual([
      [
        { gfn: 5, npages: 1 },
        { gfn: 0x7fff, npages: 2 },
        { gfn: 0x1_8000, npages: 2 },
      ],
    ]);
    expect(vm.dirtyPages.count).toBe(0);
  });

  it('is not told where nothing is dirty', () => {
    const clean = vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
    const dirty = vm.memory.addRam(UNIT, kvm.mapAnonymous(UNIT));
    vm.dirtyPages.start();
    write(FRAMES + 2);
    clean.remove();
    dirty.remove();
    vm.dirtyPages.collect();
    expect(vm.dirtyPages.removed).toMatchObject([
      { slot: { baseGfn: FRAMES }, runs: [{ gfn: FRAMES + 2, npages: 1 }] },
    ]);
    vm.dirtyPages.stop();
    expect(vm.dirtyPages.removed).toEqual([]);
  });
});

describe('clearing under manual protection', () => {
  // Two regions, the second of which begins at frame 2 * FRAMES, and is found with its own first page.
  const SECOND = 2 * FRAMES;
  const dirty = [3, 63, 64, 130, SECOND, SECOND + 64, SECOND + 255];

  const clearAfter = async (clear: () => void): Promise<number[]> => {
    vm.enableCap('MANUAL_DIRTY_LOG_PROTECT2', [DIRTY_LOG.MANUAL_PROTECT_ENABLE]);
    vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
    vm.memory.addRam(SECOND * PAGE, kvm.mapAnonymous(UNIT));
    const vcpu = vm.createVcpu();
    vm.dirtyPages.start();
    loadStores(
      kvm,
      vm,
      vcpu,
      dirty.map((gfn) => gfn * PAGE + 8),
    );
    await vcpu.run();
    const code = collected({ clear: false }).filter((gfn) => !dirty.includes(gfn));
    clear();
    return collected({ clear: false }).filter((gfn) => !code.includes(gfn));
  };
  const without = (...gone: number[]): number[] => dirty.filter((gfn) => !gone.includes(gfn));

  it.each([
    ['nothing for an empty range', 3 * PAGE, 0, []],
    ['the page that a byte of the range is in', 3 * PAGE + 5, 1, [3]],
    ['two pages for two bytes over their seam', 64 * PAGE - 1, 2, [63, 64]],
    ['no page behind a range that ends with one', 63 * PAGE, PAGE, [63]],
    ['the first page of another slot', SECOND * PAGE, PAGE, [SECOND]],
    ['pages of both slots', 130 * PAGE, (SECOND - 130 + 65) * PAGE, [130, SECOND, SECOND + 64]],
    ['the last page of a slot', (SECOND + 255) * PAGE, PAGE, [SECOND + 255]],
    ['nothing beyond all slots', 8 * UNIT, UNIT, []],
    ['nothing between the slots', UNIT, UNIT, []],
  ] as const)('clears %s', async (_, gpa, size, gone) => {
    expect(await clearAfter(() => vm.dirtyPages.clear(gpa, size))).toEqual(without(...gone));
  });

  it.each([
    ['ends where it begins', UNIT, UNIT, 0],
    ['begins where it ends', 3 * UNIT, UNIT, 0],
    ['has its first page', UNIT, UNIT + 1, 1],
    ['has its last page', 3 * UNIT - 1, UNIT, 1],
    ['has all of it', 0, 8 * UNIT, 1],
    ['is empty, and before it', 0, 0, 0],
  ])('asks nothing of a slot that the range does not have a page of: one that %s', (_, gpa, size, calls) => {
    vm.enableCap('MANUAL_DIRTY_LOG_PROTECT2', [DIRTY_LOG.MANUAL_PROTECT_ENABLE]);
    vm.memory.addRam(2 * UNIT, kvm.mapAnonymous(UNIT));
    vm.dirtyPages.start().collect();
    asked.length = 0;
    vm.dirtyPages.clear(gpa, size);
    expect(asked).toEqual(new Array(calls).fill('clearDirtyLog'));
  });

  it('says what was refused, with the range of the slot', async () => {
    await clearAfter(() => {});
    expect(inspect(vm.dirtyPages)).toMatch(/^DirtyPages \(log, manual protect\), \d+ pages collected in 2 memslots$/);
    const { clearDirtyLog } = kernel;
    kernel.clearDirtyLog = () => -ERRNO.EINVAL;
    expect(() => vm.dirtyPages.clear()).toThrow(
      expect.objectContaining({ code: 'EINVAL', syscall: 'ioctl(KVM_CLEAR_DIRTY_LOG)', slot: 0 }),
    );
    kernel.clearDirtyLog = clearDirtyLog;
  });

  it('clears everything where no range is given', async () => {
    expect(await clearAfter(() => vm.dirtyPages.clear())).toEqual([]);
  });

  it('is done by collect otherwise, and clear does nothing then', () => {
    vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
    vm.dirtyPages.start();
    asked.length = 0;
    vm.dirtyPages.clear(0, UNIT);
    expect(asked).toEqual([]);
  });
});

describe('the memory of bitmaps', () => {
  // A page of bits has 2^15 pages.
  const size = 2 ** 15 * PAGE;
  let mapped: number;

  beforeEach(() => {
    mapped = 0;
    const real = kernel.mmap.bind(kernel);
    kernel.mmap = (...args) => {
      mapped++;
      return real(...args);
    };
  });

  it('is a mapping from a page on, for as many as leave the process enough of them', () => {
    const ram = kvm.mapAnonymous(size);
    const regions = Array.from({ length: 1030 }, (_, i) => vm.memory.addRam(i * size, ram));
    vm.dirtyPages.start();
    mapped = 0;
    write(5);
    expect(vm.dirtyPages.collect().count).toBe(1030);
    expect(mapped).toBe(1024);
    expect(vm.dirtyPages.collect().count).toBe(0);
    expect(mapped).toBe(1024);
    // What is asked once has none.
    regions[3]!.remove();
    expect(mapped).toBe(1024);
  });

  it('is none where they are smaller, or only the ring is asked', () => {
    vm.memory.addRam(0, kvm.mapAnonymous(size - PAGE * 64));
    vm.dirtyPages.start();
    mapped = 0;
    write(7);
    expect(collected()).toEqual([7]);
    vm.dirtyPages.stop();
    const ringVm = kvm.createVm();
    ringVm.enableDirtyRing(65536);
    ringVm.createVcpu();
    ringVm.memory.addRam(0, kvm.mapAnonymous(size));
    ringVm.dirtyPages.start();
    mapped = 0;
    ringVm.memory.writeU8(9 * PAGE, 1);
    expect([...ringVm.dirtyPages.collect().pages()]).toEqual([9]);
    expect(mapped).toBe(0);
    ringVm.close();
  });
});

describe('a dirty ring', () => {
  it('is read before a slot goes, whose last pages are told; and says that it is one', async () => {
    vm.enableDirtyRing(65536);
    expect(inspect(vm.dirtyPages)).toBe('DirtyPages (stopped)');
    const region = vm.memory.addRam(4 * UNIT, kvm.mapAnonymous(UNIT));
    vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
    const vcpu = vm.createVcpu();
    vm.dirtyPages.start();
    loadStores(kvm, vm, vcpu, [4 * UNIT + 5 * PAGE, 4 * UNIT + 7 * PAGE]);
    await vcpu.run();
    const { resetDirtyRings } = kernel;
    kernel.resetDirtyRings = () => -ERRNO.EINVAL;
    const refused = expect.objectContaining({ code: 'EINVAL', syscall: 'ioctl(KVM_RESET_DIRTY_RINGS)' });
    expect(() => vm.dirtyPages.harvest()).toThrow(refused);
    kernel.resetDirtyRings = resetDirtyRings;
    // What was taken then is kept.
    expect(vm.dirtyPages.harvest()).toBe(0);
    region.remove();
    expect(vm.dirtyPages.collect().removed).toMatchObject([
      {
        slot: { baseGfn: 4 * FRAMES, npages: FRAMES },
        runs: [
          { gfn: 4 * FRAMES + 5, npages: 1 },
          { gfn: 4 * FRAMES + 7, npages: 1 },
        ],
      },
    ]);
    expect(inspect(vm.dirtyPages)).toMatch(/^DirtyPages \(ring of 65536 bytes\), \d+ pages? collected in 1 memslot$/);
  });
});

describe('lists of what was collected', () => {
  it('end where the array does, and go on from there over the seam of two slots', () => {
    vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
    vm.memory.addRam(UNIT, kvm.mapAnonymous(UNIT));
    const { dirtyPages } = vm;
    dirtyPages.start();
    write(1, FRAMES - 2, FRAMES - 1, FRAMES, FRAMES + 1, FRAMES + 5);
    dirtyPages.collect();
    expect(dirtyPages.runs()).toEqual([
      { gfn: 1, npages: 1 },
      { gfn: FRAMES - 2, npages: 4 },
      { gfn: FRAMES + 5, npages: 1 },
    ]);
    const runs = new Float64Array(4);
    expect(dirtyPages.runsInto(runs)).toBe(2);
    expect([...runs]).toEqual([1, 1, FRAMES - 2, 4]);
    expect(dirtyPages.runsInto(runs, FRAMES - 1)).toBe(2);
    expect([...runs]).toEqual([FRAMES - 1, 3, FRAMES + 5, 1]);
    expect(dirtyPages.runsInto(runs, FRAMES + 2)).toBe(1);
    expect([...runs.subarray(0, 2)]).toEqual([FRAMES + 5, 1]);
    expect(dirtyPages.runsInto(runs, 8 * FRAMES)).toBe(0);
    expect(dirtyPages.runsInto(new Float64Array(0))).toBe(0);
    const gfns = new Float64Array(3);
    expect(dirtyPages.pagesInto(gfns)).toBe(3);
    expect([...gfns]).toEqual([1, FRAMES - 2, FRAMES - 1]);
    expect(dirtyPages.pagesInto(gfns, FRAMES)).toBe(3);
    expect([...gfns]).toEqual([FRAMES, FRAMES + 1, FRAMES + 5]);
    expect(dirtyPages.pagesInto(gfns, FRAMES + 6)).toBe(0);
    const seen: number[] = [];
    dirtyPages.forEachPage((gfn) => void seen.push(gfn));
    expect(seen).toEqual([...dirtyPages.pages()]);
  });

  it('have no pages that were written where no slot is', () => {
    const space = new AddressSpace({ littleEndian: true, pageSize: PAGE });
    space.addRam(0, kvm.mapAnonymous(UNIT));
    vm.bind(space);
    vm.dirtyPages.start();
    vm.memory.markDirty(4 * UNIT, 4 * PAGE);
    vm.memory.markDirty(UNIT - PAGE, 2 * PAGE);
    expect(collected()).toEqual([FRAMES - 1]);
  });
});
