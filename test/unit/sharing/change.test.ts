import { describe, expect, it, type TestContext } from 'vitest';
import { AddressSpace, Kvm, Mapping, type MemoryRegion, type SpaceChange } from '../../../lib/index.ts';
import { EmulatedKernel, ERRNO } from '../../../lib/raw.ts';
import { UNIT } from '../handles/backends.ts';
import { hostCalls } from './host.ts';

const PAGE = 4096;

/** Two emulated VMs on one space; calls of the second fail as long as it says so. */
function twoVms() {
  let left = Number.POSITIVE_INFINITY;
  const kernel = new EmulatedKernel({ arch: 'x86_64' });
  const set = kernel.setUserMemoryRegion.bind(kernel);
  kernel.setUserMemoryRegion = (fd, ...region) =>
    fd === second.fd && left-- === 0 ? -ERRNO.ENOMEM : set(fd, ...region);
  const kvm = Kvm.open({ calls: kernel });
  const space = new AddressSpace({ littleEndian: true, pageSize: PAGE });
  const first = kvm.createVm();
  const second = kvm.createVm();
  first.bind(space);
  second.bind(space);
  const changes: [SpaceChange['kind'], string, number][] = [];
  space.onChange(({ kind, region, generation }) => changes.push([kind, String(region), generation]));
  const slots = () =>
    [first, second].map((vm) =>
      [...vm.memslots]
        .map(({ baseGfn, npages, flags }) => [baseGfn, npages, flags])
        .sort((one, other) => one[0]! - other[0]!),
    );
  return {
    kvm,
    space,
    first,
    second,
    changes,
    slots,
    failAfter: (count: number) => {
      left = count;
    },
    regions: () => space.memoryRegions.map(String),
  };
}

