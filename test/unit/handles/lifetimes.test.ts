import assert from 'node:assert';
import { mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Kvm, MADV, type Mapping, PROT, type Vcpu, type Vm } from '../../../lib/index.ts';
import { ERRNO, load } from '../../../lib/raw.ts';
import { collected, collectGarbage } from '../collect-garbage.ts';
import { backends, UNIT } from './backends.ts';

const vcpuMaps = (): number => readFileSync('/proc/self/maps', 'utf8').split('kvm-vcpu').length - 1;
const openFds = (): number => readdirSync('/proc/self/fd').length;

/** The collector and what it calls have run when something is gone that nobody holds; then as much again for what one holds of another. */
async function everythingCollected(): Promise<void> {
  let gone = false;
  const registry = new FinalizationRegistry(() => {
    gone = true;
  });
  registry.register({}, undefined);
  expect(await collected(() => gone)).toBe(true);
  for (let i = 0; i < 5; i++) {
    collectGarbage();
    await sleep(10);
  }
}

describe.each(backends)('lifetimes on $name', ({ options }) => {
  it('closing is idempotent and may come in any order', () => {
    for (const order of [
      [0, 1, 2, 3],
      [3, 2, 1, 0],
      [1, 3, 0, 2],
      [2, 0, 3, 1],
    ]) {
      const kvm = Kvm.open(options);
      const vm = kvm.createVm();
      const ram = kvm.mapAnonymous(UNIT);
      vm.memory.addRam(0, ram);
      const vcpu = vm.createVcpu();
      vm.dirtyPages.start();
      const handles = [kvm, vm, vcpu, ram];
      for (const index of order) {
        handles[index]!.close();
        handles[index]!.close();
      }
      expect(ram.pins).toBe(0);
    }
  });

  it('a mapping stays until the last region that uses it goes, and its views are detached then', () => {
    using kvm = Kvm.open(options);
    using vm = kvm.createVm();
    const ram = kvm.mapAnonymous(UNIT);
    const region = vm.memory.addRam(0, ram);
    const view = vm.memory.slice(0, 16);
    ram.close();
    expect(ram.closed).toBe(true);
    vm.memory.writeU32(0, 5);
    expect(vm.memory.readU32(0)).toBe(5);
    expect(view.length).toBe(16);
    region.remove();
    expect(view.length).toBe(0);
    expect(() => vm.memory.readU32(0)).toThrow(expect.objectContaining({ code: 'EFAULT' }));
  });

  it('what is closed can be shown by an assertion that fails', () => {
    const kvm = Kvm.open(options);
    const vm = kvm.createVm();
    const ram = kvm.mapAnonymous(UNIT);
    vm.memory.addRam(0, ram);
    vm.memory.writeU32(0, 1);
    const vcpu = vm.createVcpu();
    const dirty = vm.dirtyPages.start();
    for (const handle of [vcpu, vm, ram, kvm]) handle.close();
    for (const closed of [vcpu, vcpu.kvmRun, vm, vm.memory, dirty, ram, kvm]) {
      expect(() => assert.strictEqual(closed, undefined)).toThrow(assert.AssertionError);
      expect(() => expect(closed).toBe(undefined)).toThrow(/^expected .* to be undefined/);
    }
  });

  it('memory that somebody still looks at is not collected', async () => {
    const kvm = Kvm.open(options);
    const look = (): Uint8Array => {
      const space = kvm.createAddressSpace();
      space.addRam(0, kvm.mapAnonymous(UNIT));
      space.writeU8(3, 0x42);
      return space.slice(0, 16);
    };
    const view = look();
    await everythingCollected();
    expect(view[3]).toBe(0x42);
    kvm.close();
  });

  it.each([
    ['and everything it is of', false],
    ['of a kernel that is kept', true],
  ])('a vCPU of which somebody has a part, %s, is not collected', async (_what, keeps) => {
    const kept: Kvm[] = [];
    const make = (): Vcpu => {
      const kvm = Kvm.open(options);
      if (keeps) kept.push(kvm);
      const vm = kvm.createVm();
      vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
      return vm.createVcpu();
    };
    const run = (() => make().kvmRun)();
    const { buffer, length } = (() => make().kvmRun.bytes.subarray(8, 12))();
    await everythingCollected();
    expect(run.exitReason).toBe(0);
    expect([...new Uint8Array(buffer, 8, length)]).toEqual([0, 0, 0, 0]);
    for (const kvm of kept) kvm.close();
  });

  it.each<[what: string, look: (mapping: Mapping, vm: Vm) => unknown]>([
    ['is never looked at', () => undefined],
    ['was written to', (mapping) => mapping.write(0, Uint8Array.of(1))],
    ["was a VM's", (mapping, vm) => vm.memory.addRam(0, mapping) && vm.memory.writeU32(0, 1)],
    ['had a view that was dropped as well', (mapping) => mapping.view(0)!.fill(1)],
    ['had an array that was dropped as well', (mapping) => mapping.giveArray(0, 16)!.fill(1)],
  ])('memory that was dropped and %s is given back by the collector', async (_what, look) => {
    using kvm = Kvm.open(options);
    for (const map of [() => kvm.mapAnonymous(UNIT), () => kvm.mapMemfd(UNIT)]) {
      const hva = (() => {
        const mapping = map();
        const vm = kvm.createVm();
        look(mapping, vm);
        return mapping.hva;
      })();
      const isGone = () => kvm.calls.window(hva, UNIT) === -ERRNO.EINVAL;
      expect(isGone()).toBe(false);
      expect(await collected(isGone)).toBe(true);
    }
  });

  it('leaves nothing behind when a split or a bind fails midway', () => {
    using kvm = Kvm.open(options);
    using vm = kvm.createVm();
    const ram = kvm.mapAnonymous(UNIT);
    const space = kvm.createAddressSpace();
    space.addRam(0, ram);
    space.addRam(2 * UNIT, ram);
    vm.memory.addRam(8 * UNIT, ram);
    vm.setUserMemoryRegion({ slot: 20, guestPhysAddr: 2 * UNIT, memorySize: UNIT, userspaceAddr: ram.hva });
    expect(() => vm.bind(space)).toThrow(expect.objectContaining({ code: 'EEXIST' }));
    expect([...vm.memslots].map((slot) => slot.baseGfn * kvm.pageSize).sort((a, b) => a - b)).toEqual([
      2 * UNIT,
      8 * UNIT,
    ]);
    expect(vm.memory.find(8 * UNIT)).toBeDefined();
  });

  it('keeps sparse memory of a terabyte for free', () => {
    using kvm = Kvm.open(options);
    const space = kvm.createAddressSpace();
    const before = process.memoryUsage().rss;
    using ram = kvm.mapAnonymous(2 ** 40);
    space.addRam(0, ram);
    space.writeU32(2 ** 39 + 4096, 9);
    expect(space.readU32(2 ** 39 + 4096)).toBe(9);
    expect(space.readU64(2 ** 40 - 8)).toBe(0n);
    space.writeU64(2 ** 30 - 4, 0x1122_3344_5566_7788n, false);
    expect(space.readU64(2 ** 30 - 4, false)).toBe(0x1122_3344_5566_7788n);
    expect(process.memoryUsage().rss - before).toBeLessThan(64 << 20);
    space.close();
  });

  it('gives back the pages of discarded memory', () => {
    using kvm = Kvm.open(options);
    const space = kvm.createAddressSpace();
    using ram = kvm.mapAnonymous(UNIT);
    space.addRam(0, ram);
    space.fill(0, UNIT, 0xff);
    ram.discard(0, UNIT / 2);
    expect([space.readU8(0), space.readU8(UNIT / 2)]).toEqual([0, 0xff]);
    ram.advise(MADV.DONTNEED, UNIT / 2, UNIT / 2);
    expect(space.readU8(UNIT / 2)).toBe(0);
    space.close();
  });
});

