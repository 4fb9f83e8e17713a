import { closeSync, ftruncateSync, mkdtempSync, openSync, readSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Kvm, PROT, type Reservation, type Vcpu, type Vm } from '../../../lib/index.ts';
import { backends, UNIT } from '../handles/backends.ts';
import { loadGuest, runsOnProcessor } from '../handles/guests.ts';

const folder = (): { path: string; remove: () => void } => {
  const made = mkdtempSync(join(tmpdir(), 'kvm-bridge-reservation-'));
  return { path: join(made, 'file'), remove: () => rmSync(made, { recursive: true }) };
};

const code = (act: () => unknown): unknown => {
  try {
    act();
    return undefined;
  } catch (error) {
    return (error as { code?: unknown }).code;
  }
};

/** riscv64's KVM looks at what the process may write when a slot is made, so that a region cannot come before its memory. */
const memoryFirst = backends.filter(({ options }) => {
  using kvm = Kvm.open(options);
  return kvm.arch === 'riscv64';
});
const laterMemory = backends.filter((backend) => !memoryFirst.includes(backend));

describe.each(memoryFirst)('a reservation on $name', ({ options }) => {
  it('is a region once all of it has memory that the process may write', () => {
    using kvm = Kvm.open(options);
    using vm = kvm.createVm();
    using ram = kvm.reserve(UNIT);
    const add = () => vm.memory.addRam(0, ram);
    const refusal = expect.objectContaining({ code: 'EPERM', explanation: expect.stringContaining('may not write') });
    expect(add).toThrow(refusal);
    ram.mapAnonymous(0, UNIT / 2);
    expect(add).toThrow(refusal);
    ram.mapAnonymous(UNIT / 2, UNIT / 2);
    add();
    vm.memory.writeU8(UNIT - 1, 7);
    ram.unmapPart(0, kvm.pageSize);
    expect(() => vm.memory.readU8(0)).toThrow(expect.objectContaining({ code: 'EFAULT' }));
    expect(vm.memory.readU8(UNIT - 1)).toBe(7);
  });
});