describe('several changes that are made as one', () => {
  it('are told in their order with one generation when all are made', () => {
    const { kvm, space, changes, slots, regions } = twoVms();
    const a = space.addRam(0, kvm.mapAnonymous(UNIT), { name: 'a' });
    const b = space.addRam(UNIT, kvm.mapAnonymous(UNIT), { name: 'b' });
    changes.length = 0;
    const c = space.change(() => {
      a.move(4 * UNIT);
      expect(changes).toEqual([]);
      b.move(0);
      expect(space.find(0)).toBe(b);
      a.setReadOnly(true);
      return space.addRam(UNIT, kvm.mapAnonymous(UNIT), { name: 'c' });
    });
    expect(c.start).toBe(UNIT);
    expect(changes.map(([kind, , generation]) => [kind, generation])).toEqual([
      ['move', 3],
      ['move', 3],
      ['readOnly', 3],
      ['add', 3],
    ]);
    expect(space.generation).toBe(3);
    expect(regions()).toEqual([b, c, a].map(String));
    expect(slots()[0]).toEqual(slots()[1]);
    expect(slots()[0]).toEqual([
      [0, UNIT / PAGE, 0],
      [UNIT / PAGE, UNIT / PAGE, 0],
      [(4 * UNIT) / PAGE, UNIT / PAGE, 2],
    ]);
  });

  it('are all taken back in every VM when one is refused, wherever, and nobody hears of any', () => {
    for (let calls = 0; ; calls++) {
      const { kvm, space, changes, slots, regions, failAfter } = twoVms();
      const [mapping, fresh] = [kvm.mapAnonymous(UNIT), kvm.mapAnonymous(UNIT)];
      const a = space.addRam(0, mapping, { name: 'a' });
      const b = space.addRam(UNIT, kvm.mapAnonymous(UNIT), { name: 'b' });
      const io = space.addMmio(0xd000_0000, 16, {}, { name: 'io' });
      space.writeU32(8, 0x1234);
      changes.length = 0;
      const before = [slots(), regions(), [...space.regions()].map(String), mapping.pins];
      failAfter(calls);
      let failure: unknown;
      try {
        space.change(() => {
          a.remove();
          io.move(0xe000_0000);
          b.move(0);
          b.setReadOnly(true);
          space.addRam(UNIT, fresh);
          space.addMmio(0xf000_0000, 16, {});
          failAfter(Number.POSITIVE_INFINITY);
        });
      } catch (error) {
        failure = error;
      }
      if (failure === undefined) {
        // remove 1, move 1, read-only 2, add 1
        expect(calls).toBe(5);
        return;
      }
      failAfter(Number.POSITIVE_INFINITY);
      expect(failure, `call ${calls}`).toMatchObject({ code: 'ENOMEM' });
      expect([slots(), regions(), [...space.regions()].map(String), mapping.pins]).toEqual(before);
      expect([changes, space.generation, fresh.pins]).toEqual([[], 2, 0]);
      expect(space.readU32(8)).toBe(0x1234);
      expect(a.start).toBe(0);
      a.remove();
      expect(changes).toEqual([['remove', expect.stringContaining("'a'"), 3]]);
    }
  });

  it('end with the function: a promise is refused, and what the function throws takes back what it did', async () => {
    const { kvm, space, changes, regions } = twoVms();
    const add = (gpa: number) => space.addRam(gpa, kvm.mapAnonymous(UNIT));
    expect(() => space.change(async () => add(0))).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_RETURN_VALUE' }),
    );
    expect(() => space.change('add' as never)).toThrow(expect.objectContaining({ code: 'ERR_INVALID_ARG_TYPE' }));
    const oops = new Error('oops');
    expect(() =>
      space.change(() => {
        add(0);
        throw oops;
      }),
    ).toThrow(oops);
    expect([regions(), changes, space.generation]).toEqual([[], [], 0]);
    space.change(() => {});
    expect(space.generation).toBe(0);
    space.close();
    expect(() => space.change(() => {})).toThrow(expect.objectContaining({ code: 'EBADF' }));
  });

  it('let go of everything, and tell of all that failed, where they cannot be taken back', () => {
    using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
    const vm = kvm.createVm();
    const [ram, other, kept, late] = [0, 1, 2, 3].map(() => kvm.mapAnonymous(UNIT)) as [
      Mapping,
      Mapping,
      Mapping,
      Mapping,
    ];
    const region = vm.memory.addRam(0, ram);
    vm.memory.addRam(8 * UNIT, kept);
    const mine = new Error('mine');
    let failure: unknown;
    try {
      vm.memory.change(() => {
        vm.memory.addRam(16 * UNIT, late);
        region.remove();
        // In the way of what is taken back.
        vm.setUserMemoryRegion({ slot: 500, guestPhysAddr: 0, memorySize: UNIT, userspaceAddr: other.hva });
        throw mine;
      });
    } catch (error) {
      failure = error;
    }
    expect(failure).toBeInstanceOf(AggregateError);
    expect((failure as AggregateError).errors).toEqual([mine, expect.objectContaining({ code: 'EEXIST' })]);
    // What could be taken back is.
    expect(vm.memory.memoryRegions.map(({ start }) => start)).toEqual([8 * UNIT]);
    vm.close();
    for (const mapping of [ram, other, kept, late]) mapping.close();
    expect([ram, other, kept, late].map(({ pins }) => pins)).toEqual([0, 0, 0, 0]);
  });

  it('may have others within, which are taken back by themselves', () => {
    const { kvm, space, changes } = twoVms();
    const add = (gpa: number) => space.addRam(gpa, kvm.mapAnonymous(UNIT));
    space.change(() => {
      add(0);
      expect(() =>
        space.change(() => {
          add(UNIT);
          add(0);
        }),
      ).toThrow(expect.objectContaining({ code: 'EEXIST' }));
      space.change(() => add(2 * UNIT));
    });
    expect(changes.map(([kind, , generation]) => [kind, generation])).toEqual([
      ['add', 1],
      ['add', 1],
    ]);
    expect(space.memoryRegions.map(({ start }) => start)).toEqual([0, 2 * UNIT]);
    expect(() =>
      space.change(() => {
        space.change(() => add(UNIT));
        throw new Error('oops');
      }),
    ).toThrow('oops');
    expect(space.memoryRegions.map(({ start }) => start)).toEqual([0, 2 * UNIT]);
  });

  it('may close the space in the middle: it ends with them', () => {
    const { kvm } = twoVms();
    const space = new AddressSpace({ littleEndian: true, pageSize: PAGE });
    const ram = kvm.mapAnonymous(UNIT);
    space.change(() => {
      space.addRam(0, ram);
      space.close();
      expect(space.memoryRegions).toHaveLength(1);
    });
    expect([space.memoryRegions, ram.pins]).toEqual([[], 0]);
  });
});

