import { closeSync, mkdtempSync, openSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { AddressSpace, Kvm, Mapping } from '../../../lib/index.ts';
import { EmulatedKernel, ERRNO, MADV, PROT } from '../../../lib/raw.ts';
import { collected, collectGarbage } from '../collect-garbage.ts';

const UNIT = 0x10_0000;
const PAGE = 4096;
const GIB = 2 ** 30;

let kernel: EmulatedKernel;
let kvm: Kvm;
/** Descriptors that were closed, and addresses that were unmapped. */
let closed: number[];
let unmapped: number[];

beforeEach(() => {
  kernel = new EmulatedKernel({ arch: 'x86_64' });
  // Of this kernel alone: the collector may come to an earlier one's while another test runs.
  const own = { closed: [] as number[], unmapped: [] as number[] };
  ({ closed, unmapped } = own);
  const mine = kernel;
  const { close, munmap } = mine;
  mine.close = (fd) => {
    own.closed.push(fd);
    return close.call(mine, fd);
  };
  mine.munmap = (hva, size) => {
    own.unmapped.push(Number(hva));
    return munmap.call(mine, hva, size);
  };
  kvm = Kvm.open({ calls: kernel });
});
afterEach(() => kvm.close());

const byteAt = (mapping: Mapping, offset: number): number => {
  const byte = new Uint8Array(1);
  return mapping.read(offset, byte) === 1 ? byte[0]! : -1;
};

describe('a mapping that was dropped', () => {
  it.each([
    ['anonymous', () => kvm.mapAnonymous(UNIT)],
    ['a memfd', () => kvm.mapMemfd(UNIT)],
  ])('is unmapped when it is collected, and its descriptor closed if it has one: %s', async (_kind, map) => {
    const [hva, fd] = (() => {
      const mapping = map();
      return [mapping.hva, mapping.fd];
    })();
    await collected(() => unmapped.length > 0);
    expect(unmapped).toEqual([hva]);
    expect(closed).toEqual(fd < 0 ? [] : [fd]);
    expect(Mapping.containing(kernel, hva, UNIT)).toBeUndefined();
  });

  it('is left alone when it was closed', async () => {
    (() => {
      const mapping = kvm.mapMemfd(UNIT);
      mapping.close();
    })();
    const other = (() => kvm.mapAnonymous(UNIT).hva)();
    // The other one goes too: so the collector has been here.
    await collected(() => unmapped.length > 1 && unmapped.includes(other));
    await setImmediate();
    expect([unmapped.length, closed.length]).toEqual([2, 1]);
  });
});

it('who showed a mapping and was dropped is not told any more of what is written there', async () => {
  const mapping = kvm.mapAnonymous(UNIT);
  const shown = (() => {
    const space = new AddressSpace({ littleEndian: true, pageSize: PAGE });
    space.addRam(0, mapping);
    return new WeakRef(space);
  })();
  // Nobody looks at it meanwhile, which would keep it.
  for (let i = 0; i < 5; i++) {
    await setImmediate();
    collectGarbage();
  }
  expect(shown.deref()).toBeUndefined();
  expect(mapping.write(0, Uint8Array.of(7))).toBe(1);
  expect(byteAt(mapping, 0)).toBe(7);
  mapping.protect(0, PAGE, PROT.READ);
  expect([byteAt(mapping, 0), mapping.write(0, Uint8Array.of(8))]).toEqual([7, 0]);
});

it('memory is looked for by addresses that there can be', () => {
  expect(() => Mapping.containing(kernel, -1, 1)).toThrow('"hva"');
  expect(() => Mapping.containing(kernel, 0, -1)).toThrow('"size"');
});

it('a mapping that is collected is not found, also before it is unmapped', async () => {
  const hva = (() => kvm.mapAnonymous(UNIT).hva)();
  await setImmediate();
  collectGarbage();
  expect(unmapped).toEqual([]);
  expect(Mapping.containing(kernel, hva, UNIT)).toBeUndefined();
});

it('a VM that was dropped, or closed, is told of no region any more', async () => {
  using space = new AddressSpace({ littleEndian: true, pageSize: PAGE });
  (() => kvm.createVm().bind(space))();
  for (let i = 0; i < 5; i++) {
    await setImmediate();
    collectGarbage();
  }
  space.addRam(0, kvm.mapAnonymous(UNIT));
  const vm = kvm.createVm();
  vm.bind(space);
  vm.close();
  space.addRam(UNIT, kvm.mapAnonymous(UNIT));
  expect([...space.regions()]).toHaveLength(2);
});

it('a memfd that is descriptor 0, since standard input was closed, is closed like others', async () => {
  const memfd = kernel.memfdCreate('memory', UNIT, 0);
  const { mmap } = kernel;
  kernel.mmap = (length, prot, flags, fd, ...place) =>
    mmap.call(kernel, length, prot, flags, fd === 0 ? memfd : fd, ...place);
  Mapping.ofMemfd(kernel, 0, UNIT).close();
  expect(closed).toEqual([0]);
  (() => Mapping.ofMemfd(kernel, 0, UNIT).hva)();
  await collected(() => unmapped.length > 1);
  expect(closed).toEqual([0, 0]);
});

describe('a mapping that is closed', () => {
  it('is unmapped once, and its memfd closed once', () => {
    const memfd = kvm.mapMemfd(UNIT);
    const { fd } = memfd;
    expect(fd).toBeGreaterThanOrEqual(0);
    memfd.close();
    memfd.close();
    expect([closed, unmapped]).toEqual([[fd], [memfd.hva]]);
    expect([memfd.fd, memfd.closed]).toEqual([-1, true]);
  });

  it('has nothing to be read or written, even where another mapping has its addresses now', () => {
    const mapping = kvm.mapAnonymous(UNIT);
    // By copies from here on.
    mapping.protect(0, UNIT, PROT.READ);
    mapping.close();
    let copies = 0;
    kernel.readMemory = kernel.writeMemory = (_hva, bytes) => {
      copies++;
      return bytes.length;
    };
    expect([mapping.read(0, new Uint8Array(8)), mapping.write(0, new Uint8Array(8)), copies]).toEqual([0, 0, 0]);
    expect(() => mapping.pin()).toThrow(expect.objectContaining({ code: 'EBADF', syscall: 'mmap' }));
    expect(() => mapping.giveArray(0, 8)).toThrow(expect.objectContaining({ code: 'EBADF', syscall: 'vmap' }));
  });

  it('has no descriptor to be closed if it is no memfd', () => {
    const mapping = kvm.mapAnonymous(UNIT);
    expect(mapping.fd).toBe(-1);
    mapping.close();
    expect([closed, unmapped]).toEqual([[], [mapping.hva]]);
  });

  it('is so at the end of a block that uses it', () => {
    let mapping: Mapping;
    {
      using used = kvm.mapAnonymous(UNIT);
      mapping = used;
      expect(mapping.closed).toBe(false);
    }
    expect([mapping.closed, unmapped]).toEqual([true, [mapping.hva]]);
  });

  it('stays mapped while a region shows it, and is found by its address until then', () => {
    using space = new AddressSpace({ littleEndian: true, pageSize: PAGE });
    const mapping = kvm.mapAnonymous(UNIT);
    const region = space.addRam(0, mapping);
    mapping.close();
    expect(unmapped).toEqual([]);
    expect(Mapping.containing(kernel, mapping.hva, UNIT)).toBe(mapping);
    expect(() => space.addRam(UNIT, mapping)).toThrow(expect.objectContaining({ code: 'EBADF' }));
    region.remove();
    expect(unmapped).toEqual([mapping.hva]);
    expect(Mapping.containing(kernel, mapping.hva, 1)).toBeUndefined();
  });
});

it('who shows a mapping several times is told once of what changes, until the last of them is gone', () => {
  using mapping = kvm.mapAnonymous(UNIT);
  const told: unknown[] = [];
  const holder = {
    dropViews: () => {},
    memoryChanged: (of: Mapping, offset: number, length: number) => void told.push([of === mapping, offset, length]),
  };
  mapping.pin(holder);
  mapping.pin(holder);
  mapping.discard(PAGE, PAGE);
  expect(told).toEqual([[true, PAGE, PAGE]]);
  // What only says how it will be used changes nothing.
  for (const advice of [MADV.WILLNEED, MADV.POPULATE_WRITE, MADV.POPULATE_READ]) mapping.advise(advice);
  expect(told).toHaveLength(1);
  mapping.advise(MADV.DONTNEED, 0, PAGE);
  mapping.write(5, Uint8Array.of(1, 2));
  expect(told.slice(1)).toEqual([
    [true, 0, PAGE],
    [true, 5, 2],
  ]);
  mapping.unpin(holder);
  mapping.unpin(holder);
  expect(mapping.pins).toBe(0);
});

describe('a mapping that is looked for', () => {
  it('has the whole range inside it', () => {
    const { hva } = kvm.mapAnonymous(UNIT);
    const found = (at: number, size: number) => Mapping.containing(kernel, at, size)?.hva;
    expect(found(hva, UNIT)).toBe(hva);
    expect(found(hva + UNIT - 1, 1)).toBe(hva);
    expect(found(hva + PAGE, UNIT - PAGE)).toBe(hva);
    expect(found(hva - 1, 1)).toBeUndefined();
    expect(found(hva, UNIT + 1)).toBeUndefined();
    expect(found(hva + UNIT, 1)).toBeUndefined();
  });
});

describe('memory of more than one window of 1 GiB', () => {
  it('is read and written over their seam', () => {
    using mapping = kvm.mapAnonymous(GIB + UNIT);
    const bytes = Uint8Array.from({ length: 64 }, (_, i) => i + 1);
    expect(mapping.write(GIB - 30, bytes)).toBe(64);
    expect([byteAt(mapping, GIB - 1), byteAt(mapping, GIB)]).toEqual([30, 31]);
    const into = new Uint8Array(64);
    expect(mapping.read(GIB - 30, into)).toBe(64);
    expect(into).toEqual(bytes);
    // No more than what is left of it, however many bytes there would be.
    const many = new Uint8Array(UNIT + 64).fill(3);
    expect([mapping.write(GIB - 4, many), mapping.read(GIB - 4, many)]).toEqual([UNIT + 4, UNIT + 4]);
    expect([byteAt(mapping, GIB - 5), byteAt(mapping, GIB - 4), byteAt(mapping, GIB + UNIT - 1)]).toEqual([26, 3, 3]);
    expect(mapping.write(GIB - 30, bytes)).toBe(64);
    expect(mapping.view(0)).toHaveLength(GIB);
    expect(mapping.view(1)).toHaveLength(UNIT);
    expect(mapping.view(2)).toBeUndefined();
    using space = new AddressSpace({ littleEndian: true, pageSize: PAGE });
    space.addRam(0, mapping);
    expect(space.readU32(GIB - 2)).toBe(0x201f_1e1d - 0x0000_0000);
    expect([...space.slices(GIB - 4, 8)].map((piece) => [...piece])).toEqual([
      [27, 28, 29, 30],
      [31, 32, 33, 34],
    ]);
    space.writeU8(GIB + 5, 0x77);
    expect(byteAt(mapping, GIB + 5)).toBe(0x77);
  });
});

it('a window is asked for once, and what refuses it is told', () => {
  using mapping = kvm.mapAnonymous(UNIT);
  let asked = 0;
  const { window } = kernel;
  kernel.window = (hva, length) => {
    asked++;
    return window.call(kernel, hva, length);
  };
  expect(mapping.window(0)).toBe(mapping.window(0));
  expect(asked).toBe(1);
  using whole = kvm.mapAnonymous(GIB);
  expect([whole.window(0)?.length, whole.window(1), asked]).toEqual([GIB, undefined, 2]);
  kernel.window = () => -ERRNO.ENOMEM;
  const refused = expect.objectContaining({ code: 'ENOMEM', syscall: 'window', size: UNIT });
  expect(() => kvm.mapAnonymous(UNIT).window(0)).toThrow(refused);
});

it('a view is made once, and who asks again gets the same', () => {
  using mapping = kvm.mapAnonymous(UNIT);
  let asked = 0;
  const { view } = kernel;
  const counted = (hva: number, length: number) => {
    asked++;
    return view.call(kernel, hva, length);
  };
  kernel.view = () => -ERRNO.ENOMEM;
  expect(() => mapping.view(0)).toThrow(expect.objectContaining({ code: 'ENOMEM', syscall: 'view', size: UNIT }));
  kernel.view = counted;
  const first = mapping.view(0);
  expect(mapping.view(0) === first).toBe(true);
  expect(asked).toBe(1);
});

it('an array is taken back from a mapping that is seen in parts only, and what was in it is there', () => {
  // Its second window would be larger than it.
  const fd = kernel.memfdCreate('memory', 2 * GIB, 0);
  using mapping = Mapping.ofMemfd(kernel, fd, GIB + UNIT);
  expect([mapping.window(0)?.length, mapping.window(1)]).toEqual([GIB, undefined]);
  const bytes = mapping.giveArray(8, 4)!;
  bytes.fill(7);
  mapping.takeArray(bytes);
  expect([bytes.length, byteAt(mapping, 8), byteAt(mapping, 12)]).toEqual([0, 7, 0]);
  mapping.write(GIB + 8, Uint8Array.of(9));
  expect(byteAt(mapping, GIB + 8)).toBe(9);
});

it('an array is taken back also where memory was looked at that is guarded', () => {
  using mapping = kvm.mapAnonymous(UNIT);
  kernel.window = () => -ERRNO.EACCES;
  expect(mapping.window(0)).toBeUndefined();
  const given = mapping.giveArray;
  kernel.vmap = (_hva, length) => new Uint8Array(length);
  const taken: number[] = [];
  kernel.vunmap = (bytes) => taken.push(bytes.length);
  mapping.takeArray(given.call(mapping, 0, 8)!);
  expect(taken).toEqual([8]);
});

it('an array that the kernel can not give is an error, and none where memory is guarded', () => {
  using mapping = kvm.mapAnonymous(UNIT);
  expect(mapping.giveArray(PAGE, 8)).toHaveLength(8);
  kernel.vmap = () => -ERRNO.ENOMEM;
  expect(() => mapping.giveArray(PAGE, 8)).toThrow(
    expect.objectContaining({ code: 'ENOMEM', syscall: 'vmap', size: 8 }),
  );
  kernel.vmap = () => -ERRNO.EACCES;
  expect(mapping.giveArray(PAGE, 8)).toBeUndefined();
});

describe('a part of a mapping', () => {
  it('that was unmapped has nothing to read, and ends what is read before it', () => {
    using mapping = kvm.mapAnonymous(4 * PAGE);
    mapping.write(0, new Uint8Array(4 * PAGE).fill(7));
    mapping.unmapPart(2 * PAGE, PAGE);
    expect(mapping.read(PAGE, new Uint8Array(2 * PAGE))).toBe(PAGE);
    expect(mapping.write(PAGE, new Uint8Array(2 * PAGE))).toBe(PAGE);
    expect(mapping.read(2 * PAGE, new Uint8Array(1))).toBe(0);
    expect(byteAt(mapping, 3 * PAGE)).toBe(7);
  });

  it.each([
    ['anonymous', 0],
    ['memfd', 0],
  ])('of %s memory reads as zeros when it was given back', (kind) => {
    using mapping = kind === 'memfd' ? kvm.mapMemfd(4 * PAGE) : kvm.mapAnonymous(4 * PAGE);
    mapping.write(0, new Uint8Array(4 * PAGE).fill(7));
    mapping.discard(PAGE, PAGE);
    expect([0, 1, 2, 3].map((page) => byteAt(mapping, page * PAGE))).toEqual([7, 0, 7, 7]);
    mapping.discard(2 * PAGE);
    expect([0, 1, 2, 3].map((page) => byteAt(mapping, page * PAGE))).toEqual([7, 0, 0, 0]);
    mapping.discard();
    expect(byteAt(mapping, 0)).toBe(0);
  });

  it('of a memfd keeps what was written when only this view of it is given back', () => {
    using mapping = kvm.mapMemfd(2 * PAGE);
    mapping.write(0, Uint8Array.of(7));
    mapping.advise(MADV.DONTNEED);
    expect(byteAt(mapping, 0)).toBe(7);
  });

  it('that the kernel refuses to change is so for a reason that only two errors have', () => {
    using mapping = kvm.mapAnonymous(4 * PAGE);
    const why = (errno: number): string | undefined => {
      kernel.mprotect = () => errno;
      try {
        mapping.protect(PAGE, PAGE, PROT.READ);
      } catch (error) {
        return (error as { explanation?: string }).explanation;
      }
      return 'it is changed';
    };
    expect(why(-ERRNO.EBUSY)).toMatch(
      /^a slice of the memory was handed out .*: protect memory before slices are made/,
    );
    expect(why(-ERRNO.EINVAL)).toMatch(/must be multiples of the page size 0x1000/);
    for (const errno of [ERRNO.ENOMEM, ERRNO.EACCES, ERRNO.EPERM]) expect(why(-errno)).toBeUndefined();
  });

  it('can be read and not written, or neither, as it was protected', () => {
    using mapping = kvm.mapAnonymous(4 * PAGE);
    expect(mapping.read(0, new Uint8Array(1))).toBe(1);
    mapping.protect(PAGE, PAGE, PROT.READ);
    mapping.protect(2 * PAGE, PAGE, PROT.NONE);
    expect(mapping.view(0)).toBeUndefined();
    expect([0, 1, 2, 3].map((page) => mapping.write(page * PAGE, Uint8Array.of(9)))).toEqual([1, 0, 0, 1]);
    expect([0, 1, 2, 3].map((page) => byteAt(mapping, page * PAGE))).toEqual([9, 0, -1, 9]);
  });
});

describe('what a mapping is made of', () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-mapping-'));
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  it('sizes are rounded up to whole pages', () => {
    expect(kvm.mapAnonymous(1).size).toBe(PAGE);
    expect(kvm.mapAnonymous(PAGE).size).toBe(PAGE);
    expect(kvm.mapMemfd(PAGE + 1).size).toBe(2 * PAGE);
  });

  it('the largest that is a number of bytes is asked of the kernel, and one that rounds to more is none', () => {
    const asked: number[] = [];
    kernel.mmap = (length) => {
      asked.push(Number(length));
      return -ERRNO.ENOMEM;
    };
    const largest = 2 ** 53 - PAGE;
    for (const size of [largest, largest - 1, largest - PAGE]) {
      expect(() => kvm.mapAnonymous(size)).toThrow(expect.objectContaining({ code: 'ENOMEM' }));
    }
    expect(asked).toEqual([largest, largest, largest - PAGE]);
    expect(() => kvm.mapAnonymous(largest + 1)).toThrow(/"size" is out of range/);
    expect(() => kvm.mapAnonymous(-1)).toThrow(/"size" is out of range/);
    expect(asked).toHaveLength(3);
  });

  it('nothing is mapped of no size, and the error says so', () => {
    for (const map of [() => kvm.mapAnonymous(0), () => kvm.mapMemfd(0)]) {
      expect(map).toThrow(
        expect.objectContaining({ code: 'EINVAL', size: 0, explanation: 'the size is 0: there is nothing to map' }),
      );
    }
    // The descriptor isn't kept.
    expect(closed).toHaveLength(1);
  });

  it('an alignment that is none is named', () => {
    expect(() => kvm.mapAnonymous(UNIT, { align: 3 * PAGE })).toThrow(
      expect.objectContaining({
        code: 'EINVAL',
        explanation:
          'align 0x3000 is not 0 or a power of two of at least a page, or alignOffset 0x0 is not whole pages',
      }),
    );
    const { hva } = kvm.mapAnonymous(UNIT, { align: UNIT, alignOffset: PAGE });
    expect(hva % UNIT).toBe(PAGE);
    expect(kvm.mapAnonymous(UNIT, { align: UNIT, alignOffset: 3 * UNIT + PAGE }).hva % UNIT).toBe(PAGE);
    // What is wrong with the place in the file is said only of that.
    const path = join(folder, 'file');
    writeFileSync(path, new Uint8Array(4 * PAGE));
    expect(() => kvm.mapFile(path, { offset: PAGE, align: 3 * PAGE })).toThrow(
      expect.objectContaining({ code: 'EINVAL', explanation: expect.stringMatching(/^align 0x3000 is not 0/) }),
    );
    // Huge pages of 2 MiB want their alignment.
    expect(kvm.mapAnonymous(2 * UNIT).hva % (2 * UNIT)).toBe(0);
  });

  it.each([
    ['x86_64', 0],
    // Every slot's address is a multiple of 1 MiB there.
    ['s390x', UNIT],
  ] as const)('what is smaller than a huge page is aligned as memslots of %s must be', (arch, alignment) => {
    const own = new EmulatedKernel({ arch });
    const asked: number[] = [];
    const { mmap } = own;
    own.mmap = (length, prot, flags, fd, offset, align, alignOffset) => {
      expect(fd).toBe(-1);
      asked.push(Number(align));
      return mmap.call(own, length, prot, flags, fd, offset, align, alignOffset);
    };
    for (const size of [PAGE, 2 * UNIT - PAGE, 2 * UNIT, 3 * UNIT]) Mapping.anonymous(own, size).close();
    expect(asked).toEqual([alignment, alignment, 2 * UNIT, 2 * UNIT]);
  });

  it('a file that is opened by its path is closed again, whether it could be mapped or not', () => {
    const path = join(folder, 'file');
    writeFileSync(path, new Uint8Array(PAGE));
    const open = () => readdirSync('/proc/self/fd').length;
    const before = open();
    for (let i = 0; i < 3; i++) {
      kvm.mapFile(path).close();
      expect(() => kvm.mapFile(path, { offset: 8 })).toThrow(expect.objectContaining({ code: 'EINVAL' }));
    }
    expect(open()).toBe(before);
  });

  it('a file is mapped from an offset of whole pages, to its end unless a size is given', () => {
    const path = join(folder, 'file');
    writeFileSync(path, new Uint8Array(4 * PAGE).fill(1).fill(2, PAGE, 2 * PAGE));
    expect(kvm.mapFile(path).size).toBe(4 * PAGE);
    const second = kvm.mapFile(path, { offset: PAGE });
    expect([second.size, byteAt(second, 0), byteAt(second, PAGE)]).toEqual([3 * PAGE, 2, 1]);
    expect(kvm.mapFile(path, { offset: PAGE, size: PAGE }).size).toBe(PAGE);
    expect(() => kvm.mapFile(path, { offset: 0x800 })).toThrow(
      expect.objectContaining({
        code: 'EINVAL',
        explanation: 'offset 0x800 in the file is not a multiple of the page size, 0x1000',
      }),
    );
    const fd = openSync(path, 'r+');
    const byDescriptor = kvm.mapFile(fd);
    closeSync(fd);
    byDescriptor.write(0, Uint8Array.of(9));
    expect(byteAt(kvm.mapFile(path), 0)).toBe(9);
    const own = kvm.mapFile(path, { shared: false });
    own.write(0, Uint8Array.of(5));
    expect([byteAt(own, 0), byteAt(byDescriptor, 0)]).toEqual([5, 9]);
    expect(() => kvm.mapFile(join(folder, 'none'))).toThrow(expect.objectContaining({ code: 'ENOENT' }));
  });

  it('a new memfd may be descriptor 0', () => {
    const memfd = kernel.memfdCreate('memory', UNIT, 0);
    const { mmap } = kernel;
    kernel.memfdCreate = () => 0;
    kernel.mmap = (length, prot, flags, fd, ...place) =>
      mmap.call(kernel, length, prot, flags, fd === 0 ? memfd : fd, ...place);
    expect(kvm.mapMemfd(UNIT).fd).toBe(0);
  });

  it('a memfd that the kernel does not make is an error with its size', () => {
    kernel.memfdCreate = () => -ERRNO.EMFILE;
    expect(() => kvm.mapMemfd(UNIT + 1)).toThrow(
      expect.objectContaining({ code: 'EMFILE', syscall: 'memfd_create', size: UNIT + PAGE }),
    );
    expect(closed).toEqual([]);
  });

  it('a descriptor that was given is closed when it can not be mapped', () => {
    const fd = kernel.memfdCreate('given', UNIT, 0);
    kernel.mmap = () => -ERRNO.ENOMEM;
    expect(() => Mapping.ofMemfd(kernel, fd, UNIT)).toThrow(expect.objectContaining({ code: 'ENOMEM', size: UNIT }));
    expect(closed).toEqual([fd]);
  });

  it('what is no file has no descriptor', () => {
    const descriptors: number[] = [];
    kernel.mmap = (_length, _prot, _flags, fd) => {
      descriptors.push(fd);
      return -ERRNO.ENOMEM;
    };
    for (const map of [() => kvm.mapAnonymous(UNIT), () => kvm.mapHugetlb(2 * UNIT), () => kvm.reserve(UNIT)])
      expect(map).toThrow(expect.objectContaining({ code: 'ENOMEM' }));
    expect(descriptors).toEqual([-1, -1, -1]);
  });

  it('huge pages that there are not say how to have them', () => {
    kernel.mmap = () => -ERRNO.ENOMEM;
    const why = (map: () => unknown): string | undefined => {
      try {
        map();
      } catch (error) {
        return (error as { explanation?: string }).explanation;
      }
      return 'mapped';
    };
    expect(why(() => kvm.mapHugetlb(4 * UNIT))).toBe(
      'the pool of huge pages has no 4 MiB left (the file /proc/meminfo tells; sysctl vm.nr_hugepages=N enlarges it)',
    );
    expect(why(() => kvm.mapAnonymous(4 * UNIT))).toBeUndefined();
  });

  it('a device is one, and a descriptor is none below 0', () => {
    const path = join(folder, 'device');
    writeFileSync(path, new Uint8Array(PAGE));
    const fd = openSync(path, 'r+');
    expect(kvm.mapDevice(fd, { size: PAGE }).kind).toBe('device');
    closeSync(fd);
    expect(() => kvm.mapDevice(-1, { size: PAGE })).toThrow('"fd"');
    expect(() => Mapping.ofMemfd(kernel, -1, PAGE)).toThrow('"fd"');
    expect(() => kvm.mapAnonymous(PAGE, { align: -1 })).toThrow('"options.align"');
  });

  it('a memfd has the name that it was given, or guest', () => {
    const names: unknown[] = [];
    const { memfdCreate } = kernel;
    kernel.memfdCreate = (name, ...rest) => {
      names.push(name);
      return memfdCreate.call(kernel, name, ...rest);
    };
    kvm.mapMemfd(PAGE).close();
    kvm.mapMemfd(PAGE, { name: 'video' }).close();
    expect(names).toEqual(['guest', 'video']);
  });

  it('a name has no NUL', () => {
    expect(() => kvm.mapMemfd(PAGE, { name: 'a\0b' })).toThrow(/"options.name".*a string without NUL/);
  });
});
