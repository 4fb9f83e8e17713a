import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { type AddressSpace, Kvm, type Revocation, type Vm } from '../../../lib/index.ts';
import { backends, UNIT } from '../handles/backends.ts';

const FAULT = expect.objectContaining({ code: 'EFAULT' });
const RELEASED = expect.objectContaining({ code: 'EBADF' });

describe.each(backends)('a binding on $name', ({ options }) => {
  let kvm: Kvm;
  let vm: Vm;
  let space: AddressSpace;

  beforeEach(() => {
    kvm = Kvm.open(options);
    vm = kvm.createVm();
    space = vm.memory;
  });
  afterEach(() => {
    vm.close();
    kvm.close();
  });

  const dirtyPages = () => [...vm.dirtyPages.collect().pages()];

  it('copies to and from the memory that the guest sees, across regions', () => {
    space.addRam(0, kvm.mapAnonymous(UNIT));
    space.addRam(UNIT, kvm.mapAnonymous(UNIT));
    using binding = space.bind({ name: 'disk' });
    const bytes = Uint8Array.from({ length: 100 }, (_, i) => i);
    binding.copyTo(UNIT - 50, bytes);
    expect([...space.readExact(UNIT - 50, 100)]).toEqual([...bytes]);
    space.writeU8(UNIT, 0xee);
    const back = new Uint8Array(100);
    binding.copyFrom(UNIT - 50, back);
    expect(back[50]).toBe(0xee);
    expect(() => binding.copyTo(2 * UNIT - 1, new Uint8Array(2))).toThrow(FAULT);
  });

  it('finds an address, and the descriptor and offset where that is a memfd', () => {
    const ram = kvm.mapMemfd(2 * UNIT);
    space.addRam(4 * UNIT, ram, { offset: UNIT });
    space.addRam(0, kvm.mapAnonymous(UNIT));
    using binding = space.bind();
    expect(binding.translate(4 * UNIT + 5)).toMatchObject({ fd: ram.fd, offset: UNIT + 5, available: UNIT - 5 });
    // That of memory which has none.
    expect(ram.fd).not.toBe(-1);
    expect(binding.translate(3)).toMatchObject({ fd: -1, offset: 3 });
    expect(binding.translate(2 * UNIT)).toBeUndefined();
  });

  it('makes what it writes dirty in every VM, and a view for writing at flush and release', () => {
    const { pageSize } = space;
    space.addRam(0, kvm.mapAnonymous(UNIT));
    using binding = space.bind();
    vm.dirtyPages.start();
    binding.writeU32(3 * pageSize, 1);
    expect(dirtyPages()).toEqual([3]);
    const vmap = binding.vmap(5 * pageSize, pageSize + 1, { write: true });
    vmap.bytes[0] = 1;
    expect(dirtyPages()).toEqual([]);
    vmap.flush();
    expect(dirtyPages()).toEqual([5, 6]);
    vmap.release();
    expect(dirtyPages()).toEqual([5, 6]);
    binding.vmap(0, 1).release();
    expect(dirtyPages()).toEqual([]);
    expect(space.readU8(5 * pageSize)).toBe(1);
  });

  it('revokes a view whose region moves, with the reason; what was written is dirty where the region is now', () => {
    const { pageSize } = space;
    const region = space.addRam(0, kvm.mapAnonymous(UNIT), { name: 'low' });
    space.addRam(2 * UNIT, kvm.mapAnonymous(UNIT));
    using binding = space.bind();
    vm.dirtyPages.start();
    const revocations: Revocation[] = [];
    const vmap = binding.vmap(pageSize, 8, { write: true, onRevoke: (revocation) => revocations.push(revocation) });
    const other = binding.vmap(2 * UNIT, 8);
    const { bytes } = vmap;
    bytes[0] = 0x77;
    region.move(4 * UNIT);
    expect(revocations).toEqual([{ reason: 'moved', generation: 3, region: String(region) }]);
    expect(vmap).toMatchObject({ active: false, pieces: [], revocation: revocations[0] });
    expect(bytes.length).toBe(0);
    expect(() => vmap.bytes).toThrow(
      expect.objectContaining({ code: 'EBADF', message: expect.stringContaining('moved') }),
    );
    expect(other.bytes.length).toBe(8);
    expect(dirtyPages()).toEqual([(4 * UNIT) / pageSize + 1]);
    expect(binding.readU8(4 * UNIT + pageSize)).toBe(0x77);
    expect(() => binding.readU8(pageSize)).toThrow(FAULT);
    expect(binding.vmaps).toEqual([other]);
  });

  it('revokes every view, also when the callback of one of them throws', () => {
    const region = space.addRam(0, kvm.mapAnonymous(UNIT));
    const bindings = [space.bind(), space.bind()];
    const tasks: (() => void)[] = [];
    const generations: number[] = [];
    const onRevoke = () => {
      throw new RangeError('a fault of the user');
    };
    const vmaps = bindings.map((binding) => binding.vmap(0, 8, { onRevoke }));
    using _told = space.onChange(({ generation }) => generations.push(generation));
    const later = vi.spyOn(globalThis, 'queueMicrotask').mockImplementation((task) => void tasks.push(task));
    region.remove();
    later.mockRestore();
    expect(vmaps.map(({ active }) => active)).toEqual([false, false]);
    expect(generations).toEqual([space.generation]);
    expect(tasks).toHaveLength(2);
    for (const task of tasks) expect(task).toThrow('a fault of the user');
    for (const binding of bindings) binding.release();
  });

  it('refuses callbacks that are no functions', () => {
    space.addRam(0, kvm.mapAnonymous(UNIT));
    using binding = space.bind();
    const invalid = expect.objectContaining({ code: 'ERR_INVALID_ARG_TYPE' });
    expect(() => binding.vmap(0, 8, { onRevoke: 3 as unknown as () => void })).toThrow(invalid);
    expect(() => space.onChange(null as unknown as () => void)).toThrow(invalid);
    expect(binding.vmaps).toEqual([]);
  });

  it('tells of a region that was written through a view and removed', () => {
    const { pageSize } = space;
    const region = space.addRam(0, kvm.mapAnonymous(UNIT));
    using binding = space.bind();
    vm.dirtyPages.start();
    const vmap = binding.vmap(2 * pageSize, 1, { write: true });
    region.remove();
    expect(vmap.revocation?.reason).toBe('removed');
    vm.dirtyPages.collect();
    expect(vm.dirtyPages.removed.map(({ runs }) => runs)).toEqual([[{ gfn: 2, npages: 1 }]]);
  });

  it('sees a view in several pieces, one a region', () => {
    space.addRam(0, kvm.mapAnonymous(UNIT));
    space.addRam(UNIT, kvm.mapAnonymous(UNIT));
    using binding = space.bind();
    using vmap = binding.vmap(UNIT - 4, 8);
    expect(vmap.pieces.map(({ length }) => length)).toEqual([4, 4]);
    expect(() => vmap.bytes).toThrow(expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' }));
    space.writeU32(UNIT, 0x01010101);
    expect([...vmap.pieces[1]!]).toEqual([1, 1, 1, 1]);
    expect(() => binding.vmap(2 * UNIT - 4, 8)).toThrow(FAULT);
    expect(binding.vmaps).toEqual([vmap]);
  });

  it('keeps the memory, also after the VM and the space were closed', () => {
    const ram = kvm.mapAnonymous(UNIT);
    space.addRam(0, ram);
    ram.close();
    const binding = space.bind();
    const view = binding.vmap(8, 4);
    binding.writeU32(8, 7);
    vm.close();
    expect(binding.readU32(8)).toBe(7);
    expect(view.bytes.length).toBe(4);
    expect(ram.pins).toBe(2);
    binding.release();
    expect(view.revocation?.reason).toBe('released');
    expect(ram.pins).toBe(0);
    expect(() => binding.readU32(8)).toThrow(RELEASED);
    expect(() => binding.vmap(8, 4)).toThrow(RELEASED);
    expect(() => view.flush()).toThrow(RELEASED);
    binding.release();
    expect(space.bindings).toEqual([]);
    expect(() => space.bind()).toThrow(RELEASED);
  });

  it('views of memory that is protected or unmapped are revoked, if nobody could be writing there', () => {
    const ram = kvm.mapAnonymous(UNIT);
    space.addRam(0, ram);
    using binding = space.bind();
    const vmap = binding.vmap(0, 16);
    ram.unmapPart(0, space.pageSize);
    expect(vmap.revocation?.reason).toBe('inaccessible');
    expect(() => binding.vmap(0, 16)).toThrow(expect.objectContaining({ code: 'EACCES' }));
  });
});

describe.each(backends)('changes of an address space on $name', ({ options }) => {
  let kvm: Kvm;
  beforeEach(() => {
    kvm = Kvm.open(options);
  });
  afterEach(() => kvm.close());

  it('are told once and in order, also those that are made while one is told', () => {
    const space = kvm.createAddressSpace();
    const heard: string[][] = [[], []];
    space.onChange(({ kind, generation }) => {
      heard[0]!.push(`${generation} ${kind}`);
      if (generation === 1) space.addRam(4 * UNIT, kvm.mapAnonymous(UNIT));
    });
    space.onChange(({ kind, generation }) => heard[1]!.push(`${generation} ${kind}`));
    const region = space.addRam(0, kvm.mapAnonymous(UNIT));
    region.move(UNIT);
    region.remove();
    expect(heard[0]).toEqual(['1 add', '2 add', '3 move', '4 remove']);
    expect(heard[1]).toEqual(heard[0]);
    expect(space.generation).toBe(4);
  });

  it('that one VM refuses are made by none, and nobody hears of them', () => {
    const space = kvm.createAddressSpace();
    const [first, second] = [kvm.createVm(), kvm.createVm()];
    first.bind(space);
    second.bind(space);
    const region = space.addRam(0, kvm.mapAnonymous(UNIT));
    using binding = space.bind();
    const vmap = binding.vmap(0, 8);
    const heard: string[] = [];
    space.onChange(({ kind }) => heard.push(kind));
    // Of the second VM's own, where the region is to go.
    const hidden = kvm.mapAnonymous(UNIT);
    second.setUserMemoryRegion({ slot: 9, guestPhysAddr: 8 * UNIT, memorySize: UNIT, userspaceAddr: hidden.hva });
    expect(() => region.move(8 * UNIT)).toThrow(expect.objectContaining({ code: 'EEXIST' }));
    expect(() => space.addRam(8 * UNIT, kvm.mapAnonymous(UNIT))).toThrow(expect.objectContaining({ code: 'EEXIST' }));
    expect(heard).toEqual([]);
    expect(space.generation).toBe(1);
    expect(vmap.active).toBe(true);
    for (const vm of [first, second])
      expect([...vm.memslots].filter(({ id }) => id !== 9)).toMatchObject([{ baseGfn: 0 }]);
    first.close();
    second.close();
  });
});
