import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { DIRTY_LOG, Kvm, type Vcpu, type Vm } from '../../../lib/index.ts';
import { EmulatedKernel, ERRNO } from '../../../lib/raw.ts';
import { backends, UNIT } from '../handles/backends.ts';
import { CODE, loadStores, NEEDS_PROCESSOR, runsGuests, runsOnProcessor } from '../handles/guests.ts';

const NEEDS_RING = 'this kernel has no dirty rings, which came with 5.11';

describe.each(backends)('dirty pages on $name', (backend) => {
  let kvm: Kvm;
  let vm: Vm;
  const gfns = (vm: Vm, options?: { clear: boolean }): number[] => [...vm.dirtyPages.collect(options).pages()];

  beforeEach(() => {
    kvm = Kvm.open(backend.options);
    vm = kvm.createVm();
  });
  afterEach(() => {
    vm.close();
    kvm.close();
  });

  it('reports what this process wrote by any means, once', () => {
    const page = kvm.pageSize;
    vm.memory.addRam(0, kvm.mapAnonymous(4 * UNIT));
    vm.memory.writeU8(page, 1);
    vm.dirtyPages.start();
    expect(gfns(vm)).toEqual([]);
    vm.memory.writeU32(3 * page - 2, 1);
    vm.memory.writeExact(5 * page + 1, new Uint8Array(2 * page));
    vm.memory.fill(9 * page, 1, 0xff);
    vm.memory.copy(10 * page, 0, 8);
    vm.memory.scatter([11 * page], 4, new Uint8Array(4));
    vm.memory.atomicStore(12 * page, 4, 1);
    vm.memory.compareExchange(13 * page, 4, 0, 1);
    vm.memory.compareExchange(14 * page, 4, 1, 2);
    vm.memory.slice(15 * page, 8).fill(1);
    vm.memory.markDirty(15 * page, 8);
    expect(gfns(vm)).toEqual([2, 3, 5, 6, 7, 9, 10, 11, 12, 13, 15]);
    expect(vm.dirtyPages.count).toBe(11);
    expect(vm.dirtyPages.runs()).toEqual([
      { gfn: 2, npages: 2 },
      { gfn: 5, npages: 3 },
      { gfn: 9, npages: 5 },
      { gfn: 15, npages: 1 },
    ]);
    expect(gfns(vm)).toEqual([]);
  });

  it('reports no page too many when a write ends where its page does', () => {
    const page = kvm.pageSize;
    const ram = kvm.mapAnonymous(4 * UNIT);
    vm.memory.addRam(0, ram);
    vm.dirtyPages.start();
    const end = 3 * page;
    const writes: Record<string, () => void> = {
      writeU8: () => vm.memory.writeU8(end - 1, 1),
      writeU16: () => vm.memory.writeU16(end - 2, 1),
      writeU32: () => vm.memory.writeU32(end - 4, 1),
      writeU64: () => vm.memory.writeU64(end - 8, 1),
      'writeU64 at a bigint': () => vm.memory.writeU64(BigInt(end - 8), 1),
      writeExact: () => vm.memory.writeExact(end - page, new Uint8Array(page).fill(1)),
      fill: () => vm.memory.fill(end - page, page, 2),
      copy: () => vm.memory.copy(end - 16, 0, 16),
      scatter: () => vm.memory.scatter([end - 4], 4, new Uint8Array(4)),
      atomicStore: () => vm.memory.atomicStore(end - 8, 8, 3n),
      markDirty: () => vm.memory.markDirty(end - page, page),
      'the mapping': () => ram.write(end - 5, new Uint8Array(5)),
    };
    for (const [how, write] of Object.entries(writes)) {
      write();
      expect([how, gfns(vm)]).toEqual([how, [2]]);
    }
    vm.memory.writeU16(end - 1, 1);
    expect(gfns(vm)).toEqual([2, 3]);
  });

  it('tells runs that go on across the seam between two memslots as one', () => {
    const page = kvm.pageSize;
    const pages = UNIT / page;
    for (const at of [0, 1, 3]) vm.memory.addRam(at * UNIT, kvm.mapAnonymous(UNIT));
    vm.dirtyPages.start();
    vm.memory.fill(UNIT - 2 * page, 3 * page, 1);
    vm.memory.writeU8(2 * UNIT - 1, 1);
    vm.memory.writeU8(3 * UNIT, 1);
    expect(vm.dirtyPages.collect().runs()).toEqual([
      { gfn: pages - 2, npages: 3 },
      { gfn: 2 * pages - 1, npages: 1 },
      { gfn: 3 * pages, npages: 1 },
    ]);
    expect(vm.dirtyPages.count).toBe(5);
  });

  it('tells the runs in pieces, from any frame on, and across seams', () => {
    const page = kvm.pageSize;
    const frames = UNIT / page;
    for (const gpa of [0, UNIT, 2 * UNIT, 4 * UNIT]) vm.memory.addRam(gpa, kvm.mapAnonymous(UNIT));
    const { dirtyPages } = vm;
    dirtyPages.start();
    vm.memory.write(page, new Uint8Array(2 * page));
    // All of a memslot, and a page on both sides.
    vm.memory.write(UNIT - page, new Uint8Array(UNIT + 2 * page));
    vm.memory.writeU8(5 * UNIT - 1, 1);
    dirtyPages.collect();
    const runs = [
      [1, 2],
      [frames - 1, frames + 2],
      [5 * frames - 1, 1],
    ];
    for (const length of [2, 4, 64]) {
      const into = new Float64Array(length);
      const told: number[][] = [];
      let from = 0;
      for (let count = dirtyPages.runsInto(into); count > 0; count = dirtyPages.runsInto(into, from)) {
        for (let i = 0; i < count; i++) told.push([...into.subarray(2 * i, 2 * i + 2)]);
        from = told.at(-1)![0]! + told.at(-1)![1]!;
      }
      expect(told).toEqual(runs);
    }
    const one = new Float64Array(2);
    expect(dirtyPages.runsInto(one, frames + 1)).toBe(1);
    expect([...one]).toEqual([frames + 1, frames]);
    expect(dirtyPages.runsInto(new Float64Array(0))).toBe(0);
    const outOfRange = (message: string) => expect.objectContaining({ code: 'ERR_OUT_OF_RANGE', message });
    const odd = 'The value of "into.length" is out of range. It must be even: two numbers for each run. Received 3';
    expect(() => dirtyPages.runsInto(new Float64Array(3))).toThrow(outOfRange(odd));
    const invalid = expect.objectContaining({ code: 'ERR_INVALID_ARG_TYPE' });
    expect(() => dirtyPages.runsInto([] as unknown as Float64Array)).toThrow(invalid);
  });

  it('tells the frames in pieces, from any of them on, over all memslots', () => {
    const page = kvm.pageSize;
    const frames = UNIT / page;
    vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
    vm.memory.addRam(2 * UNIT, kvm.mapAnonymous(UNIT));
    vm.dirtyPages.start();
    const written = [1, 2, frames - 1, 2 * frames, 2 * frames + 3];
    for (const gfn of written) vm.memory.writeU8(gfn * page, 1);
    vm.dirtyPages.collect();
    expect([...vm.dirtyPages.pages()]).toEqual(written);
    const into = new Float64Array(2);
    const told: number[] = [];
    for (let count = vm.dirtyPages.pagesInto(into); count > 0; ) {
      told.push(...into.subarray(0, count));
      count = vm.dirtyPages.pagesInto(into, into[count - 1]! + 1);
    }
    expect(told).toEqual(written);
    const invalid = expect.objectContaining({ code: 'ERR_INVALID_ARG_TYPE' });
    expect(() => vm.dirtyPages.pagesInto([] as unknown as Float64Array)).toThrow(invalid);
    const gone = new Float64Array(2);
    structuredClone(gone, { transfer: [gone.buffer] });
    // Not: there are no more.
    expect(() => vm.dirtyPages.pagesInto(gone)).toThrow(invalid);
    expect(() => vm.dirtyPages.runsInto(gone)).toThrow(invalid);
    const outOfRange = expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' });
    expect(() => vm.dirtyPages.pagesInto(into, -1)).toThrow(outOfRange);
    expect(() => vm.dirtyPages.pagesInto(into, 0.5)).toThrow(outOfRange);
  });

  it('follows regions that are added, moved and removed meanwhile', () => {
    const page = kvm.pageSize;
    const ram = kvm.mapAnonymous(UNIT);
    vm.dirtyPages.start();
    const region = vm.memory.addRam(UNIT, ram);
    expect(vm.memslots.get(0)?.flags).toBe(1);
    vm.memory.writeU8(UNIT + page, 1);
    expect(gfns(vm)).toEqual([UNIT / page + 1]);
    region.move(3 * UNIT);
    vm.memory.writeU8(3 * UNIT, 1);
    expect(gfns(vm)).toEqual([(3 * UNIT) / page]);
    region.remove();
    expect(gfns(vm)).toEqual([]);
    vm.dirtyPages.stop();
    vm.memory.addRam(UNIT, ram);
    expect(vm.memslots.get(0)?.flags).toBe(0);
  });

  it('says so when it is not started, or the VM is closed', () => {
    vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
    expect(() => vm.dirtyPages.collect()).toThrow(expect.objectContaining({ code: 'ENOENT' }));
    const { dirtyPages } = vm;
    dirtyPages.start();
    vm.close();
    expect(() => dirtyPages.collect()).toThrow(expect.objectContaining({ code: 'EBADF' }));
    dirtyPages.stop();
  });

  it('is told apart between VMs that share an address space', () => {
    const space = kvm.createAddressSpace();
    const other = kvm.createVm();
    space.addRam(0, kvm.mapAnonymous(UNIT));
    vm.bind(space);
    other.bind(space);
    vm.dirtyPages.start();
    space.writeU8(0, 1);
    other.dirtyPages.start();
    space.writeU8(kvm.pageSize, 1);
    expect(gfns(vm)).toEqual([0, 1]);
    expect(gfns(other)).toEqual([1]);
    other.close();
  });

  if (!runsGuests(backend)) return;

  describe('with a guest that stores', () => {
    let vcpu: Vcpu;
    const page = (): number => kvm.pageSize;

    const guestStores = async (pages: readonly number[]): Promise<void> => {
      loadStores(
        kvm,
        vm,
        vcpu,
        pages.map((gfn) => gfn * page() + 8),
      );
      await vcpu.run();
    };

    /** Without the page of the guest's code: where KVM maps it writable at once, fetching makes it dirty. */
    const stored = (options?: { clear: boolean }): number[] => gfns(vm, options).filter((gfn) => gfn !== CODE / page());

    it('merges its stores with ours', async () => {
      vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
      vcpu = vm.createVcpu();
      loadStores(kvm, vm, vcpu, [3 * page(), 5 * page()]);
      vm.dirtyPages.start();
      vm.memory.writeU8(4 * page(), 1);
      await vcpu.run();
      expect(stored()).toEqual([3, 4, 5]);
      expect(vm.memory.readU8(3 * page())).not.toBe(0);
      expect(gfns(vm)).toEqual([]);
    });

    it('leaves clearing to the caller under manual protection', async () => {
      vm.enableCap('MANUAL_DIRTY_LOG_PROTECT2', [DIRTY_LOG.MANUAL_PROTECT_ENABLE]);
      vm.memory.addRam(0, kvm.mapAnonymous(2 * UNIT));
      vcpu = vm.createVcpu();
      vm.dirtyPages.start();
      await guestStores([3, 70, 200]);
      expect(stored({ clear: false })).toEqual([3, 70, 200]);
      expect(stored({ clear: false })).toEqual([3, 70, 200]);
      vm.dirtyPages.clear(64 * page(), 64 * page());
      expect(stored({ clear: false })).toEqual([3, 200]);
      expect(stored()).toEqual([3, 200]);
      expect(stored()).toEqual([]);
    });

    it.for([
      ['comes out of a ring as out of a bitmap', 0x1_0000],
      ['does not stop the guest when the ring is full', 4096],
    ] as const)('%s', async ([, bytes], test) => {
      test.skip(vm.checkExtension('DIRTY_LOG_RING') === 0, NEEDS_RING);
      test.skip(bytes === 4096 && !runsOnProcessor(kvm), NEEDS_PROCESSOR);
      vm.enableDirtyRing(bytes);
      vm.memory.addRam(0, kvm.mapAnonymous(4 * UNIT));
      vcpu = vm.createVcpu();
      vm.dirtyPages.start();
      const pages = Array.from({ length: 600 }, (_, i) => 16 + i);
      await guestStores(pages);
      vm.memory.writeU8(1000 * page(), 1);
      expect(gfns(vm).filter((gfn) => gfn >= 16)).toEqual([...pages, 1000]);
      expect(gfns(vm)).toEqual([]);
      await guestStores([20]);
      expect(gfns(vm).filter((gfn) => gfn >= 16)).toEqual([20]);
    });

    it('tells the user that the ring is full when nobody collects', async (test) => {
      test.skip(vm.checkExtension('DIRTY_LOG_RING') === 0, NEEDS_RING);
      test.skip(!runsOnProcessor(kvm), NEEDS_PROCESSOR);
      vm.enableDirtyRing(4096);
      const ram = kvm.mapAnonymous(4 * UNIT);
      vm.setUserMemoryRegion({ slot: 0, flags: 1, guestPhysAddr: 0, memorySize: 4 * UNIT, userspaceAddr: ram.hva });
      vcpu = vm.createVcpu();
      vm.memory.addMmio(0xd000_0000, 8, {});
      const pages = Array.from({ length: 600 }, (_, i) => (16 + i) * page());
      loadStores(kvm, vm, vcpu, pages, ram);
      expect((await vcpu.run()).reason).toBe('DIRTY_RING_FULL');
    });
  });
});

