import { setTimeout } from 'node:timers/promises';
import { inspect } from 'node:util';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { Kvm, MADV, PageFaults, TrackedWrites } from '../../../lib/index.ts';
import { EmulatedKernel, ERRNO, POLL, UFFD_FEATURE } from '../../../lib/raw.ts';
import { refusalOf } from './refusal.ts';

const PAGE = 4096;

type Uffd = NonNullable<EmulatedKernel['uffd']>;

let kernel: EmulatedKernel;
let kvm: Kvm;
let uffd: Uffd;
/** What each of the kernel's next calls answers instead, by its name: one after the other. */
let answers: Partial<Record<keyof Uffd, number[]>>;
let asked: string[];

beforeEach(() => {
  const made = new EmulatedKernel({ arch: 'x86_64' });
  kernel = made;
  uffd = made.uffd!;
  [answers, asked] = [{}, []];
  for (const name of [
    'userfaultfd',
    'uffdApi',
    'uffdRegister',
    'uffdCopy',
    'uffdZeropage',
    'uffdWriteprotect',
    'pagemapScan',
  ] as const) {
    const real = uffd[name].bind(uffd) as (...args: never[]) => number;
    (uffd as unknown as Record<string, unknown>)[name] = (...args: never[]) => {
      asked.push(name);
      return answers[name]?.shift() ?? real(...args);
    };
  }
  // The collector closes what was dropped later, in the next test: of the kernel that it was of.
  const close = made.close.bind(made);
  made.close = (fd) => {
    if (kernel === made) asked.push('close');
    return close(fd);
  };
  kvm = Kvm.open({ calls: kernel });
});

describe('a userfaultfd that there is not', () => {
  it.each([
    ['EPERM', /this user may not open \/dev\/userfaultfd.*setfacl.*sysctl vm.unprivileged_userfaultfd=1/],
    ['EACCES', /this user may not open \/dev\/userfaultfd/],
    ['ENOSYS', /^this kernel was built without CONFIG_USERFAULTFD$/],
  ] as const)('is %s, with what would help', (code, explanation) => {
    answers = { userfaultfd: [-ERRNO[code], -ERRNO[code]] };
    const ram = kvm.mapAnonymous(4 * PAGE);
    for (const use of [() => new TrackedWrites(ram), () => new PageFaults(ram, { missing: () => null })]) {
      const error = refusalOf(use);
      expect(error.code).toBe(code);
      expect(error.explanation).toMatch(explanation);
    }
    expect(ram.pins).toBe(0);
  });

  it('has the explanation of the error, where that has one', () => {
    answers = { userfaultfd: [-ERRNO.EMFILE, -ERRNO.ENOMEM] };
    const error = refusalOf(() => new TrackedWrites(kvm.mapAnonymous(PAGE)));
    expect([error.code, error.explanation]).toEqual(['EMFILE', expect.stringContaining('ulimit -n')]);
    const other = refusalOf(() => new TrackedWrites(kvm.mapAnonymous(PAGE)));
    expect([other.code, other.explanation]).toEqual(['ENOMEM', undefined]);
  });

  it('lacks a feature, which is named with the kernel that has it, and the descriptor is closed', () => {
    answers = { uffdApi: [-ERRNO.EINVAL, -ERRNO.EINVAL, -ERRNO.EPERM] };
    const error = refusalOf(() => new TrackedWrites(kvm.mapAnonymous(PAGE)));
    expect([error.code, error.syscall]).toEqual(['EINVAL', 'ioctl(UFFDIO_API)']);
    expect(error.explanation).toMatch(
      /^WP_ASYNC needs Linux 6\.7 or later on x86_64, 6\.10 or later on aarch64; this is .* on x86_64$/,
    );
    expect(asked).toEqual(['userfaultfd', 'uffdApi', 'close']);
    const ofMemfd = refusalOf(() => new PageFaults(kvm.mapMemfd(PAGE), { missing: () => null, store: () => {} }));
    expect(ofMemfd.explanation).toMatch(
      /^protected pages need Linux 5\.7 .*; those of shared memory 5\.19; missing pages of shared memory need Linux 4\.11/,
    );
    expect(refusalOf(() => new TrackedWrites(kvm.mapAnonymous(PAGE))).explanation).toBeUndefined();
  });
});