describe.each(laterMemory)('a reservation on $name', ({ options }) => {
  let kvm: Kvm;
  let vm: Vm;
  let ram: Reservation;
  let page: number;
  const GPA = 4 * UNIT;

  beforeEach(() => {
    kvm = Kvm.open(options);
    vm = kvm.createVm();
    ram = kvm.reserve(UNIT);
    page = kvm.pageSize;
  });
  afterEach(() => {
    vm.close();
    ram.close();
    kvm.close();
  });

  it('is a region before it has any memory, whose slot stays the same when that comes and goes', () => {
    vm.memory.addRam(GPA, ram);
    const [slot] = vm.memslots;
    expect(slot).toMatchObject({ flags: 0, hva: ram.hva, npages: UNIT / page });
    expect(() => vm.memory.readU32(GPA + 8)).toThrow(
      expect.objectContaining({
        code: 'EFAULT',
        gpa: GPA + 8,
        size: 4,
        explanation: expect.stringContaining('nothing'),
      }),
    );
    expect(code(() => vm.memory.writeU8(GPA, 1))).toBe('EFAULT');
    ram.mapAnonymous(0, page);
    vm.memory.writeU32(GPA + 8, 0x1234);
    expect(vm.memory.readU32(GPA + 8)).toBe(0x1234);
    ram.unmapPart(0, page);
    expect(code(() => vm.memory.readU32(GPA + 8))).toBe('EFAULT');
    ram.mapAnonymous(0, page);
    expect(vm.memory.readU32(GPA + 8)).toBe(0);
    expect([...vm.memslots]).toEqual([slot]);
  });

  it('reads across pieces of every kind, and counts up to the first hole', () => {
    const file = folder();
    writeFileSync(file.path, new Uint8Array(2 * page).fill(3));
    vm.memory.addRam(GPA, ram);
    ram.mapAnonymous(0, page);
    ram.mapMemfd(page, page);
    ram.mapFile(2 * page, file.path, { prot: PROT.READ });
    ram.mapAnonymous(5 * page, page);
    expect(ram.pieces).toEqual([
      { kind: 'anonymous', offset: 0, size: page, prot: 3 },
      { kind: 'memfd', offset: page, size: page, prot: 3 },
      { kind: 'file', offset: 2 * page, size: 2 * page, prot: 1 },
      { kind: 'anonymous', offset: 5 * page, size: page, prot: 3 },
    ]);
    vm.memory.fill(GPA, page, 1);
    vm.memory.fill(GPA + page, page, 2);
    const into = new Uint8Array(8 * page);
    expect(vm.memory.read(GPA, into)).toBe(4 * page);
    expect([0, page, 2 * page, 4 * page - 1].map((at) => into[at])).toEqual([1, 2, 3, 3]);
    expect(() => vm.memory.readExact(GPA + page, 4 * page)).toThrow(
      expect.objectContaining({ code: 'EFAULT', gpa: GPA + 4 * page, size: page }),
    );
    expect(vm.memory.write(GPA + page, new Uint8Array(2 * page).fill(9))).toBe(page);
    expect(() => vm.memory.writeExact(GPA + 2 * page - 2, new Uint8Array(4))).toThrow(
      expect.objectContaining({ code: 'EFAULT', gpa: GPA + 2 * page, size: 2 }),
    );
    expect(vm.memory.readU8(GPA + 5 * page)).toBe(0);
    const pieces = new Uint8Array(3);
    vm.memory.gather([GPA, GPA + page, GPA + 3 * page], 1, pieces);
    expect([...pieces]).toEqual([1, 9, 3]);
    expect(() => vm.memory.gather([GPA, GPA + 4 * page], 1, pieces)).toThrow(
      expect.objectContaining({ code: 'EFAULT', gpa: GPA + 4 * page }),
    );
    file.remove();
  });

  it('has no views', () => {
    vm.memory.addRam(GPA, ram);
    ram.mapAnonymous(0, UNIT);
    expect(code(() => vm.memory.slice(GPA, 8))).toBe('EACCES');
    expect(code(() => vm.memory.atomicLoad(GPA, 4))).toBe('EACCES');
    expect(kvm.reserve(page).window(0)).toBe(undefined);
  });

  it('replaces what is in the place of a piece, also in the middle of another', () => {
    ram.mapAnonymous(0, 4 * page);
    ram.write(0, new Uint8Array(4 * page).fill(7));
    ram.mapMemfd(page, 2 * page);
    const into = new Uint8Array(4 * page);
    expect(ram.read(0, into)).toBe(4 * page);
    expect([0, page, 3 * page - 1, 3 * page].map((at) => into[at])).toEqual([7, 0, 0, 7]);
    ram.unmapPart(2 * page, page);
    expect(ram.pieces.map(({ kind, offset, size }) => [kind, offset / page, size / page])).toEqual([
      ['anonymous', 0, 1],
      ['memfd', 1, 1],
      ['anonymous', 3, 1],
    ]);
    expect([ram.read(0, into), ram.read(2 * page, into), ram.read(3 * page, into)]).toEqual([2 * page, 0, page]);
  });

  it('refuses what is not whole pages inside it, and leaves what is there', () => {
    const another = kvm.mapAnonymous(UNIT);
    ram.mapAnonymous(0, page);
    ram.write(0, Uint8Array.of(5));
    expect(code(() => ram.mapAnonymous(UNIT - page, 2 * page))).toBe('EINVAL');
    expect(code(() => ram.mapAnonymous(UNIT, page))).toBe('EINVAL');
    expect(code(() => ram.mapAnonymous(page / 2, page))).toBe('EINVAL');
    expect(code(() => ram.mapAnonymous(0, 0))).toBe('EINVAL');
    expect(code(() => ram.mapAnonymous(-page, page))).toBe('ERR_OUT_OF_RANGE');
    expect(code(() => ram.unmapPart(0, UNIT + page))).toBe('EINVAL');
    expect(code(() => ram.mapDevice(0, 0x7fff_ffff, { size: page }))).toBe('EBADF');
    expect(() => ram.mapAnonymous(page / 2, page)).toThrow(/0x\w+ is not a multiple of the page size/);
    expect(() => ram.mapAnonymous(UNIT - page, 2 * page)).toThrow(/reaches beyond the reservation/);
    expect(() => ram.mapAnonymous(0, 0)).toThrow(/the size is 0/);
    expect(() => kvm.mapAnonymous(page, { align: 3 })).toThrow(/align 0x3 is not/);
    const into = new Uint8Array(1);
    expect([ram.read(0, into), into[0], ram.pieces.length]).toEqual([1, 5, 1]);
    // Only what was reserved is: other mappings are nobody's to put anything into.
    expect(kvm.calls.mmapFixed(another.hva, page, 3, 0x22, -1, 0)).toBe(-22);
    another.close();
  });

  it('gives everything back when it is closed, in use or not', () => {
    ram.mapMemfd(0, page);
    const region = vm.memory.addRam(GPA, ram);
    ram.close();
    expect(() => ram.mapAnonymous(0, page)).toThrow(expect.objectContaining({ code: 'EBADF', syscall: 'mmap' }));
    vm.memory.writeU8(GPA, 1);
    region.remove();
    expect([ram.pins, ram.read(0, new Uint8Array(1))]).toEqual([0, 0]);
  });

  it('keeps its addresses when all of it is taken out', () => {
    vm.memory.addRam(GPA, ram);
    ram.mapAnonymous(0, UNIT);
    ram.unmapPart(0, UNIT);
    expect(ram.pieces).toEqual([]);
    ram.mapAnonymous(0, UNIT);
    vm.memory.writeU8(GPA + UNIT - 1, 1);
    expect(vm.memory.readU8(GPA + UNIT - 1)).toBe(1);
  });

  it('protects pieces, and nothing else', () => {
    vm.memory.addRam(GPA, ram);
    ram.mapAnonymous(0, 3 * page);
    vm.memory.writeU8(GPA + page, 6);
    ram.protect(page, page, PROT.READ);
    expect(vm.memory.readU8(GPA + page)).toBe(6);
    expect(code(() => vm.memory.writeU8(GPA + page, 1))).toBe('EFAULT');
    vm.memory.writeU8(GPA + 2 * page, 1);
    expect(ram.pieces.map(({ size, prot }) => [size / page, prot])).toEqual([
      [1, 3],
      [1, 1],
      [1, 3],
    ]);
    expect(code(() => ram.protect(2 * page, 2 * page, PROT.READ))).toBe('ENOMEM');
    expect(inspect(ram)).toMatch(/reservation hva .*\n.*access\n.*anonymous +read, write\n.*anonymous +read\n/);
  });

  it('discards what is there by its kind', () => {
    const file = folder();
    writeFileSync(file.path, new Uint8Array(page).fill(3));
    ram.mapAnonymous(0, page);
    ram.mapMemfd(page, page);
    ram.mapFile(3 * page, file.path, { shared: false });
    for (const at of [0, 1, 3]) ram.write(at * page, Uint8Array.of(8));
    ram.discard();
    const bytes = [0, 1, 3].map((at) => {
      const byte = new Uint8Array(1);
      ram.read(at * page, byte);
      return byte[0];
    });
    expect(bytes).toEqual([0, 0, 3]);
    file.remove();
  });

  it('keeps what is written to a private piece of a file from the file, and puts a shared one there', () => {
    const file = folder();
    writeFileSync(file.path, new Uint8Array(2 * page).fill(3));
    const fd = openSync(file.path, 'r');
    ram.mapFile(0, fd, { shared: false, size: page });
    ram.mapFile(page, file.path, { offset: page });
    expect(code(() => ram.mapFile(2 * page, fd))).toBe('EACCES');
    ram.write(0, Uint8Array.of(1));
    ram.write(page, Uint8Array.of(2));
    const inFile = new Uint8Array(page + 1);
    readSync(fd, inFile, 0, page + 1, 0);
    const here = new Uint8Array(2);
    ram.read(0, here);
    expect([inFile[0], inFile[page], ...here]).toEqual([3, 2, 1, 3]);
    closeSync(fd);
    file.remove();
  });
});

