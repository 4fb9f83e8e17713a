import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Kvm, type Mapping, MEM, type Vm } from '../../../lib/index.ts';
import { EmulatedKernel, type KvmCalls } from '../../../lib/raw.ts';
import { backends, UNIT } from '../handles/backends.ts';

describe.each(backends)('memslots on $name', ({ options }) => {
  let kvm: Kvm;
  let vm: Vm;
  let trace: string[];

  const region = (line: string): boolean => line.startsWith('setUserMemoryRegion');

  beforeEach(() => {
    trace = [];
    kvm = Kvm.open({ ...options, trace: (line) => trace.push(line) });
    vm = kvm.createVm();
  });
  afterEach(() => {
    vm.close();
    kvm.close();
  });

  it('gives ids out again before it takes new ones', () => {
    const ram = kvm.mapAnonymous(UNIT);
    const regions = [0, 1, 2].map((i) => vm.memory.addRam(i * UNIT, ram));
    expect([...vm.memslots].map((slot) => slot.id)).toEqual([0, 1, 2]);
    regions[1]!.remove();
    vm.memory.addRam(7 * UNIT, ram);
    vm.memory.addRam(8 * UNIT, ram);
    expect([...vm.memslots].map((slot) => slot.id).sort()).toEqual([0, 1, 2, 3]);
  });

  it('gives all of them out again, some of which may be taken by hand', () => {
    const ram = kvm.mapAnonymous(UNIT);
    const add = (count: number) => Array.from({ length: count }, (_, i) => vm.memory.addRam(i * UNIT, ram));
    for (const region of add(4)) region.remove();
    const byHand = { slot: 3, guestPhysAddr: 9 * UNIT, memorySize: UNIT, userspaceAddr: ram.hva };
    vm.setUserMemoryRegion(byHand);
    const regions = add(3);
    expect([...vm.memslots].map((slot) => slot.id).sort()).toEqual([0, 1, 2, 3]);
    vm.setUserMemoryRegion({ ...byHand, memorySize: 0 });
    for (const region of regions) region.remove();
    add(4);
    expect([...vm.memslots].map((slot) => slot.id).sort()).toEqual([0, 1, 2, 3]);
  });

  it('leaves ids alone that were taken by hand', () => {
    const ram = kvm.mapAnonymous(UNIT);
    vm.setUserMemoryRegion({ slot: 0, guestPhysAddr: 9 * UNIT, memorySize: UNIT, userspaceAddr: ram.hva });
    vm.memory.addRam(0, ram);
    expect(vm.memslots.get(0)?.baseGfn).toBe((9 * UNIT) / kvm.pageSize);
    expect(vm.memslots.get(1)?.baseGfn).toBe(0);
    vm.setUserMemoryRegion({ slot: 0, guestPhysAddr: 0, memorySize: 0, userspaceAddr: 0 });
    expect(vm.memslots.get(0)).toBeUndefined();
  });

  it('lie over no memory that is not inside one mapping, and there is no way around that', () => {
    const ram = kvm.mapAnonymous(2 * UNIT);
    const over = (offset: number): void =>
      vm.setUserMemoryRegion({ slot: 0, guestPhysAddr: 0, memorySize: 2 * UNIT, userspaceAddr: ram.hva + offset });
    for (const offset of [UNIT, -UNIT]) {
      expect(() => over(offset)).toThrow(
        expect.objectContaining({ code: 'EPERM', explanation: expect.stringContaining('not inside one mapping') }),
      );
      expect(vm.memslots.get(0)).toBeUndefined();
    }
    over(0);
  });

  it('does not lose an id when the kernel refuses', () => {
    const ram = kvm.mapAnonymous(UNIT);
    vm.memory.addRam(0, ram).remove();
    for (let i = 0; i < 3; i++) expect(() => vm.memory.addRam(1, ram)).toThrow();
    vm.memory.addRam(0, ram);
    expect(vm.memslots.get(0)).toBeDefined();
  });

  it('moves a slot, keeping its id, and deletes in any order', () => {
    const ram = kvm.mapAnonymous(UNIT);
    const first = vm.memory.addRam(0, ram);
    const second = vm.memory.addRam(2 * UNIT, ram);
    vm.memory.writeU32(0x10, 7);
    first.move(4 * UNIT);
    expect(vm.memory.readU32(4 * UNIT + 0x10)).toBe(7);
    expect(() => vm.memory.readU32(0x10)).toThrow(expect.objectContaining({ code: 'EFAULT' }));
    expect(vm.memslots.get(0)?.baseGfn).toBe((4 * UNIT) / kvm.pageSize);
    expect(() => first.move(2 * UNIT)).toThrow(
      expect.objectContaining({ code: 'EEXIST', slot: 0, explanation: expect.stringContaining('slot 1') }),
    );
    expect(first.gpa).toBe(4 * UNIT);
    first.remove();
    second.remove();
    expect(vm.memslots.size).toBe(0);
    expect(() => first.move(0)).toThrow(expect.objectContaining({ code: 'EBADF' }));
  });

  it('issues no call for a change that changes nothing', () => {
    const ram = kvm.mapAnonymous(UNIT);
    const slot = vm.memory.addRam(0, ram);
    const before = trace.filter(region).length;
    slot.move(0);
    slot.setReadOnly(false);
    vm.dirtyPages.start();
    const started = trace.filter(region).length;
    vm.dirtyPages.start();
    expect(trace.filter(region).length).toBe(started);
    expect(started).toBe(before + 1);
  });

  it('makes a live slot read-only by deleting it and making it anew', () => {
    const ram = kvm.mapAnonymous(UNIT);
    const rom = vm.memory.addRam(0, ram);
    const before = trace.filter(region).length;
    if (vm.checkExtension('READONLY_MEM') === 0) {
      expect(() => rom.setReadOnly(true)).toThrow(
        expect.objectContaining({ code: 'EINVAL', explanation: expect.stringContaining('READONLY') }),
      );
      // Rolled back: the slot is there again as it was.
      expect(vm.memslots.get(0)).toMatchObject({ flags: 0, baseGfn: 0 });
      expect(rom.readOnly).toBe(false);
      rom.remove();
      expect(vm.memslots.size).toBe(0);
      return;
    }
    // A mapping that was closed meanwhile stays for as long as the region is there.
    ram.close();
    rom.setReadOnly(true);
    expect(trace.filter(region).slice(before)).toEqual([
      expect.stringMatching(/^setUserMemoryRegion\(vm#1, 0, 0, 0x0, 0x0, 0x0\) = 0$/),
      expect.stringMatching(/^setUserMemoryRegion\(vm#1, 0, READONLY, 0x0, 0x100000, map#\d+\) = 0$/),
    ]);
    expect(vm.memslots.get(0)?.flags).toBe(MEM.READONLY);
    vm.memory.writeU8(0, 1);
    rom.setReadOnly(false);
    expect(vm.memslots.get(0)?.flags).toBe(0);
    expect(vm.memory.readU8(0)).toBe(1);
    rom.remove();
    expect(ram.pins).toBe(0);
  });

  // The real kernel would set up gigabytes of its own for 2^31 pages; with 64 KiB pages no mapping is large enough.
  const canBeTooLarge = options.backend === 'emulated' && options.pageSize !== 65536;
  it.runIf(canBeTooLarge)(
    'splits a region that is larger than a slot may be, and takes all of it back when a part fails',
    () => {
      const size = 2 ** 43 + 2 ** 32;
      const ram = kvm.mapAnonymous(size);
      const huge = vm.memory.addRam(0, ram);
      expect([...vm.memslots].map(({ baseGfn, npages }) => [baseGfn * 4096, npages * 4096])).toEqual([
        [0, 2 ** 43 - 2 ** 30],
        [2 ** 43 - 2 ** 30, 2 ** 32 + 2 ** 30],
      ]);
      vm.memory.writeU32(2 ** 43 + 8, 77);
      expect(vm.memory.readU32(2 ** 43 + 8)).toBe(77);
      huge.move(2 ** 33);
      expect(vm.memory.readU32(2 ** 43 + 2 ** 33 + 8)).toBe(77);
      huge.remove();
      vm.setUserMemoryRegion({ slot: 5, guestPhysAddr: size - UNIT, memorySize: UNIT, userspaceAddr: ram.hva });
      expect(() => vm.memory.addRam(0, ram)).toThrow(
        expect.objectContaining({ code: 'EEXIST', explanation: expect.stringContaining('slot 5') }),
      );
      expect([...vm.memslots].map((slot) => slot.id)).toEqual([5]);
      // That of the slot made by hand.
      expect(ram.pins).toBe(1);
      ram.close();
    },
  );

  it.each([
    ['unaligned', 1, UNIT, 'EINVAL', 'guest_phys_addr 0x1 is not a multiple of the page size'],
    ['wrapping', (1n << 64n) - BigInt(UNIT), UNIT, 'EINVAL', 'wraps 64 bits'],
  ] as const)('explains what is %s', (_, gpa, size, code, explanation) => {
    const ram = kvm.mapAnonymous(UNIT);
    const region = { slot: 0, guestPhysAddr: gpa, memorySize: size, userspaceAddr: ram.hva };
    expect(() => vm.setUserMemoryRegion(region)).toThrow(
      expect.objectContaining({
        name: 'KvmError',
        code,
        slot: 0,
        gpa,
        size,
        syscall: 'ioctl(KVM_SET_USER_MEMORY_REGION)',
        explanation: expect.stringContaining(explanation),
      }),
    );
  });

  it('explains sizes, addresses, flags, ids, address spaces and changes that cannot be', () => {
    const ram = kvm.mapAnonymous(UNIT);
    const good = { slot: 0, guestPhysAddr: 0, memorySize: UNIT, userspaceAddr: ram.hva };
    const explain = (change: object): string => {
      try {
        vm.setUserMemoryRegion({ ...good, ...change });
      } catch (error) {
        return (error as { explanation?: string }).explanation ?? 'none';
      }
      return 'accepted';
    };
    expect(explain({ memorySize: UNIT + 1 })).toContain('memory_size 0x100001 is not a multiple');
    expect(explain({ userspaceAddr: ram.hva + 1 })).toContain('userspace_addr');
    expect(explain({ flags: 0x100 })).toContain('0x100');
    const wrong = (given: Partial<Parameters<typeof vm.setUserMemoryRegion>[0]>) => (): void =>
      void vm.setUserMemoryRegion({ ...good, ...given });
    expect(wrong({ flags: -1 })).toThrow('"region.flags"');
    expect(wrong({ slot: -1 })).toThrow('"region.slot"');
    expect(wrong({ guestPhysAddr: -1 })).toThrow('"region.guestPhysAddr"');
    for (const guestMemfd of [1.5, -(2 ** 31) - 1, 2 ** 32])
      expect(wrong({ guestMemfd })).toThrow('"region.guestMemfd"');
    expect(wrong({ guestMemfdOffset: -1 })).toThrow('"region.guestMemfdOffset"');
    expect(wrong({ userspaceAddr: -1 })).toThrow('"region.userspaceAddr"');
    expect(() => vm.memslots.set(good, {} as Mapping)).toThrow('"mapping"');
    expect(explain({ slot: 0x7fff + 1 })).toContain('KVM_CAP_NR_MEMSLOTS');
    expect(explain({ slot: 7 << 16 })).toContain('address space 7');
    expect(explain({ memorySize: 0 })).toContain('there is no slot 0');
    expect(explain({})).toBe('accepted');
    expect(explain({ memorySize: 2 * UNIT })).toContain('a slot cannot be resized');
    expect(explain({ userspaceAddr: ram.hva + UNIT })).toContain('backed by');
    expect(explain({ slot: 1 })).toContain('slot 1 [0x0, 0x100000) overlaps slot 0 [0x0, 0x100000)');
    expect(explain({ slot: 2, guestPhysAddr: 8 * UNIT })).toBe('accepted');
    expect(explain({ slot: 0, memorySize: 0 })).toBe('accepted');
    // Neither what lies behind it, nor what lies before.
    expect(explain({ slot: 3, guestPhysAddr: 2 * UNIT })).toBe('accepted');
    expect(explain({ slot: 1, guestPhysAddr: 8 * UNIT })).toContain('overlaps slot 2 [0x800000, 0x900000)');
    expect(explain({ slot: 1, guestPhysAddr: 2 * UNIT })).toContain('overlaps slot 3 [0x200000, 0x300000)');
    if (kvm.arch === 's390x' && kvm.checkExtension('S390_KEYOP') === 0) {
      expect(explain({ slot: 1, guestPhysAddr: 4 * UNIT, memorySize: 0x1000 })).toContain('1 MiB');
    }
  });

  it('has a second address space where the kernel does', () => {
    const ram = kvm.mapAnonymous(UNIT);
    vm.memory.addRam(0, ram);
    if (vm.checkExtension('MULTI_ADDRESS_SPACE') < 2) {
      expect(() => vm.addressSpace(1).addRam(0, ram)).toThrow(
        expect.objectContaining({ code: 'EINVAL', explanation: expect.stringContaining('address space 1') }),
      );
      return;
    }
    vm.addressSpace(1).addRam(0, ram);
    expect(vm.memslots.get(0, 1)).toMatchObject({ asId: 1, word: 0x1_0000 });
    expect(vm.memslots.size).toBe(2);
  });
});

describe.each(backends)('the last memslot on $name', ({ options }) => {
  it('is followed by an error that says how many there may be', () => {
    using kvm = Kvm.open(options);
    // The real kernel is asked as few times as possible: slots by hand with the ids at the end.
    using vm = kvm.createVm();
    const limit = vm.checkExtension('NR_MEMSLOTS');
    const ram = kvm.mapAnonymous(UNIT);
    const calls: KvmCalls = kvm.calls;
    const place = calls.backend === 'native' ? limit - 4 : 0;
    for (let slot = place; slot < limit; slot++) {
      vm.setUserMemoryRegion({ slot, guestPhysAddr: slot * UNIT, memorySize: UNIT, userspaceAddr: ram.hva });
    }
    expect(() =>
      vm.setUserMemoryRegion({ slot: limit, guestPhysAddr: limit * UNIT, memorySize: UNIT, userspaceAddr: ram.hva }),
    ).toThrow(
      expect.objectContaining({ code: 'EINVAL', explanation: expect.stringContaining(`NR_MEMSLOTS is ${limit}`) }),
    );
    if (place !== 0) return;
    expect(() => vm.memory.addRam(limit * UNIT, ram)).toThrow(
      expect.objectContaining({ code: 'EINVAL', slot: limit, explanation: expect.stringContaining(String(limit)) }),
    );
    expect(vm.memslots.size).toBe(limit);
  });
});

it('has no rule of 1 MiB on s390x from 7.0 on', () => {
  using kvm = Kvm.open({ arch: 's390x', release: '7.2' });
  using vm = kvm.createVm();
  const ram = kvm.mapAnonymous(UNIT);
  const slot = { slot: 0, guestPhysAddr: 0x1000, memorySize: 0x2000, userspaceAddr: ram.hva + 0x1000 };
  vm.setUserMemoryRegion(slot);
  expect(vm.memslots.get(0)).toMatchObject({ npages: 2, baseGfn: 1 });
  const small = { ...slot, slot: 1, guestPhysAddr: UNIT, userspaceAddr: ram.hva + 0x400 };
  expect(() => vm.setUserMemoryRegion(small)).toThrow(
    expect.objectContaining({ explanation: expect.stringContaining('not a multiple of the page size') }),
  );
});

it('a memslot is deleted by a size of 0, of whatever type, and whatever else is asked for', () => {
  const kernel = new EmulatedKernel({ arch: 'x86_64', x86_64: { swProtectedVm: true } });
  using kvm = Kvm.open({ calls: kernel });
  using vm = kvm.createVm({ type: 1 });
  const ram = kvm.mapAnonymous(UNIT);
  const place = { slot: 3, guestPhysAddr: 0, userspaceAddr: ram.hva };
  for (const memorySize of [0, 0n]) {
    vm.memslots.set({ ...place, memorySize: UNIT });
    expect(vm.memslots.get(3)?.npages).toBe(UNIT / 4096);
    expect(vm.memslots.set({ ...place, memorySize })).toBeUndefined();
    expect(vm.memslots.get(3)).toBeUndefined();
  }
  using memfd = vm.createGuestMemfd(UNIT);
  const pages = { flags: MEM.GUEST_MEMFD, guestMemfd: memfd.fd, guestMemfdOffset: 0 };
  vm.memslots.set({ ...place, ...pages, memorySize: UNIT });
  expect(vm.memslots.set({ ...place, ...pages, memorySize: 0 })).toBeUndefined();
  expect(vm.memslots.size).toBe(0);
});

describe('those who watch memslots', () => {
  it('are told before the kernel forgets a slot and after each change, and may leave out what they have no use for', () => {
    using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
    using vm = kvm.createVm();
    const ram = kvm.mapAnonymous(UNIT);
    let told: unknown[] = [];
    const toldBy = (change: () => unknown): unknown[] => {
      told = [];
      change();
      return told;
    };
    vm.memslots.watch({
      slotChanging: ({ id }, goes) => told.push(['changing', id, goes]),
      slotAdded: ({ id }) => told.push(['added', id]),
      slotMoved: ({ id, baseGfn }) => told.push(['moved', id, baseGfn]),
      slotLogged: ({ id }) => told.push(['logged', id]),
      slotRemoved: ({ id }) => told.push(['removed', id]),
    });
    vm.memslots.watch({});
    const place = { slot: 3, guestPhysAddr: 0, memorySize: UNIT, userspaceAddr: ram.hva };
    const set = (change: object) => () => vm.memslots.set({ ...place, ...change });
    expect(toldBy(set({}))).toEqual([['added', 3]]);
    expect('guestMemfd' in vm.memslots.get(3)!).toBe(false);
    expect(toldBy(set({ guestPhysAddr: 2 * UNIT }))).toEqual([
      ['changing', 3, false],
      ['moved', 3, 512],
    ]);
    expect(toldBy(set({ guestPhysAddr: 2n * BigInt(UNIT) }))).toEqual([]);
    const there = { guestPhysAddr: 2 * UNIT };
    expect(toldBy(set({ ...there, flags: MEM.LOG_DIRTY_PAGES }))).toEqual([['logged', 3]]);
    // Its log goes.
    expect(toldBy(set({ ...there, flags: 0 }))).toEqual([['changing', 3, false]]);
    expect(toldBy(set({ ...there, flags: 0 }))).toEqual([]);
    for (const memorySize of [0, 0n]) {
      expect(toldBy(set({ ...there, memorySize }))).toEqual([
        ['changing', 3, true],
        ['removed', 3],
      ]);
      expect(toldBy(set(there))).toEqual([['added', 3]]);
    }
  });
});

it('those of a VM that is closed are gone, and let go the memory that they showed', () => {
  const kernel = new EmulatedKernel({ arch: 'x86_64' });
  using kvm = Kvm.open({ calls: kernel });
  const vm = kvm.createVm();
  const [ram, other] = [kvm.mapAnonymous(UNIT), kvm.mapAnonymous(UNIT)];
  vm.memory.addRam(0, ram);
  // One of memory that only the kernel knows, and one behind it.
  const [READ_WRITE, PRIVATE_ANONYMOUS] = [3, 0x22];
  const hva = kernel.mmap(UNIT, READ_WRITE, PRIVATE_ANONYMOUS, -1, 0, 0, 0);
  vm.setUserMemoryRegion({ slot: 3, guestPhysAddr: 2 * UNIT, memorySize: UNIT, userspaceAddr: hva });
  vm.setUserMemoryRegion({ slot: 7, guestPhysAddr: UNIT, memorySize: UNIT, userspaceAddr: other.hva });
  expect([vm.memslots.size, ram.pins, other.pins]).toEqual([3, 2, 1]);
  vm.close();
  expect([vm.memslots.size, [...vm.memslots], ram.pins, other.pins]).toEqual([0, [], 0, 0]);
});

it('a descriptor that is none of a VM has no reason in slots', () => {
  const kernel = new EmulatedKernel({ arch: 'x86_64' });
  using kvm = Kvm.open({ calls: kernel });
  using vm = kvm.createVm();
  const ram = kvm.mapAnonymous(UNIT);
  vm.memory.addRam(0, ram);
  const place = { slot: 7, guestPhysAddr: 0, memorySize: UNIT, userspaceAddr: ram.hva };
  vm.memslots.set({ ...place, slot: 9, guestPhysAddr: 2 * UNIT });
  const refusal = (errno: number): string => {
    kernel.setUserMemoryRegion = () => errno;
    try {
      vm.memslots.set(place);
    } catch (error) {
      return String(error);
    }
    return 'accepted';
  };
  expect(refusal(-17)).toContain('overlaps');
  place.guestPhysAddr = UNIT;
  // Those that it only touches are not in its way.
  expect(refusal(-17)).not.toContain('overlaps');
  place.guestPhysAddr = 0;
  for (const errno of [-9, -25]) expect(refusal(errno)).not.toContain('overlaps');
});