describe('what is asked of a userfaultfd', () => {
  const missing = () => null;
  const store = () => {};
  const WP = UFFD_FEATURE.PAGEFAULT_FLAG_WP;
  it.each([
    ['missing pages', 'mapAnonymous', { missing }, 0, 1],
    ['missing pages', 'mapMemfd', { missing }, UFFD_FEATURE.MISSING_SHMEM, 1],
    // Pages that were never touched are told of where nobody brings them.
    ['stores', 'mapAnonymous', { store }, WP | UFFD_FEATURE.WP_UNPOPULATED, 2],
    ['stores', 'mapMemfd', { store }, WP | UFFD_FEATURE.WP_HUGETLBFS_SHMEM | UFFD_FEATURE.WP_UNPOPULATED, 2],
    ['both', 'mapAnonymous', { missing, store }, WP, 3],
    ['both', 'mapMemfd', { missing, store }, WP | UFFD_FEATURE.WP_HUGETLBFS_SHMEM | UFFD_FEATURE.MISSING_SHMEM, 3],
  ] as const)('for %s of %s are the features and the mode that it takes', (_, map, handlers, features, mode) => {
    const { uffdApi, uffdRegister } = uffd;
    const got: unknown[] = [];
    uffd.uffdApi = (fd, agreed) => {
      got.push(Number(agreed[0]));
      return uffdApi(fd, agreed);
    };
    uffd.uffdRegister = (fd, hva, size, wanted) => {
      got.push([hva, size, wanted]);
      return uffdRegister(fd, hva, size, wanted);
    };
    const ram = kvm[map](4 * PAGE);
    new PageFaults(ram, handlers).close();
    expect(got).toEqual([features, [ram.hva, 4 * PAGE, mode]]);
  });

  it.each([
    [{ missing: 5 }, 'handlers.missing'],
    [{ store: 5 }, 'handlers.store'],
    [{ missing, onError: 5 }, 'handlers.onError'],
    [{}, 'handlers" argument must be an object with missing, store or both'],
  ])('%o is refused by its name', (handlers, name) => {
    const wrong = handlers as unknown as ConstructorParameters<typeof PageFaults>[1];
    expect(() => new PageFaults(kvm.mapAnonymous(PAGE), wrong)).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_ARG_TYPE', message: expect.stringContaining(`"${name}`) }),
    );
    expect(asked).toEqual([]);
  });

  it('is nothing of calls that have none', () => {
    Object.defineProperty(kernel, 'uffd', { value: undefined });
    const error = refusalOf(() => new TrackedWrites(kvm.mapAnonymous(PAGE)));
    expect(error).toMatchObject({ code: 'ENOSYS', syscall: 'userfaultfd' });
    expect(error.explanation).toBe('the emulated kernel has no userfaultfd');
  });
});

