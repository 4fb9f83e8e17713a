import { setTimeout } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { load, store } from '../../../lib/emulated/guest.ts';
import { EmulatedKernel, ERRNO, MAP, POLL, PROT } from '../../../lib/raw.ts';
import { requestNumber } from '../../../lib/uapi/requests.ts';
import { UFFD_FEATURE, UFFDIO_COPY_MODE, UFFDIO_REGISTER_MODE } from '../../../lib/uapi/userfaultfd.ts';
import { fd, HUGE, kernel, makeKernels, map, open, PAGE, RW, uffd, useKernel } from './uffd-kernel.ts';

const { MISSING, MINOR, WP } = UFFDIO_REGISTER_MODE;

makeKernels();

const { EAGAIN, EBADF, EBUSY, EDEADLK, EEXIST, EFAULT, EINVAL, ENOENT, ENOTTY, EPERM } = ERRNO;
const CLOSED = 0x7fff_fff0;

describe('a request of a userfaultfd', () => {
  it('is for one that has agreed, and for whole pages of one mapping', () => {
    const hva = map(4 * PAGE);
    const [eventfd, silent] = [kernel.eventfd(0), uffd.userfaultfd(0)];
    const asked = (of: number, at = hva, length = PAGE): number[] => [
      uffd.uffdRegister(of, at, length, MISSING),
      uffd.uffdUnregister(of, at, length),
      uffd.uffdZeropage(of, at, length, 0),
      uffd.uffdCopy(of, at, new Uint8Array(length), 0),
      uffd.uffdWriteprotect(of, at, length, 0),
      uffd.uffdWake(of, at, length),
    ];
    expect(asked(CLOSED)).toEqual(Array(6).fill(-EBADF));
    // That an eventfd is none is found where it is, or by the kernel.
    expect(asked(eventfd)).toEqual([-EINVAL, -EINVAL, -ENOTTY, -ENOTTY, -ENOTTY, -ENOTTY]);
    expect(asked(silent)).toEqual(Array(6).fill(-EINVAL));
    for (const [at, length] of [
      [hva + 8, PAGE],
      [hva, PAGE + 8],
      [hva, 0],
    ] as const)
      expect(asked(fd, at, length)).toEqual(Array(6).fill(-EINVAL));
    expect(asked(fd, hva + 3 * PAGE, 2 * PAGE).slice(0, 2)).toEqual([-EINVAL, -EINVAL]);
    expect(asked(fd, 0x1000)).toEqual([-EINVAL, -EINVAL, -ENOENT, -ENOENT, -ENOENT, 0]);
    const reserved = kernel.mmap(PAGE, PROT.NONE, MAP.PRIVATE | MAP.ANONYMOUS, -1, 0, 0, 0);
    expect(uffd.uffdRegister(fd, reserved, PAGE, MISSING)).toBe(-EINVAL);
    const huge = map(2 * HUGE, MAP.HUGETLB);
    for (const [at, length] of [
      [huge + PAGE, HUGE],
      [huge, HUGE + PAGE],
    ] as const)
      expect([uffd.uffdRegister(fd, at, length, MISSING), uffd.uffdUnregister(fd, at, length)]).toEqual([
        -EINVAL,
        -EINVAL,
      ]);
    expect([uffd.uffdRegister(fd, huge + HUGE, HUGE, MISSING), uffd.uffdUnregister(fd, huge + HUGE, HUGE)]).toEqual([
      0, 0,
    ]);
  });

  it('for pages that may have to be waited for takes views of the memory away', () => {
    const tracking = uffd.userfaultfd(0);
    expect(uffd.uffdApi(tracking, BigUint64Array.of(BigInt(UFFD_FEATURE.WP_ASYNC), 0n))).toBe(0);
    for (const [of, mode, left] of [
      [tracking, WP, PAGE],
      [fd, MISSING, 0],
      [fd, WP, 0],
    ] as const) {
      const hva = map(PAGE);
      const window = kernel.window(hva, PAGE) as ArrayBuffer;
      kernel.writeMemory(hva + 8, Uint8Array.of(7));
      expect([uffd.uffdRegister(of, hva, PAGE, mode), window.byteLength]).toEqual([0, left]);
      const bytes = new Uint8Array(1);
      expect([kernel.readMemory(hva + 8, bytes), bytes[0]]).toEqual([1, 7]);
    }
  });

  it('protects pages that are not there where that was agreed on', () => {
    for (const [features, result] of [
      [0, PAGE],
      [UFFD_FEATURE.WP_UNPOPULATED, -EEXIST],
    ] as const) {
      const protecting = uffd.userfaultfd(0);
      expect(uffd.uffdApi(protecting, BigUint64Array.of(BigInt(features), 0n))).toBe(0);
      const hva = map(PAGE);
      expect(uffd.uffdRegister(protecting, hva, PAGE, MISSING | WP)).toBe(0);
      expect(uffd.uffdWriteprotect(protecting, hva, PAGE, 1)).toBe(0);
      // Zeros are brought where there is nothing, no protection either.
      expect(uffd.uffdZeropage(protecting, hva, PAGE, 0)).toBe(result);
    }
  });

  it('to protect part of a huge page is refused by what it was registered for, then by its size', () => {
    const hva = map(HUGE, MAP.HUGETLB);
    expect(uffd.uffdRegister(fd, hva, HUGE, MISSING)).toBe(0);
    expect(uffd.uffdWriteprotect(fd, hva, PAGE, 1)).toBe(-ENOENT);
    expect(uffd.uffdRegister(fd, hva, HUGE, MISSING | WP)).toBe(0);
    expect([uffd.uffdWriteprotect(fd, hva, PAGE, 1), uffd.uffdWriteprotect(fd, hva, HUGE, 1)]).toEqual([-EINVAL, 0]);
  });

  it('has modes that there are, here', () => {
    const register = (on: EmulatedKernel, mode: number, sharing: number = MAP.PRIVATE): number => {
      const opened = on.uffd!.userfaultfd(0);
      expect(on.uffd!.uffdApi(opened, BigUint64Array.of(0n, 0n))).toBe(0);
      const hva = on.mmap(on.pageSize, RW, sharing | MAP.ANONYMOUS, -1, 0, 0, 0);
      return on.uffd!.uffdRegister(opened, hva, on.pageSize, mode);
    };
    const modes = [0, MISSING, WP, MINOR, 8, MISSING | 16];
    expect(modes.map((mode) => register(kernel, mode))).toEqual([-EINVAL, 0, 0, -EINVAL, -EINVAL, -EINVAL]);
    expect(modes.map((mode) => register(kernel, mode, MAP.SHARED))).toEqual([-EINVAL, 0, 0, 0, -EINVAL, -EINVAL]);
    const s390 = new EmulatedKernel({ arch: 's390x' });
    expect(modes.map((mode) => register(s390, mode, MAP.SHARED))).toEqual([-EINVAL, 0, ...Array(4).fill(-EINVAL)]);
    // Of a mode that is none nobody can be in the way.
    const hva = map(PAGE);
    expect([uffd.uffdRegister(fd, hva, PAGE, MISSING), uffd.uffdRegister(open(), hva, PAGE, 0)]).toEqual([0, -EINVAL]);
    expect(uffd.userfaultfd(1)).toBeGreaterThan(0);
    expect([uffd.userfaultfd(2), uffd.userfaultfd(0x801)]).toEqual([-EINVAL, -EINVAL]);
  });

  it('ends what somebody else has registered before 6.17', () => {
    for (const [release, result, mode] of [
      ['6.16', 0, undefined],
      ['6.17', -EINVAL, -EBUSY],
    ] as const) {
      useKernel({ arch: 'x86_64', release });
      const [first, second] = [open(), open()];
      const hva = map(2 * PAGE);
      expect(uffd.uffdRegister(first, hva, 2 * PAGE, MISSING)).toBe(0);
      expect(uffd.uffdUnregister(second, hva, 2 * PAGE)).toBe(result);
      expect(uffd.uffdRegister(second, hva, PAGE, MISSING)).toBe(mode ?? 0);
    }
  });

  it('protects up to the first page that may not be, and wakes unless it shall not', async () => {
    const hva = map(4 * PAGE);
    for (const page of [0, 1, 2]) kernel.writeMemory(hva + page * PAGE, Uint8Array.of(1));
    expect(uffd.uffdRegister(fd, hva, 2 * PAGE, WP)).toBe(0);
    expect(uffd.uffdWriteprotect(fd, hva + PAGE, 2 * PAGE, 1)).toBe(-ENOENT);
    expect(uffd.uffdWriteprotect(fd, hva + 2 * PAGE, PAGE, 1)).toBe(-ENOENT);
    const writable = (): boolean[] =>
      [0, 1, 2].map((page) => kernel.writeMemory(hva + page * PAGE, Uint8Array.of(2)) === 1);
    expect(writable()).toEqual([true, false, true]);
    const vm = kernel.createVm(kernel.openKvm(), 0);
    expect(kernel.setUserMemoryRegion(vm, 0, 0, 0, 4 * PAGE, hva)).toBe(0);
    const vcpu = kernel.createVcpu(vm, 0);
    kernel.loadGuest(
      vcpu,
      (function* () {
        yield store(PAGE, 1, 7n);
      })(),
    );
    let isDone = false;
    const run = kernel.runAsync(vcpu).finally(() => {
      isDone = true;
    });
    const DONTWAKE = 2;
    expect([uffd.uffdWriteprotect(fd, hva, 2 * PAGE, DONTWAKE), writable()]).toEqual([0, [true, true, true]]);
    await setTimeout(5);
    expect(isDone).toBe(false);
    expect([uffd.uffdWriteprotect(fd, hva, 2 * PAGE, 0), await run]).toEqual([0, 0]);
    for (const mode of [3, 4]) expect(uffd.uffdWriteprotect(fd, hva, PAGE, mode)).toBe(-EINVAL);
  });

  it('brings a page, and wakes unless it shall not', async () => {
    const hva = map(2 * PAGE);
    const vm = kernel.createVm(kernel.openKvm(), 0);
    expect(kernel.setUserMemoryRegion(vm, 0, 0, 0, 2 * PAGE, hva)).toBe(0);
    expect(uffd.uffdRegister(fd, hva, 2 * PAGE, MISSING)).toBe(0);
    const bring = [
      (mode: number) => uffd.uffdCopy(fd, hva, new Uint8Array(PAGE), mode),
      (mode: number) => uffd.uffdZeropage(fd, hva + PAGE, PAGE, mode),
    ];
    for (const [page, put] of bring.entries()) {
      const vcpu = kernel.createVcpu(vm, page);
      kernel.loadGuest(
        vcpu,
        (function* () {
          yield store(page * PAGE, 1, 7n);
        })(),
      );
      let isDone = false;
      const run = kernel.runAsync(vcpu).finally(() => {
        isDone = true;
      });
      await setTimeout(5);
      expect(put(UFFDIO_COPY_MODE.DONTWAKE)).toBe(PAGE);
      await setTimeout(5);
      expect(isDone).toBe(false);
      expect([uffd.uffdWake(fd, hva + page * PAGE, PAGE), await run]).toEqual([0, 0]);
    }
  });

  it('brings pages of one registration, zeros only where nothing is, and takes protection away that it does not give', () => {
    const tracking = uffd.userfaultfd(0);
    expect(uffd.uffdApi(tracking, BigUint64Array.of(BigInt(UFFD_FEATURE.WP_ASYNC), 0n))).toBe(0);
    const hva = map(6 * PAGE);
    expect(uffd.uffdRegister(tracking, hva, 4 * PAGE, WP)).toBe(0);
    expect(uffd.uffdCopy(tracking, hva + 3 * PAGE, new Uint8Array(2 * PAGE), 0)).toBe(-ENOENT);
    expect(uffd.uffdWriteprotect(tracking, hva, 2 * PAGE, 1)).toBe(0);
    const { DONTWAKE } = UFFDIO_COPY_MODE;
    expect([uffd.uffdZeropage(tracking, hva, PAGE, DONTWAKE), uffd.uffdZeropage(tracking, hva, PAGE, 2)]).toEqual([
      -EEXIST,
      -EINVAL,
    ]);
    expect([
      uffd.uffdCopy(tracking, hva, new Uint8Array(PAGE), 4),
      uffd.uffdCopy(tracking, hva, new Uint8Array(PAGE), 0),
    ]).toEqual([-EINVAL, PAGE]);
    const bitmap = new Uint8Array(1);
    expect([uffd.pagemapScan(hva, 4 * PAGE, 0, 0, 2, 0, bitmap), ...bitmap]).toEqual([3, 0b1101]);
    expect(uffd.uffdZeropage(tracking, hva + 2 * PAGE, PAGE, 0)).toBe(PAGE);
  });
});