describe('consumers of a shared space', () => {
  const memfds = (test: TestContext, count: number) => {
    const calls = hostCalls(test);
    return Array.from({ length: count }, () => Mapping.memfd(calls, UNIT));
  };

  it('see several changes at once, never what is between, and views are revoked once', async (test) => {
    const calls = hostCalls(test);
    const space = new AddressSpace({ littleEndian: true, pageSize: PAGE });
    const [a, b] = memfds(test, 2).map((ram, i) => space.addRam(i * UNIT, ram)) as [MemoryRegion, MemoryRegion];
    space.writeU32(0, 0xaaaa);
    space.writeU32(UNIT, 0xbbbb);
    space.share();
    const heard: number[] = [];
    using attached = await AddressSpace.attach(calls, space.token, {
      onChange: (generation) => heard.push(generation),
    });
    heard.length = 0;
    using own = space.bind();
    const views = [attached, own].map((binding) => binding.vmap(0, 16, { write: true }));
    space.change(() => {
      a.move(8 * UNIT);
      expect([attached.readU32(0), attached.readU32(UNIT), attached.generation]).toEqual([0xaaaa, 0xbbbb, 2]);
      b.move(0);
      a.move(UNIT);
      expect([attached.readU32(0), attached.readU32(UNIT), attached.generation]).toEqual([0xaaaa, 0xbbbb, 2]);
      expect([own.readU32(0), own.readU32(UNIT)]).toEqual([0xbbbb, 0xaaaa]);
    });
    expect([attached.readU32(0), attached.readU32(UNIT), attached.generation]).toEqual([0xbbbb, 0xaaaa, 3]);
    expect(heard).toEqual([3]);
    expect(views.map(({ revocation }) => revocation?.reason)).toEqual(['moved', 'moved']);
    space.close();
  });

  it('lose no dirty page of a region whose removal is taken back', (test) => {
    const space = new AddressSpace({ littleEndian: true, pageSize: PAGE });
    using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
    const vm = kvm.createVm();
    vm.bind(space);
    const [region] = memfds(test, 1).map((ram) => space.addRam(0, ram)) as [MemoryRegion];
    vm.dirtyPages.start();
    space.writeU32(3 * PAGE, 1);
    expect(() =>
      space.change(() => {
        region.remove();
        throw new Error('oops');
      }),
    ).toThrow('oops');
    expect([...vm.dirtyPages.collect().pages()]).toEqual([3]);
    expect(vm.dirtyPages.removed).toEqual([]);
    space.close();
  });

  it('keep views that a change would have revoked which is taken back, and what they write is dirty', async (test) => {
    const calls = hostCalls(test);
    using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
    const vm = kvm.createVm();
    const space = new AddressSpace({ littleEndian: true, pageSize: PAGE });
    vm.bind(space);
    const [a] = memfds(test, 1).map((ram) => space.addRam(0, ram)) as [MemoryRegion];
    space.share();
    using attached = await AddressSpace.attach(calls, space.token);
    using own = space.bind();
    vm.dirtyPages.start();
    const view = own.vmap(2 * PAGE, 16, { write: true });
    expect(() =>
      space.change(() => {
        a.move(8 * UNIT);
        attached.writeU32(3 * PAGE, 3);
        throw new Error('oops');
      }),
    ).toThrow('oops');
    expect(view.active).toBe(true);
    view.bytes.fill(1);
    view.release();
    expect([...vm.dirtyPages.collect().pages()]).toEqual([2, 3]);
    space.change(() => {
      const other = own.vmap(4 * PAGE, 16, { write: true });
      a.move(8 * UNIT);
      other.bytes.fill(7);
      attached.writeU32(5 * PAGE, 5);
      a.move(4 * UNIT);
    });
    const first = (4 * UNIT) / PAGE;
    expect([...vm.dirtyPages.collect().pages()]).toEqual([first + 4, first + 5]);
    space.close();
  });
});