describe('faults that are told', () => {
  /** As `struct uffd_msg` on x86_64. */
  const message = (event: number, flags: number, address: number): Uint8Array => {
    const view = new DataView(new ArrayBuffer(32));
    view.setUint8(0, event);
    view.setBigUint64(8, BigInt(flags), true);
    view.setBigUint64(16, BigInt(address), true);
    return new Uint8Array(view.buffer);
  };
  const [FAULT, REMOVE] = [0x12, 0x15];
  /** Has the kernel give these one after the other, an errno or messages, and nothing more then. */
  const tell = (...told: (number | Uint8Array[])[]): void => {
    const [read, poll] = [kernel.read.bind(kernel), kernel.poll.bind(kernel)];
    kernel.poll = (...args) => (told.length > 0 ? Promise.resolve(POLL.IN) : poll(...args));
    kernel.read = (fd, into) => {
      const next = told.shift();
      if (next === undefined || typeof next === 'number') return next ?? read(fd, into);
      for (const [i, bytes] of next.entries()) into.set(bytes, 32 * i);
      return 32 * next.length;
    };
  };

  it('are each of a page and an access; other events, and one that is over, are none', async () => {
    const ram = kvm.mapAnonymous(4 * PAGE);
    const missing: object[] = [];
    const stores: object[] = [];
    tell(
      -ERRNO.EAGAIN,
      [message(FAULT, 0, ram.hva + 5), message(REMOVE, 0, ram.hva), message(FAULT, 1, ram.hva + PAGE)],
      // Less than before: what was read then is behind it.
      [message(FAULT, 3, ram.hva + 2 * PAGE + 8)],
      Array.from({ length: 16 }, () => message(REMOVE, 0, ram.hva)),
      [message(FAULT, 0, ram.hva + 3 * PAGE)],
    );
    using _ = new PageFaults(ram, {
      missing: (page) => {
        missing.push(page);
        return null;
      },
      store: (page) => void stores.push(page),
    });
    await setTimeout(20);
    expect(missing).toEqual([
      { offset: 0, write: false },
      { offset: PAGE, write: true },
      { offset: 3 * PAGE, write: false },
    ]);
    expect(stores).toEqual([{ offset: 2 * PAGE, write: true }]);
  });

  it('are asked for once while the answer is awaited, and again afterwards', async () => {
    const ram = kvm.mapAnonymous(4 * PAGE);
    const asked: number[] = [];
    const answers: (() => void)[] = [];
    tell([message(FAULT, 0, ram.hva), message(FAULT, 0, ram.hva)], [message(FAULT, 1, ram.hva + 8)]);
    using _ = new PageFaults(ram, {
      missing: ({ offset }) => {
        asked.push(offset);
        return new Promise((resolve) => answers.push(() => resolve(null)));
      },
    });
    await setTimeout(20);
    expect(asked).toEqual([0]);
    answers[0]!();
    await setTimeout(5);
    ram.discard(0, PAGE);
    tell([message(FAULT, 1, ram.hva)]);
    // Somebody reads it, which this kernel tells in its own way as well.
    expect(() => ram.read(0, new Uint8Array(1))).toThrow(expect.objectContaining({ code: 'EDEADLK' }));
    expect(asked).toEqual([0, 0]);
  });

  it('end with what went wrong, as an exception that nobody can catch, unless they were closed', async () => {
    const thrown = vi.spyOn(globalThis, 'queueMicrotask').mockImplementation(() => {});
    try {
      tell(-ERRNO.EIO);
      using _ = new PageFaults(kvm.mapAnonymous(PAGE), { missing: () => null });
      await setTimeout(20);
      expect(thrown).toHaveBeenCalledTimes(1);
      expect(thrown.mock.calls[0]![0]).toThrow(expect.objectContaining({ code: 'EIO', syscall: 'read' }));
      thrown.mockClear();
      // What a handler throws for somebody else is one, too, where nobody asked to hear of it.
      const ram = kvm.mapAnonymous(PAGE);
      tell([message(FAULT, 0, ram.hva)]);
      using __ = new PageFaults(ram, {
        missing: () => {
          throw new Error('there is no such page');
        },
      });
      await setTimeout(20);
      expect(thrown).toHaveBeenCalledTimes(1);
      expect(thrown.mock.calls[0]![0]).toThrow('there is no such page');
      thrown.mockClear();
      new PageFaults(kvm.mapAnonymous(PAGE), { missing: () => null }).close();
      await setTimeout(20);
      expect(thrown).not.toHaveBeenCalled();
    } finally {
      thrown.mockRestore();
    }
  });
});