describe('UFFDIO_API', () => {
  const F = UFFD_FEATURE;
  const OLD =
    F.EVENT_FORK | F.EVENT_REMAP | F.EVENT_REMOVE | F.EVENT_UNMAP | F.MISSING_HUGETLBFS | F.MISSING_SHMEM | F.SIGBUS;
  const MINORS = F.MINOR_HUGETLBFS | F.MINOR_SHMEM;
  const PROTECTION = F.PAGEFAULT_FLAG_WP | F.WP_HUGETLBFS_SHMEM;

  // Stores are told where page table entries have a bit for it: on x86_64, and on aarch64 from 6.10 on.
  it.each([
    ['x86_64', '6.1', MINORS | PROTECTION],
    ['x86_64', '6.6', MINORS | PROTECTION | F.WP_UNPOPULATED | F.POISON],
    ['x86_64', '6.12', MINORS | PROTECTION | F.WP_UNPOPULATED | F.POISON | F.WP_ASYNC | F.MOVE],
    ['aarch64', '6.9', MINORS | F.POISON | F.MOVE],
    ['aarch64', '6.12', MINORS | PROTECTION | F.WP_UNPOPULATED | F.POISON | F.WP_ASYNC | F.MOVE],
    ['s390x', '6.1', 0],
    ['ppc64', '6.12', F.POISON | F.MOVE],
  ] as const)('tells the features that there are: %s, Linux %s', (arch, release, features) => {
    const calls = new EmulatedKernel({ arch, release });
    const api = BigUint64Array.of(0n, 0n);
    expect(calls.uffd!.uffdApi(calls.uffd!.userfaultfd(0), api)).toBe(0);
    // UFFDIO_REGISTER, UFFDIO_UNREGISTER and UFFDIO_API.
    expect([...api]).toEqual([BigInt(OLD | F.THREAD_ID | F.EXACT_ADDRESS | features), 0x8000_0000_0000_0003n]);
  });

  it('is agreed on once, with features that there are, by a userfaultfd', () => {
    const asked = (of: number, features = 0, length = 2): number => {
      const api = new BigUint64Array(length);
      if (length > 0) api[0] = BigInt(features);
      return uffd.uffdApi(of, api);
    };
    const fresh = uffd.userfaultfd(0);
    expect([asked(fresh, 0, 1), asked(fresh, F.RWP), asked(fresh, F.MOVE), asked(fresh)]).toEqual([
      -EFAULT,
      -EINVAL,
      0,
      -EINVAL,
    ]);
    expect([asked(CLOSED), asked(kernel.eventfd(0)), asked(kernel.openKvm())]).toEqual([-EBADF, -ENOTTY, -ENOTTY]);
    const USER_MODE_ONLY = 1;
    expect(uffd.userfaultfd(USER_MODE_ONLY)).toBeGreaterThan(0);
    expect([uffd.userfaultfd(2), uffd.userfaultfd(4 | USER_MODE_ONLY)]).toEqual([-EINVAL, -EINVAL]);
  });
});