describe.each(laterMemory)('device memory in a reservation on $name', ({ options }) => {
  it('is passed through page by page, with RAM of other kinds beside it', () => {
    using kvm = Kvm.open(options);
    using vm = kvm.createVm();
    const page = kvm.pageSize;
    const file = folder();
    const bar = openSync(file.path, 'w+');
    ftruncateSync(bar, 2 * page);
    const window = kvm.reserve(UNIT);
    const region = vm.memory.addDevice(2 * UNIT, window, { name: 'window' });
    expect(region.kind).toBe('device');
    expect([...vm.memslots].map(({ flags }) => flags)).toEqual([0]);
    window.mapDevice(page, bar, { size: page, offset: page });
    vm.memory.writeU16(2 * UNIT + page + 2, 0x5a5a);
    const seen = new Uint8Array(2);
    readSync(bar, seen, 0, 2, page + 2);
    expect([...seen]).toEqual([0x5a, 0x5a]);
    expect(code(() => vm.memory.writeU8(2 * UNIT, 1))).toBe('EFAULT');
    // The device takes its memory away: the page stays mapped, and isn't there.
    ftruncateSync(bar, page);
    expect(code(() => vm.memory.readU8(2 * UNIT + page))).toBe('EFAULT');
    window.mapAnonymous(page, page);
    expect(vm.memory.readU16(2 * UNIT + page + 2)).toBe(0);
    closeSync(bar);
    file.remove();
  });
});