describe('memory that can not be registered', () => {
  it.each([
    ['EBUSY', 'writes', /^another userfaultfd has this memory$/],
    ['EBUSY', 'faults', /^another userfaultfd has this memory, or a slice of it was handed out/],
    ['EINVAL', 'writes', /^the kernel can't do that for anonymous memory, or parts of it were unmapped or protected$/],
    ['ENOMEM', 'writes', undefined],
  ] as const)('is %s for %s, and the descriptor is closed', (code, use, explanation) => {
    answers = { uffdRegister: [-ERRNO[code]] };
    const ram = kvm.mapAnonymous(4 * PAGE);
    const error = refusalOf(() =>
      use === 'writes' ? new TrackedWrites(ram) : new PageFaults(ram, { missing: () => null }),
    );
    expect([error.code, error.size, error.syscall]).toEqual([code, 4 * PAGE, 'ioctl(UFFDIO_REGISTER)']);
    if (explanation === undefined) expect(error.explanation).toBeUndefined();
    else expect(error.explanation).toMatch(explanation);
    expect(asked.at(-1)).toBe('close');
    expect(ram.pins).toBe(0);
  });

  it('is a reservation, for tracking writes too', () => {
    const error = refusalOf(() => new TrackedWrites(kvm.reserve(4 * PAGE)));
    expect([error.code, error.explanation]).toEqual([
      'EINVAL',
      'this is a reservation, in which memory comes and goes: map memory by itself',
    ]);
    const faults = refusalOf(() => new PageFaults(kvm.reserve(4 * PAGE), { store: () => {} }));
    expect(faults.explanation).toBe('handlers are for anonymous memory and memfds, and this mapping is reservation');
  });

  it('is not protected, and nothing is tracked then', () => {
    answers = { uffdWriteprotect: [-ERRNO.ENOMEM] };
    const ram = kvm.mapAnonymous(PAGE);
    const error = refusalOf(() => new TrackedWrites(ram));
    expect([error.code, error.syscall]).toEqual(['ENOMEM', 'ioctl(UFFDIO_WRITEPROTECT)']);
    expect([asked.at(-1), ram.pins]).toEqual(['close', 0]);
  });
});

describe('pages that are brought', () => {
  it('are tried again while the page tables are changed, and not for ever', () => {
    const ram = kvm.mapAnonymous(4 * PAGE);
    using faults = new PageFaults(ram, { missing: () => null });
    asked.length = 0;
    answers = { uffdCopy: [-ERRNO.EAGAIN, -ERRNO.EAGAIN], uffdZeropage: [-ERRNO.EAGAIN] };
    expect(faults.copy(0, new Uint8Array(PAGE).fill(7))).toBe(PAGE);
    expect(faults.zero(PAGE, 2 * PAGE)).toBe(2 * PAGE);
    expect(asked).toEqual([...new Array(3).fill('uffdCopy'), 'uffdZeropage', 'uffdZeropage']);
    expect(new Uint8Array(ram.read(0, new Uint8Array(1)))).toHaveLength(1);
    asked.length = 0;
    answers = { uffdCopy: new Array(5000).fill(-ERRNO.EAGAIN) };
    const error = refusalOf(() => faults.copy(3 * PAGE, new Uint8Array(PAGE)));
    expect([error.code, error.syscall, error.size]).toEqual(['EAGAIN', 'ioctl(UFFDIO_COPY)', PAGE]);
    expect(asked).toHaveLength(1000);
  });

  it('that the kernel calls missing and then there are asked for so often, and no more', () => {
    const ram = kvm.mapAnonymous(4 * PAGE);
    let times = 0;
    using _ = new PageFaults(ram, {
      missing: () => {
        times++;
        return null;
      },
    });
    answers = { uffdZeropage: [-ERRNO.EEXIST, -ERRNO.EEXIST] };
    expect(ram.read(0, new Uint8Array(1))).toBe(1);
    expect(times).toBe(3);
    answers = { uffdZeropage: new Array(2000).fill(-ERRNO.EEXIST) };
    expect(refusalOf(() => ram.read(PAGE, new Uint8Array(1)))).toMatchObject({
      code: 'EDEADLK',
      explanation: expect.stringMatching(
        /^the kernel does not say what is missing of the page at 0x1000 of the mapping/,
      ),
    });
    expect(times).toBe(1003);
    // It came meanwhile: nobody is asked again.
    const { uffdZeropage } = uffd;
    answers = {};
    uffd.uffdZeropage = (...args) => {
      uffdZeropage(...args);
      return -ERRNO.EEXIST;
    };
    expect(ram.read(2 * PAGE, new Uint8Array(1))).toBe(1);
    expect(times).toBe(1004);
    // For a store it is there as well.
    expect(ram.write(3 * PAGE, Uint8Array.of(1))).toBe(1);
    expect(times).toBe(1005);
  });

  it('are brought into memory where the kernel says of a handler’s bytes, too, that the page is there', () => {
    const ram = kvm.mapAnonymous(PAGE);
    using _ = new PageFaults(ram, { missing: () => new Uint8Array(PAGE).fill(7) });
    const madvise = kernel.madvise.bind(kernel);
    const advised: unknown[] = [];
    kernel.madvise = (...args) => {
      advised.push(args);
      return madvise(...args);
    };
    answers = { uffdCopy: [-ERRNO.EEXIST, -ERRNO.EEXIST] };
    const bytes = new Uint8Array(1);
    expect([ram.read(0, bytes), bytes[0]]).toEqual([1, 7]);
    expect(advised).toEqual(new Array(2).fill([ram.hva, PAGE, MADV.WILLNEED]));
  });

  it('are not waited for where a kernel moves nothing, and says no more', () => {
    const ram = kvm.mapAnonymous(4 * PAGE);
    using _ = new PageFaults(ram, { missing: () => null });
    let calls = 0;
    kernel.readMemory = () => {
      if (++calls > 10) throw new Error('it is asked without end');
      return 0;
    };
    expect(ram.read(0, new Uint8Array(8))).toBe(0);
  });

  it('are inside the mapping, and the error says how much there is', () => {
    using faults = new PageFaults(kvm.mapAnonymous(4 * PAGE), { missing: () => null });
    expect(() => faults.zero(4 * PAGE + 1, 0)).toThrow(
      /"offset" is out of range. It must be at most 0x4000, the mapping's size/,
    );
    expect(() => faults.zero(3 * PAGE, 2 * PAGE)).toThrow(
      /"length" is out of range. It must be at most 0x1000, from the offset to the mapping's end/,
    );
    expect(() => faults.copy(3 * PAGE, new Uint8Array(2 * PAGE))).toThrow(/"length" is out of range/);
    // Where it ends nothing is left.
    expect(() => faults.zero(4 * PAGE, 1)).toThrow(/"length" is out of range. It must be at most 0x0/);
    expect(refusalOf(() => faults.zero(4 * PAGE, 0)).code).toBe('EINVAL');
    expect(faults.zero(3 * PAGE, PAGE)).toBe(PAGE);
    const unaligned = refusalOf(() => faults.zero(0, 100));
    expect([unaligned.code, unaligned.size]).toEqual(['EINVAL', 100]);
  });

  it('end with the block that uses them, and say whom they serve until then', () => {
    const ram = kvm.mapAnonymous(4 * PAGE);
    let served: PageFaults;
    {
      using faults = new PageFaults(ram, { missing: () => new Uint8Array(3), onError: () => {} });
      served = faults;
      expect(inspect(faults)).toMatch(/ \(serves missing, 0 pages not answered\)$/);
      expect(() => ram.read(0, new Uint8Array(1))).toThrow(
        expect.objectContaining({
          code: 'ERR_INVALID_RETURN_VALUE',
          message: expect.stringContaining(
            'a Uint8Array of 4096 bytes, or null for zeros, to be returned from handlers.missing',
          ),
        }),
      );
    }
    expect([served.closed, ram.pins]).toEqual([true, 0]);
    expect(inspect(served)).toMatch(/ \(closed\)$/);
  });

  it('are what a handler gave, which is no promise only for having something that is called `then`', () => {
    const ram = kvm.mapAnonymous(4 * PAGE);
    const given = [5, undefined, () => {}].map((then) => Object.fromEntries([['then', then]]));
    using faults = new PageFaults(ram, { missing: () => given.shift() as never, store: () => {} });
    expect(inspect(faults)).toMatch(/ \(serves missing and store, 0 pages not answered\)$/);
    const read = () => ram.read(0, new Uint8Array(1));
    for (let i = 0; i < 2; i++) expect(read).toThrow(expect.objectContaining({ code: 'ERR_INVALID_RETURN_VALUE' }));
    expect(refusalOf(read)).toMatchObject({
      code: 'EDEADLK',
      syscall: 'page fault',
      explanation:
        'the handler gave a promise, for which this access cannot wait, of the page at 0x0 of the mapping: only another thread, such as a guest, can wait for that',
    });
    expect(inspect(faults)).toMatch(/ 1 page not answered\)$/);
  });

  it('are none any more once they are closed, and the error says what is', () => {
    const faults = new PageFaults(kvm.mapAnonymous(4 * PAGE), { missing: () => null });
    faults.close();
    for (const call of [
      () => faults.copy(0, new Uint8Array(PAGE)),
      () => faults.zero(0, PAGE),
      () => faults.wake(0, PAGE),
      () => faults.protect(),
    ]) {
      expect(refusalOf(call)).toMatchObject({ code: 'EBADF', explanation: 'the userfaultfd is closed' });
    }
  });

  it('are not protected by a kernel that refuses, whose reason is its own', () => {
    using faults = new PageFaults(kvm.mapAnonymous(4 * PAGE), { missing: () => null, store: () => {} });
    answers = { uffdWriteprotect: [-ERRNO.ENOMEM] };
    const error = refusalOf(() => faults.protect(0, PAGE));
    expect([error.code, error.size, error.explanation]).toEqual(['ENOMEM', PAGE, undefined]);
  });

  it('are not protected where nobody is told of stores', () => {
    using faults = new PageFaults(kvm.mapAnonymous(4 * PAGE), { missing: () => null });
    const error = refusalOf(() => faults.protect(0, PAGE));
    expect([error.size, error.explanation]).toEqual([PAGE, 'there is no handler `store` to tell']);
  });
});