describe('messages', () => {
  it('are waited for by poll(2)', async () => {
    const hva = map(PAGE);
    const vm = kernel.createVm(kernel.openKvm(), 0);
    expect(kernel.setUserMemoryRegion(vm, 0, 0, 0, PAGE, hva)).toBe(0);
    expect(uffd.uffdRegister(fd, hva, PAGE, MISSING)).toBe(0);
    const vcpu = kernel.createVcpu(vm, 0);
    kernel.loadGuest(
      vcpu,
      (function* () {
        yield store(0, 1, 7n);
      })(),
    );
    let ready: number | undefined;
    const waiting = kernel.poll(fd, POLL.IN).then((events) => {
      ready = events;
    });
    await setTimeout(5);
    expect(ready).toBeUndefined();
    const run = kernel.runAsync(vcpu);
    await waiting;
    expect([ready, await kernel.poll(fd, POLL.IN | POLL.OUT)]).toEqual([POLL.IN, POLL.IN]);
    expect(kernel.read(fd, new Uint8Array(32))).toBe(32);
    const again = kernel.poll(fd, POLL.IN);
    await setTimeout(5);
    // It is read, and nothing has come since.
    expect([await kernel.poll(fd, 0), await again]).toEqual([0, 0]);
    expect([uffd.uffdZeropage(fd, hva, PAGE, 0), await run]).toEqual([PAGE, 0]);
  });

  it('are told one after the other, as many as there is room for', async () => {
    const vm = kernel.createVm(kernel.openKvm(), 0);
    const hva = map(4 * PAGE);
    expect(kernel.setUserMemoryRegion(vm, 0, 0, 0, 4 * PAGE, hva)).toBe(0);
    expect(uffd.uffdRegister(fd, hva, 4 * PAGE, MISSING | WP)).toBe(0);
    const runs = [0, 1, 2].map((id) => {
      const vcpu = kernel.createVcpu(vm, id);
      kernel.loadGuest(
        vcpu,
        (function* () {
          yield id === 1 ? load(id * PAGE + 8, 1) : store(id * PAGE + 8, 1, 1n);
        })(),
      );
      return kernel.runAsync(vcpu);
    });
    await setTimeout(5);
    const read = (length: number): unknown => {
      const into = new Uint8Array(length).fill(0xff);
      const result = kernel.read(fd, into);
      const view = new DataView(into.buffer);
      const told = [];
      // struct uffd_msg: event, then the fault's flags and address at 8 and 16.
      for (let at = 0; at < result; at += 32) {
        told.push([into[at], view.getBigUint64(at + 8, true), Number(view.getBigUint64(at + 16, true)) - hva]);
        expect([...into.subarray(at + 1, at + 8), ...into.subarray(at + 24, at + 32)]).toEqual(Array(15).fill(0));
      }
      return [result, ...told];
    };
    expect(read(31)).toEqual([-EINVAL]);
    const PAGEFAULT = 0x12;
    expect(read(64 + 31)).toEqual([64, [PAGEFAULT, 1n, 0], [PAGEFAULT, 0n, PAGE]]);
    expect([read(64), read(32)]).toEqual([[32, [PAGEFAULT, 1n, 2 * PAGE]], [-EAGAIN]]);
    expect(kernel.write(fd, new Uint8Array(32))).toBe(-EBADF);
    expect(kernel.read(uffd.userfaultfd(0), new Uint8Array(32))).toBe(-EINVAL);
    expect(uffd.uffdCopy(fd, hva, new Uint8Array(3 * PAGE), 0)).toBe(3 * PAGE);
    expect(await Promise.all(runs)).toEqual([0, 0, 0]);
  });
});