describe.each(backends.filter(({ options }) => options.arch === undefined || options.arch === 'x86_64'))(
  'files under a mapping on $name',
  ({ options }) => {
    let folder: string;
    beforeAll(() => {
      folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-'));
    });
    afterAll(() => rmSync(folder, { recursive: true }));

    it('are read and written through, and fault with EFAULT where they were truncated', () => {
      using kvm = Kvm.open(options);
      const path = join(folder, 'image');
      writeFileSync(path, Buffer.alloc(2 * UNIT, 0x11));
      using file = kvm.mapFile(path);
      expect(file.size).toBe(2 * UNIT);
      using vm = kvm.createVm();
      vm.memory.addRam(0, file);
      vm.memory.writeU32(0x10, 0x2222_2222);
      expect(vm.memory.readU32(0x10)).toBe(0x2222_2222);
      expect(vm.memory.readU32(UNIT)).toBe(0x1111_1111);
      truncateSync(path, UNIT);
      expect(() => vm.memory.readU32(UNIT)).toThrow(expect.objectContaining({ code: 'EFAULT', gpa: UNIT }));
      expect(() => vm.memory.writeU32(UNIT, 1)).toThrow(expect.objectContaining({ code: 'EFAULT', gpa: UNIT }));
      expect(vm.memory.read(UNIT - 8, new Uint8Array(16))).toBe(8);
    });

    it('may be mapped for reading only', () => {
      using kvm = Kvm.open(options);
      const path = join(folder, 'rom');
      writeFileSync(path, Buffer.alloc(UNIT, 0x33), { mode: 0o444 });
      using file = kvm.mapFile(path, { prot: PROT.READ });
      const space = kvm.createAddressSpace();
      space.addRam(0, file);
      expect(space.readU8(5)).toBe(0x33);
      expect(() => space.writeU8(5, 1)).toThrow(expect.objectContaining({ code: 'EFAULT' }));
      space.close();
      expect(() => kvm.mapFile(join(folder, 'none'))).toThrow(expect.objectContaining({ code: 'ENOENT' }));
    });

    it('are seen alike through several mappings, and a memfd too', () => {
      using kvm = Kvm.open(options);
      using memfd = kvm.mapMemfd(UNIT, { name: 'test' });
      const space = kvm.createAddressSpace();
      space.addRam(0, memfd);
      space.writeU32(0, 7);
      expect(space.readU32(0)).toBe(7);
      memfd.discard();
      expect(space.readU32(0)).toBe(0);
      space.close();
    });
  },
);