describe('writes that are tracked', () => {
  it('are kept when the kernel does not say, and found by the next look', () => {
    const ram = kvm.mapAnonymous(4 * PAGE);
    using writes = new TrackedWrites(ram);
    ram.write(PAGE, Uint8Array.of(1));
    answers = { pagemapScan: [-ERRNO.ENOMEM] };
    const error = refusalOf(() => writes.collect());
    expect([error.code, error.size]).toEqual(['ENOMEM', 4 * PAGE]);
    expect([...writes.collect().bitmap.subarray(0, 1)]).toEqual([2]);
    expect(writes.collect().count).toBe(0);
  });

  it('that a scan found before it failed are told by the next one', () => {
    const ram = kvm.mapAnonymous(4 * PAGE);
    using writes = new TrackedWrites(ram);
    // By somebody else than this process's own layer.
    kernel.writeMemory(ram.hva, Uint8Array.of(1));
    // As the kernel does when it fails midway: what it passed is tracked anew already.
    const { pagemapScan } = uffd;
    uffd.pagemapScan = (...args) => {
      uffd.pagemapScan = pagemapScan;
      pagemapScan(...args);
      return -ERRNO.ENOMEM;
    };
    expect(refusalOf(() => writes.collect()).code).toBe('ENOMEM');
    ram.write(3 * PAGE, Uint8Array.of(1));
    expect([...writes.collect().bitmap.subarray(0, 1)]).toEqual([0b1001]);
    expect(writes.runs()).toEqual([
      { offset: 0, length: PAGE },
      { offset: 3 * PAGE, length: PAGE },
    ]);
    expect(writes.collect().runs()).toEqual([]);
  });

  it('are given as a copy', () => {
    const ram = kvm.mapAnonymous(4 * PAGE);
    using writes = new TrackedWrites(ram);
    ram.write(0, Uint8Array.of(1));
    const { bitmap } = writes.collect();
    writes.collect();
    expect(bitmap[0]).toBe(1);
    bitmap[0] = 0xff;
    expect(writes.count).toBe(0);
  });

  it('end with the block that uses them', () => {
    const ram = kvm.mapAnonymous(4 * PAGE);
    let tracked: TrackedWrites;
    {
      using writes = new TrackedWrites(ram);
      tracked = writes;
    }
    expect([tracked.closed, ram.pins]).toEqual([true, 0]);
    expect(refusalOf(() => tracked.collect()).explanation).toBe('the tracking of writes is closed');
  });

  it('may be told by descriptor 0, since standard input was closed', () => {
    answers = { userfaultfd: [0], uffdApi: [0], uffdRegister: [0], uffdWriteprotect: [0] };
    const writes = new TrackedWrites(kvm.mapAnonymous(PAGE));
    expect(writes.closed).toBe(false);
    asked = [];
    writes.close();
    expect(asked).toEqual(['close']);
  });

  it('say that they are closed', () => {
    const writes = new TrackedWrites(kvm.mapAnonymous(4 * PAGE));
    expect(inspect(writes)).toBe(`TrackedWrites of ${inspect(writes.mapping)}, 0 pages collected`);
    writes.close();
    expect(inspect(writes)).toMatch(/ \(closed\), 0 pages collected$/);
  });

  it('end once, and can not be collected afterwards', () => {
    const ram = kvm.mapAnonymous(4 * PAGE);
    const writes = new TrackedWrites(ram);
    expect([writes.closed, ram.pins]).toEqual([false, 1]);
    writes.close();
    writes.close();
    expect([writes.closed, ram.pins]).toEqual([true, 0]);
    expect(refusalOf(() => writes.collect())).toMatchObject({ code: 'EBADF' });
  });
});