describe('PAGEMAP_SCAN', () => {
  it('is asked about whole pages of a mapping, with room for what it finds', () => {
    const hva = map(9 * PAGE);
    const scan = (at: number, length: number, bytes = 2, flags = 0): number =>
      uffd.pagemapScan(at, length, flags, 0, 2, 0, new Uint8Array(bytes));
    expect([scan(hva, 9 * PAGE), scan(hva, 9 * PAGE, 1), scan(hva, 8 * PAGE, 1)]).toEqual([9, -EFAULT, 8]);
    expect([scan(hva + 8, PAGE), scan(hva, PAGE + 8), scan(hva, 0), scan(hva, 10 * PAGE), scan(0x1000, PAGE)]).toEqual(
      Array(5).fill(-EINVAL),
    );
    expect([scan(hva, PAGE, 2, 4), scan(hva, PAGE, 2, 2)]).toEqual([-EINVAL, -EPERM]);
    useKernel({ arch: 'x86_64', release: '6.6' });
    const old = kernel.mmap(PAGE, RW, MAP.PRIVATE | MAP.ANONYMOUS, -1, 0, 0, 0);
    expect(kernel.uffd!.pagemapScan(old, PAGE, 0, 0, 2, 0, new Uint8Array(1))).toBe(-ENOTTY);
  });

  it('tells nothing where it is refused in the middle', () => {
    const hva = map(2 * PAGE);
    const tracking = uffd.userfaultfd(0);
    uffd.uffdApi(tracking, BigUint64Array.of(BigInt(UFFD_FEATURE.WP_ASYNC), 0n));
    expect(uffd.uffdRegister(tracking, hva, PAGE, WP)).toBe(0);
    const bitmap = new Uint8Array(1);
    const CHECK_WPASYNC = 2;
    expect([uffd.pagemapScan(hva, 2 * PAGE, CHECK_WPASYNC, 0, 2, 0, bitmap), ...bitmap]).toEqual([-EPERM, 0]);
    expect([uffd.pagemapScan(hva, PAGE, CHECK_WPASYNC, 0, 2, 0, bitmap), ...bitmap]).toEqual([1, 1]);
  });
});