describe.each(backends.filter(({ options }) => options.backend === 'emulated'))('dropped with $name', ({ options }) => {
  it('goes all that a guest refers to and that refers to the guest, and its file is closed', async () => {
    const scratch = mkdtempSync(join(tmpdir(), 'kvm-bridge-dropped-'));
    const path = join(scratch, 'file');
    writeFileSync(path, Buffer.alloc(UNIT));
    const before = openFds();
    const handles = (() => {
      const kvm = Kvm.open(options);
      const vm = kvm.createVm();
      const [ram, file] = [kvm.mapAnonymous(UNIT), kvm.mapFile(path)];
      vm.memory.addRam(0, ram);
      vm.memory.writeU32(0, 1);
      const vcpu = vm.createVcpu();
      kvm.emulated!.loadGuest(
        vcpu.fd,
        (function* () {
          yield load(vm.memory.readU32(0) + file.size + vcpu.id, 4);
        })(),
      );
      return [kvm, vm, ram, file, vcpu].map((handle: object) => new WeakRef(handle));
    })();
    expect(openFds()).toBe(before + 1);
    expect(await collected(() => handles.every((handle) => handle.deref() === undefined))).toBe(true);
    expect(await collected(() => openFds() === before)).toBe(true);
    rmSync(scratch, { recursive: true });
  });
});

describe.each(backends.filter(({ options }) => options.backend === 'native'))(
  'dropped handles on $name',
  ({ options }) => {
    it('a thousand VMs with memory and vCPUs that were never closed are closed by the collector', async () => {
      const kvm = Kvm.open(options);
      collectGarbage();
      await sleep(20);
      const before = openFds();
      for (let round = 0; round < 10; round++) {
        for (let i = 0; i < 100; i++) {
          const vm = kvm.createVm();
          vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
          if (i % 10 === 0) vm.createVcpu();
        }
        collectGarbage();
        await sleep(0);
      }
      // The engine may hold on to the last one it saw.
      expect(await collected(() => openFds() - before <= 1 && vcpuMaps() <= 1)).toBe(true);
      kvm.close();
    });

    it('fds and memory are flat over many cycles of opening and closing', () => {
      const cycle = (): void => {
        using kvm = Kvm.open(options);
        using vm = kvm.createVm();
        using ram = kvm.mapAnonymous(UNIT);
        vm.memory.addRam(0, ram);
        vm.memory.writeU32(0, 1);
        vm.createVcpu();
        vm.dirtyPages.start();
        vm.dirtyPages.collect();
      };
      for (let i = 0; i < 300; i++) cycle();
      collectGarbage();
      const fds = openFds();
      const rss = process.memoryUsage().rss;
      for (let i = 0; i < 300; i++) cycle();
      collectGarbage();
      expect(openFds()).toBe(fds);
      expect(process.memoryUsage().rss - rss).toBeLessThan(16 << 20);
    });
  },
);