describe('enabling a dirty ring', () => {
  it.each([
    [3000, 'EINVAL', 'not a power of two'],
    [1024, 'EINVAL', 'smaller than a page'],
    [0x20_0000, 'E2BIG', 'above the largest'],
  ])('of %i bytes is refused with %s and the reason', (bytes, code, why) => {
    using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
    using vm = kvm.createVm();
    expect(() => vm.enableDirtyRing(bytes)).toThrow(
      expect.objectContaining({ code, explanation: expect.stringContaining(why) }),
    );
  });

  it('is refused twice, and after the first vCPU', () => {
    using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
    using vm = kvm.createVm();
    vm.createVcpu();
    expect(() => vm.enableDirtyRing(4096)).toThrow(/enable the ring before the first/);
    using other = kvm.createVm();
    other.enableDirtyRing(4096);
    expect(() => other.enableDirtyRing(4096)).toThrow(/enabled before/);
  });
});

describe('a log that the kernel does not give', () => {
  it('loses nothing that this process wrote', () => {
    const kernel = new EmulatedKernel({ arch: 'x86_64' });
    const given = kernel.getDirtyLog.bind(kernel);
    using kvm = Kvm.open({ calls: kernel });
    using vm = kvm.createVm();
    vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
    vm.dirtyPages.start();
    vm.memory.writeU8(3 * kvm.pageSize, 1);
    kernel.getDirtyLog = () => -ERRNO.ENOMEM;
    expect(() => vm.dirtyPages.collect()).toThrow(expect.objectContaining({ code: 'ENOMEM' }));
    kernel.getDirtyLog = given;
    expect([...vm.dirtyPages.collect().pages()]).toEqual([3]);
  });
});