describe.each(backends.filter(({ options: { backend, arch } }) => backend === 'native' || arch === 'x86_64'))(
  'a guest of $name in a reservation',
  ({ options }) => {
    let kvm: Kvm;
    let vm: Vm;
    let vcpu: Vcpu;
    let ram: Reservation;
    const GPA = 16 * UNIT;
    const PAUSE = 0xd000_0000;
    const PAGE = 4096;

    beforeEach(() => {
      kvm = Kvm.open(options);
      vm = kvm.createVm();
      vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
      ram = kvm.reserve(UNIT);
      vm.memory.addRam(GPA, ram);
      vcpu = vm.createVcpu();
    });
    afterEach(() => {
      vm.close();
      ram.close();
      kvm.close();
    });

    it('finds pieces that come between its accesses, with the same slot', async () => {
      ram.mapAnonymous(0, PAGE);
      loadGuest(kvm, vm, vcpu, [
        { store: GPA, value: 1 },
        { store: PAUSE, value: 0 },
        { store: GPA + PAGE, value: 2 },
        { store: PAUSE, value: 0 },
        { store: GPA, value: 3 },
      ]);
      expect(await vcpu.run()).toMatchObject({ reason: 'MMIO', gpa: PAUSE });
      ram.mapMemfd(PAGE, PAGE);
      expect(await vcpu.run()).toMatchObject({ reason: 'MMIO', gpa: PAUSE });
      expect([vm.memory.readU8(GPA), vm.memory.readU8(GPA + PAGE)]).toEqual([1, 2]);
      ram.mapMemfd(0, PAGE);
      expect(vm.memory.readU8(GPA)).toBe(0);
      expect(await vcpu.run()).toEqual({ reason: 'HLT' });
      expect(vm.memory.readU8(GPA)).toBe(3);
    });

    it('is logged whatever the pieces are', async () => {
      ram.mapAnonymous(0, 2 * PAGE);
      vm.dirtyPages.start();
      loadGuest(kvm, vm, vcpu, [
        { store: GPA + PAGE, value: 1 },
        { store: PAUSE, value: 0 },
        { store: GPA + PAGE, value: 2 },
      ]);
      await vcpu.run();
      expect([...vm.dirtyPages.collect().pages()]).toContain(GPA / PAGE + 1);
      ram.mapMemfd(PAGE, PAGE);
      expect(await vcpu.run()).toEqual({ reason: 'HLT' });
      expect([...vm.dirtyPages.collect().pages()]).toEqual([GPA / PAGE + 1]);
      expect(vm.memory.readU8(GPA + PAGE)).toBe(2);
    });

    it('ends with EFAULT at a page without memory, and goes on when there is some', async () => {
      loadGuest(kvm, vm, vcpu, [{ store: GPA, value: 1 }]);
      // KVM's instruction emulator takes such a page for a device instead.
      if (!runsOnProcessor(kvm)) {
        expect(await vcpu.run()).toMatchObject({ reason: 'MMIO', gpa: GPA });
        return;
      }
      await expect(vcpu.run()).rejects.toMatchObject({ code: 'EFAULT' });
      ram.mapAnonymous(0, PAGE);
      expect(await vcpu.run()).toEqual({ reason: 'HLT' });
      expect(vm.memory.readU8(GPA)).toBe(1);
    });

    it('is refused stores to a read-only piece in a region that it may write', async () => {
      ram.mapAnonymous(0, PAGE);
      ram.protect(0, PAGE, PROT.READ);
      loadGuest(kvm, vm, vcpu, [
        { load: GPA, storedAt: 0x3000 },
        { store: GPA, value: 1 },
      ]);
      if (!runsOnProcessor(kvm)) {
        expect(await vcpu.run()).toMatchObject({ reason: 'MMIO', gpa: GPA, isWrite: true });
        return;
      }
      await expect(vcpu.run()).rejects.toMatchObject({ code: 'EFAULT' });
      expect(vm.memory.readU8(GPA)).toBe(0);
    });

    it('meets pieces that are exchanged while it runs', async () => {
      ram.mapAnonymous(0, PAGE);
      const steps = Array.from({ length: 200 }, (_, i) => ({ store: GPA + (i % 8), value: i }));
      loadGuest(kvm, vm, vcpu, steps);
      const running = vcpu.run();
      for (let i = 0; i < 50; i++) {
        ram.mapMemfd(0, PAGE);
        ram.mapAnonymous(0, PAGE);
      }
      expect(await running).toEqual({ reason: 'HLT' });
    });
  },
);