describe('what may touch the guest’s memory', () => {
  it('is refused while this thread serves some, and what doesn’t isn’t', () => {
    const kvm = kernel.openKvm();
    const vm = kernel.createVm(kvm, 0);
    const vcpu = kernel.createVcpu(vm, 0);
    const hva = map(PAGE);
    const ask = (
      of: number,
      name: Parameters<typeof requestNumber>[0],
      arg: Uint8Array | number = new Uint8Array(600),
    ): number => kernel.ioctlUnchecked(of, requestNumber(name, 'x86_64'), arg);
    const touching = (): number[] => [
      kernel.run(vcpu, 1),
      kernel.preFaultMemory(vcpu, BigUint64Array.of(0n, 0n), 0),
      ask(vm, 'KVM_GET_DIRTY_LOG'),
      ask(vcpu, 'KVM_RUN', 0),
      kernel.ioctlUnchecked(vm, 0xaeff, 0),
      kernel.run(CLOSED, 1),
      kernel.ioctlUnchecked(CLOSED, 0xaeff, 0),
    ];
    const before = touching();
    expect(before).toEqual([-ERRNO.EINTR, -EINVAL, -EFAULT, -ERRNO.EINTR, -ENOTTY, -EBADF, -EBADF]);
    expect(uffd.uffdRegister(fd, hva, PAGE, MISSING)).toBe(0);
    expect(touching()).toEqual([...Array(5).fill(-EDEADLK), -EBADF, -EBADF]);
    expect([
      ask(kvm, 'KVM_GET_API_VERSION', 0),
      ask(kvm, 'KVM_CHECK_EXTENSION', 3),
      ask(kvm, 'KVM_GET_VCPU_MMAP_SIZE', 0),
      ask(vm, 'KVM_SET_USER_MEMORY_REGION'),
      ask(vm, 'KVM_SET_USER_MEMORY_REGION2'),
      ask(vcpu, 'KVM_GET_ONE_REG'),
      ask(vcpu, 'KVM_SET_ONE_REG'),
      ask(vcpu, 'KVM_GET_MP_STATE'),
      ask(vcpu, 'KVM_SET_MP_STATE'),
    ]).toEqual([12, 1, 3 * PAGE, -EINVAL, -EINVAL, -EFAULT, -EFAULT, -EFAULT, -EFAULT]);
    for (const [of, name] of [
      [kvm, 'KVM_CREATE_VM'],
      [vm, 'KVM_CREATE_VCPU'],
    ] as const)
      expect(ask(of, name, name === 'KVM_CREATE_VM' ? 0 : 1)).toBeGreaterThan(0);
    expect(uffd.uffdUnregister(fd, hva, PAGE)).toBe(0);
    expect(touching()).toEqual(before);
  });

  it('on s390x are keys and what is moved in and out', () => {
    useKernel({ arch: 's390x', release: '7.0' });
    const { memOp, getSkeys, setSkeys, keyOp, vcpuFault } = kernel.s390x!;
    const vm = kernel.createVm(kernel.openKvm(), 0);
    const vcpu = kernel.createVcpu(vm, 0);
    const asked = (): number[] => [
      memOp(vm, 0, 0, 8, 0, new Uint8Array(8), 0, 0, null, 0),
      getSkeys(vm, 0, 1, 0, new Uint8Array(1)),
      setSkeys(vm, 0, 1, 0, new Uint8Array(1)),
      keyOp(vm, 0, 0, new Uint8Array(1)),
      vcpuFault(vcpu, 0),
    ];
    expect(asked()).not.toContain(-EDEADLK);
    const hva = map(PAGE);
    expect(uffd.uffdRegister(fd, hva, PAGE, MISSING)).toBe(0);
    expect(asked()).toEqual(Array(5).fill(-EDEADLK));
    expect(kernel.s390x!.getCmmaBits(vm, new BigUint64Array(3), 0, new Uint8Array(1))).not.toBe(-EDEADLK);
  });

  it('isn’t a userfaultfd’s request by its number, which is for the calls that keep books', () => {
    const vm = kernel.createVm(kernel.openKvm(), 0);
    const vcpu = kernel.createVcpu(vm, 0);
    const memfd = kernel.memfdCreate('pages', PAGE, 0);
    const UFFDIO_WAKE = requestNumber('UFFDIO_WAKE', 'x86_64');
    const answers = [fd, kernel.openKvm(), kernel.eventfd(0), vm, vcpu, memfd, CLOSED].map((of) =>
      kernel.ioctlUnchecked(of, UFFDIO_WAKE, new Uint8Array(16)),
    );
    expect(answers).toEqual([-EPERM, -EPERM, -EPERM, -ENOTTY, -EINVAL, -ENOTTY, -EBADF]);
    const ppc = new EmulatedKernel({ arch: 'ppc64' });
    const hashed = ppc.createVm(ppc.openKvm(), 1);
    expect(ppc.ppc64!.allocateHtab(hashed, 18)).toBe(0);
    const htab = ppc.ppc64!.getHtabFd(hashed, 0, 0);
    expect(ppc.ioctlUnchecked(htab, requestNumber('UFFDIO_WAKE', 'ppc64'), new Uint8Array(16))).toBe(-ENOTTY);
  });
});
