import fs, { closeSync, mkdtempSync, openSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { VIEW_WINDOW } from '../../../lib/calls/kvm-calls.ts';
import {
  FileBacking,
  type MapSource,
  MemoryBacking,
  PrivateBacking,
  SharedArea,
} from '../../../lib/emulated/backing.ts';
import { Kvm } from '../../../lib/index.ts';
import { ERRNO, MAP, PROT } from '../../../lib/raw.ts';

const PAGE = 4096;

describe('memory', () => {
  const bytesOf = (memory: MemoryBacking, offset: number, length: number): number[] => [
    ...new Uint8Array(memory.window(offset), offset % VIEW_WINDOW, length),
  ];

  it('has windows of a GiB, each made when it is first asked for and the last as long as what is left', () => {
    const memory = new MemoryBacking(2 * VIEW_WINDOW + 3 * PAGE);
    const last = 2 * VIEW_WINDOW;
    expect([memory.kind, memory.size()]).toEqual(['memory', last + 3 * PAGE]);
    expect([0, VIEW_WINDOW, last].map((at) => memory.hasBytes(at))).toEqual([false, false, false]);
    const window = memory.window(last + PAGE);
    expect(window.byteLength).toBe(3 * PAGE);
    expect(memory.window(last)).toBe(window);
    expect([0, VIEW_WINDOW, last - 1, last, last + 3 * PAGE - 1].map((at) => memory.hasBytes(at))).toEqual([
      false,
      false,
      false,
      true,
      true,
    ]);
    expect([memory.has(window), memory.has(new ArrayBuffer(3 * PAGE))]).toEqual([true, false]);
    const two = new MemoryBacking(2 * VIEW_WINDOW);
    const both = [two.window(0), two.window(VIEW_WINDOW)];
    expect(both.map((one) => two.has(one))).toEqual([true, true]);
  });

  it('keeps its bytes when windows are taken away, also where some were never made', () => {
    const memory = new MemoryBacking(VIEW_WINDOW + PAGE);
    const window = memory.window(VIEW_WINDOW);
    new Uint8Array(window).set([1, 2, 3], 5);
    memory.detach();
    expect([window.byteLength, memory.has(window), memory.hasBytes(0)]).toEqual([0, false, false]);
    expect(bytesOf(memory, VIEW_WINDOW + 5, 3)).toEqual([1, 2, 3]);
    const again = memory.window(VIEW_WINDOW);
    memory.release();
    expect([again.byteLength, memory.hasBytes(VIEW_WINDOW)]).toEqual([0, false]);
  });

  it('knows which pages were brought, whole or in part, until they are given back as wholes', () => {
    for (const unit of [PAGE, 16 * PAGE]) {
      const memory = new MemoryBacking(8 * unit, unit);
      const there = (): number[] => [0, 1, 2, 3, 4, 5, 6, 7].filter((page) => memory.isThere(page * unit));
      expect([memory.unit, there()]).toEqual([unit, []]);
      memory.bring(unit - 1, 1);
      expect(there()).toEqual([0]);
      memory.bring(3 * unit - 1, 2);
      memory.bring(5 * unit, 2 * unit);
      expect(there()).toEqual([0, 2, 3, 5, 6]);
      expect([memory.isThere(unit - 1), memory.isThere(unit), memory.isThere(3 * unit - 1)]).toEqual([
        true,
        false,
        true,
      ]);
      memory.discard(2 * unit + PAGE, 2 * unit - PAGE);
      expect(there()).toEqual([0, 2, 5, 6]);
      memory.discard(0, 6 * unit + (unit - PAGE));
      expect(there()).toEqual([6]);
      memory.discard(6 * unit, unit);
      expect(there()).toEqual([]);
    }
  });

  it('is zero again where it is given back, in each window that there is', () => {
    const memory = new MemoryBacking(2 * VIEW_WINDOW + PAGE);
    const put = (at: number): void => void new Uint8Array(memory.window(at), at % VIEW_WINDOW, 1).fill(7);
    const border = 2 * VIEW_WINDOW;
    for (const at of [border - PAGE - 1, border - PAGE, border - 1, border, border + 9, border + 10]) put(at);
    memory.discard(border - PAGE, PAGE + 10);
    expect(bytesOf(memory, border - PAGE - 1, 2)).toEqual([7, 0]);
    expect(bytesOf(memory, border - 1, 1)).toEqual([0]);
    expect(bytesOf(memory, border, 1)).toEqual([0]);
    expect(bytesOf(memory, border + 9, 2)).toEqual([0, 7]);
    // Where nothing was made nothing is.
    memory.discard(0, PAGE);
    expect(memory.hasBytes(0)).toBe(false);
  });

  it('is copied out of, where nothing was made as zeros', () => {
    const memory = new MemoryBacking(VIEW_WINDOW + PAGE);
    const copied = (at: number, length: number): unknown => {
      const into = new Uint8Array(length).fill(9);
      return [memory.transfer(at, into), ...into];
    };
    expect(copied(4, 3)).toEqual([3, 0, 0, 0]);
    expect(memory.hasBytes(4)).toBe(false);
    new Uint8Array(memory.window(VIEW_WINDOW)).set([1, 2, 3, 4, 5, 6, 7, 8]);
    expect(copied(VIEW_WINDOW + 2, 3)).toEqual([3, 3, 4, 5]);
  });
});

it('what the kernel and user space both look at is looked at anew where user space’s mapping was undone', () => {
  const area = new SharedArea(2 * PAGE);
  area.view.setUint32(8, 0x34);
  const { view } = area;
  expect(area.view).toBe(view);
  area.bytes(10, 1)[0] = 0x56;
  area.backing.detach();
  expect(area.view === view).toBe(false);
  expect([area.view.byteLength, area.view.getUint32(8)]).toEqual([2 * PAGE, 0x5634]);
});

describe('a file', () => {
  const LENGTH = 3 * PAGE + 100;
  let folder: string;
  let path: string;
  const fds: number[] = [];
  const open = (flags: string): number => {
    const fd = openSync(path, flags);
    fds.push(fd);
    return fd;
  };
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-'));
    path = join(folder, 'file');
    writeFileSync(path, Buffer.alloc(LENGTH, 1));
  });
  afterEach(() => {
    for (const fd of fds.splice(0)) closeSync(fd);
    rmSync(folder, { recursive: true });
  });

  const source = (fd: number, flags: number, prot: number): MapSource | number =>
    FileBacking.source(fd, PAGE, PAGE, { length: PAGE, prot, flags });
  const { READ, WRITE } = PROT;

  it('is mapped as mmap(2) has it: by how it was opened, what for, and shared or not', () => {
    const [reading, writing, both] = [open('r'), open('a'), open('r+')];
    const { SHARED, PRIVATE } = MAP;
    const refused = [
      [SHARED, READ],
      [SHARED, READ | WRITE],
      [PRIVATE, READ],
      [PRIVATE, READ | WRITE],
    ].map(([flags = 0, prot = 0]) =>
      [reading, writing, both].map((fd) => {
        const found = source(fd, flags, prot);
        if (typeof found === 'number') return found;
        found.backing.release();
        return found.readOnly;
      }),
    );
    const EACCES = -ERRNO.EACCES;
    expect(refused).toEqual([
      [true, EACCES, false],
      [EACCES, EACCES, false],
      [false, EACCES, false],
      [false, EACCES, false],
    ]);
    expect(source(0x7fff_fff0, SHARED, READ)).toBe(-ERRNO.EBADF);
    // Nobody may write a program while it runs.
    const program = openSync(process.execPath, 'r');
    fds.push(program);
    const running = source(program, SHARED, READ) as MapSource;
    const into = new Uint8Array(4);
    expect([running.readOnly, running.backing.transfer(0, into, false), ...into.subarray(1)]).toEqual([
      true,
      4,
      ...Buffer.from('ELF'),
    ]);
    running.backing.release();
    const directory = openSync(folder, 'r');
    fds.push(directory);
    expect(source(directory, SHARED, READ)).toBe(-ERRNO.ENODEV);
  });

  /** Has a function of Node's file system fail. */
  function failing(name: 'openSync' | 'readFileSync' | 'readSync' | 'writeSync', error: Error): { end(): void } {
    const spy = vi.spyOn(fs, name).mockImplementation(() => {
      throw error;
    });
    syncBuiltinESMExports();
    const end = (): void => {
      spy.mockRestore();
      syncBuiltinESMExports();
    };
    onTestFinished(end);
    return { end };
  }
  const systemError = (errno: number) => Object.assign(new Error('no'), { errno: -errno });

  it.each(['openSync', 'readFileSync'] as const)('is not mapped where it cannot be opened once more: %s', (name) => {
    const fd = open('r+');
    failing(name, systemError(ERRNO.EMFILE));
    expect(source(fd, MAP.SHARED, READ)).toBe(-ERRNO.EMFILE);
    failing(name, new TypeError('a fault of ours'));
    expect(() => source(fd, MAP.SHARED, READ)).toThrow('a fault of ours');
  });

  it('has no page where the disk does not give or take it', () => {
    const { backing } = source(open('r+'), MAP.SHARED, READ | WRITE) as MapSource;
    const bytes = new Uint8Array(4);
    failing('readSync', systemError(ERRNO.EIO));
    failing('writeSync', systemError(ERRNO.ENOSPC));
    expect([backing.transfer(0, bytes, false), backing.transfer(0, bytes, true)]).toEqual([-ERRNO.EIO, -ERRNO.ENOSPC]);
    failing('readSync', new TypeError('a fault of ours'));
    expect(() => backing.transfer(0, bytes, false)).toThrow('a fault of ours');
    backing.release();
  });

  it('is memory that ends where its disk does, for who maps it', () => {
    using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
    using vm = kvm.createVm();
    vm.memory.addRam(0, kvm.mapFile(path));
    vm.memory.addRam(0x10_0000, kvm.mapFile(path, { shared: false }));
    const bytes = new Uint8Array(3 * PAGE).fill(9);
    const unreadable = failing('readSync', systemError(ERRNO.EIO));
    // The second page has no room.
    const write = fs.writeSync;
    const spy = vi.spyOn(fs, 'writeSync').mockImplementation((...args: unknown[]) => {
      if (Number(args[4]) >= PAGE) throw systemError(ERRNO.ENOSPC);
      return Reflect.apply(write, fs, args);
    });
    syncBuiltinESMExports();
    onTestFinished(() => {
      spy.mockRestore();
      syncBuiltinESMExports();
    });
    expect(vm.memory.write(0, bytes)).toBe(PAGE);
    const isRefused = expect.objectContaining({ code: 'EFAULT' });
    expect(() => vm.memory.writeU32(PAGE + 8, 0xcafe)).toThrow(isRefused);
    expect(() => vm.memory.readU32(8)).toThrow(isRefused);
    // What would be a page of its own is made of the file's.
    for (const gpa of [0x10_0000, 0x10_0008]) expect(() => vm.memory.writeU8(gpa, 1)).toThrow(isRefused);
    unreadable.end();
    expect(vm.memory.readU8(0x10_0000 + PAGE)).toBe(readFileSync(path)[PAGE]);
  });

  it('is read and written itself where it is shared, to its end as it is then', () => {
    const { backing, offset } = source(open('r+'), MAP.SHARED, READ | WRITE) as MapSource;
    expect([backing.kind, offset, backing.size(), backing.hasBytes(0)]).toEqual(['file', PAGE, LENGTH, false]);
    expect(backing.transfer(LENGTH - 2, Uint8Array.of(5, 6, 7), true)).toBe(2);
    expect(backing.transfer(LENGTH, Uint8Array.of(8), true)).toBe(0);
    expect(backing.transfer(LENGTH + 5, Uint8Array.of(8), true)).toBe(0);
    expect([...readFileSync(path).subarray(-3)]).toEqual([1, 5, 6]);
    const into = new Uint8Array(3);
    expect([backing.transfer(LENGTH - 2, into, false), ...into]).toEqual([2, 5, 6, 0]);
    backing.discard(PAGE, PAGE);
    backing.discard(3 * PAGE, PAGE);
    backing.discard(4 * PAGE, PAGE);
    const found = readFileSync(path);
    expect(found).toHaveLength(LENGTH);
    expect([PAGE - 1, PAGE, 2 * PAGE - 1, 2 * PAGE, 3 * PAGE - 1, 3 * PAGE, LENGTH - 1].map((at) => found[at])).toEqual(
      [1, 0, 0, 1, 1, 0, 0],
    );
    truncateSync(path, PAGE);
    expect([backing.size(), backing.transfer(PAGE, into, false)]).toEqual([PAGE, 0]);
    expect(() => backing.window(0)).toThrow('a file has no windows');
    backing.detach();
    expect(backing.size()).toBe(PAGE);
    backing.release();
    expect(() => backing.size()).toThrow('EBADF');
  });

  it('that is private is the file’s until a page is written, and that page’s own from then on', () => {
    const { backing } = source(open('r'), MAP.PRIVATE, READ | WRITE) as MapSource;
    expect([backing.kind, backing.unit, backing.size(), backing.hasBytes(0)]).toEqual(['file', PAGE, LENGTH, false]);
    const get = (at: number, length: number): unknown => {
      const into = new Uint8Array(length).fill(9);
      return [backing.transfer(at, into, false), ...into];
    };
    expect(backing.transfer(PAGE + 5, Uint8Array.of(5), true)).toBe(1);
    expect(get(PAGE + 4, 3)).toEqual([3, 1, 5, 1]);
    expect(backing.transfer(LENGTH - 1, Uint8Array.of(6, 7), true)).toBe(1);
    expect(backing.transfer(LENGTH, Uint8Array.of(7), true)).toBe(0);
    expect([get(LENGTH - 2, 3), get(LENGTH, 1)]).toEqual([
      [2, 1, 6, 9],
      [0, 9],
    ]);
    writeFileSync(path, Buffer.alloc(LENGTH, 2));
    expect([get(0, 1), get(PAGE, 1), get(PAGE + 5, 1), get(3 * PAGE, 1)]).toEqual([
      [1, 2],
      [1, 1],
      [1, 5],
      [1, 1],
    ]);
    // What was behind the end is nobody's own when there is something.
    expect(backing.transfer(4 * PAGE, Uint8Array.of(8), true)).toBe(0);
    writeFileSync(path, Buffer.alloc(5 * PAGE, 2));
    expect(get(4 * PAGE, 1)).toEqual([1, 2]);
    truncateSync(path, LENGTH);
    backing.discard(0, 2 * PAGE);
    expect([get(PAGE + 5, 1), get(LENGTH - 1, 1)]).toEqual([
      [1, 2],
      [1, 6],
    ]);
    backing.detach();
    expect(get(LENGTH - 1, 1)).toEqual([1, 6]);
    expect(() => backing.window(0)).toThrow('a private mapping of a file has no windows');
    backing.release();
    expect(() => backing.size()).toThrow('EBADF');
  });
});

it('a private mapping of a memfd leaves the memfd’s memory to the others when it goes', () => {
  const memory = new MemoryBacking(PAGE);
  const window = memory.window(0);
  const own = new PrivateBacking(memory, PAGE);
  own.release();
  expect([window.byteLength, memory.has(window)]).toEqual([PAGE, true]);
});
