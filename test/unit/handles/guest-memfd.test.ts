import { setImmediate } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import {
  GUEST_MEMFD_FLAG,
  Kvm,
  type KvmError,
  MEM,
  MEMORY_ATTRIBUTE_PRIVATE,
  MEMORY_EXIT_FLAG,
} from '../../../lib/index.ts';
import { EmulatedKernel, ERRNO, type GuestProgram, load, out, store } from '../../../lib/raw.ts';
import { collectGarbage } from '../collect-garbage.ts';
import { type Backend, backends } from './backends.ts';

const hasGuestMemfd = ({ options }: Backend): boolean => {
  using kvm = Kvm.open(options);
  using vm = kvm.createVm();
  return vm.checkExtension('GUEST_MEMFD') > 0;
};
const newest: Backend = {
  name: 'emulated x86_64 6.18',
  options: { backend: 'emulated', arch: 'x86_64', release: '6.18' },
};

/** A VM with private memory, which distributions' kernels don't have. */
describe('private memory', () => {
  const PAGE = 4096;
  const PRIVATE = MEMORY_ATTRIBUTE_PRIVATE;
  const open = () => {
    const kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64', x86_64: { swProtectedVm: true } });
    const vm = kvm.createVm({ type: 1 });
    return { kvm, vm, vcpu: vm.createVcpu(), ram: kvm.mapAnonymous(8 * PAGE) };
  };

  it('is other pages than the shared memory at the same addresses', async () => {
    const { kvm, vm, vcpu, ram } = open();
    using memfd = vm.createGuestMemfd(8 * PAGE);
    vm.memory.addRam(0, ram, { size: 4 * PAGE, guestMemfd: memfd, guestMemfdOffset: 4 * PAGE });
    const loaded: unknown[] = [];
    kvm.emulated!.loadGuest(
      vcpu.fd,
      (function* (): GuestProgram {
        yield store(PAGE, 1, 1n);
        yield out(0x80, 1, 0n);
        yield store(PAGE, 1, 2n);
        loaded.push(yield load(PAGE, 1));
        yield out(0x80, 1, 0n);
        loaded.push(yield load(PAGE, 1));
        yield out(0x80, 1, 0n);
        loaded.push(yield load(PAGE, 1));
      })(),
    );
    await vcpu.run();
    vm.setMemoryAttributes(PAGE, PAGE, PRIVATE);
    await vcpu.run();
    expect([loaded, vm.memory.readU8(PAGE)]).toEqual([[2n], 1]);
    vm.setMemoryAttributes(PAGE, PAGE, 0);
    await vcpu.run();
    vm.setMemoryAttributes(PAGE, PAGE, PRIVATE);
    memfd.punchHole(5 * PAGE, PAGE);
    await vcpu.run();
    expect(loaded).toEqual([2n, 1n, 0n]);
    kvm.close();
  });

  it('ends the run where there is none, and the guest goes on once there is', async () => {
    const { kvm, vm, vcpu, ram } = open();
    vm.memory.addRam(0, ram);
    vm.setMemoryAttributes(2 * PAGE, PAGE, PRIVATE);
    kvm.emulated!.loadGuest(
      vcpu.fd,
      (function* (): GuestProgram {
        yield store(2 * PAGE - 1, 2, 0x0201n);
      })(),
    );
    const fault = { reason: 'MEMORY_FAULT', gpa: 2 * PAGE, size: PAGE, flags: MEMORY_EXIT_FLAG.PRIVATE };
    for (let i = 0; i < 2; i++) expect(await vcpu.run()).toMatchObject(fault);
    // Nothing of it was done.
    expect(vm.memory.readU8(2 * PAGE - 1)).toBe(0);
    vm.setMemoryAttributes(2 * PAGE, PAGE, 0);
    expect((await vcpu.run()).reason).toBe('HLT');
    expect(vm.memory.readU16(2 * PAGE - 1)).toBe(0x0201);
    kvm.close();
  });
});

describe('a region with a guest_memfd', () => {
  const PAGE = 4096;
  const { MMAP, INIT_SHARED } = GUEST_MEMFD_FLAG;
  const open = () => {
    const kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64', release: '6.18' });
    const vm = kvm.createVm();
    return { kvm, vm, memfd: vm.createGuestMemfd(4 * PAGE, MMAP | INIT_SHARED) };
  };

  it('shows its pages to the guest, which can be mapped', async () => {
    const { kvm, vm, memfd } = open();
    const ram = memfd.map();
    expect(ram.kind).toBe('guest_memfd');
    vm.memory.addRam(0, ram, { guestMemfd: memfd });
    const vcpu = vm.createVcpu();
    kvm.emulated!.loadGuest(
      vcpu.fd,
      (function* (): GuestProgram {
        yield store(0x10, 4, 0xcafen);
      })(),
    );
    expect((await vcpu.run()).reason).toBe('HLT');
    expect(vm.memory.readU32(0x10)).toBe(0xcafe);
    memfd.allocate(0, 4 * PAGE);
    memfd.punchHole(0, PAGE);
    expect(vm.memory.readU32(0x10)).toBe(0);
    kvm.close();
  });

  it('is made anew as it was when another one is refused', () => {
    const { kvm, vm, memfd } = open();
    const region = vm.memory.addRam(0, kvm.mapAnonymous(2 * PAGE), { guestMemfd: memfd, guestMemfdOffset: 2 * PAGE });
    const slots = () => [...vm.memslots].map(({ flags, guestMemfdOffset }) => [flags, guestMemfdOffset]);
    expect(slots()).toEqual([[MEM.GUEST_MEMFD, 2 * PAGE]]);
    for (const refused of [() => region.setReadOnly(true), () => vm.dirtyPages.start(), () => region.move(16 * PAGE)]) {
      expect(refused).toThrowError(expect.objectContaining({ code: 'EINVAL', explanation: expect.any(String) }));
      expect(slots()).toEqual([[MEM.GUEST_MEMFD, 2 * PAGE]]);
    }
    kvm.close();
  });

  it.each([
    [
      { guestMemfdOffset: 3 * PAGE },
      /^the slice \[0x3000, 0x5000\) reaches beyond the guest_memfd, which has 0x4000 bytes$/,
    ],
    [{ guestMemfdOffset: 1 }, /guest_memfd_offset 0x1 is not a multiple/],
  ])('with %j is refused', (options, explanation) => {
    const { kvm, vm, memfd } = open();
    const add = (): void => void vm.memory.addRam(0, kvm.mapAnonymous(2 * PAGE), { guestMemfd: memfd, ...options });
    expect(add).toThrowError(
      expect.objectContaining({ code: 'EINVAL', explanation: expect.stringMatching(explanation) }),
    );
    kvm.close();
  });

  it('is refused with a reason by descriptor too', () => {
    const { kvm, vm, memfd } = open();
    const ram = kvm.mapAnonymous(2 * PAGE);
    const add = (slot: number, guestMemfd: number, guestMemfdOffset: number): (() => void) => {
      const place = { guestPhysAddr: slot * 8 * PAGE, memorySize: 2 * PAGE, userspaceAddr: ram.hva };
      return () =>
        void vm.setUserMemoryRegion({ slot, flags: MEM.GUEST_MEMFD, guestMemfd, guestMemfdOffset, ...place });
    };
    add(0, memfd.fd, 0)();
    const EINVAL = (explanation: string) =>
      expect.objectContaining({ code: 'EINVAL', explanation: expect.stringContaining(explanation) });
    const range = (start: string, end: string): string => `the range [${start}, ${end}) of the guest_memfd`;
    expect(add(1, memfd.fd, PAGE)).toThrowError(
      EINVAL(`${range('0x1000', '0x3000')} ${memfd.fd} overlaps [0x0, 0x2000), which is slot 0's`),
    );
    expect(add(1, memfd.fd, 2 * PAGE)).not.toThrow();
    expect(add(2, memfd.fd, 3 * PAGE)).toThrowError(EINVAL("overlaps [0x2000, 0x4000), which is slot 1's"));
    expect(add(2, memfd.fd, 4 * PAGE)).toThrowError(
      EINVAL(`${range('0x4000', '0x6000')} ${memfd.fd} reaches beyond its end: it has 0x4000 bytes`),
    );
    using other = kvm.createVm();
    using foreign = other.createGuestMemfd(4 * PAGE);
    using eventFd = kvm.createEventFd();
    for (const { fd } of [foreign, eventFd]) {
      const why = `this VM's createGuestMemfd gave no descriptor ${fd} that is open`;
      expect(add(2, fd, 0)).toThrowError(EINVAL(`${range('0x0', '0x2000')} ${fd} can't be bound: ${why}`));
    }
    kvm.close();
  });

  it('that was dropped is none that a refusal could name', async () => {
    const { kvm, vm } = open();
    const ram = kvm.mapAnonymous(PAGE);
    (() => vm.createGuestMemfd(4 * PAGE))();
    await setImmediate();
    collectGarbage();
    using other = kvm.createEventFd();
    const nobody = { flags: MEM.GUEST_MEMFD, guestMemfd: 999 };
    // EBADF says it already.
    const at = { slot: 0, guestPhysAddr: 0, memorySize: PAGE, userspaceAddr: ram.hva };
    expect(() => vm.setUserMemoryRegion({ ...at, ...nobody })).toThrow(
      /^EBADF: bad file descriptor, ioctl\(KVM_SET_USER_MEMORY_REGION2\)$/,
    );
    const place = { slot: 0, guestPhysAddr: 0, memorySize: PAGE, userspaceAddr: ram.hva };
    expect(() => vm.setUserMemoryRegion({ ...place, flags: MEM.GUEST_MEMFD, guestMemfd: other.fd })).toThrow(
      `gave no descriptor ${other.fd} that is open`,
    );
    kvm.close();
  });

  it('may be descriptor 0, and one that was closed is none of descriptor -1', () => {
    const kernel = new EmulatedKernel({ arch: 'x86_64', x86_64: { swProtectedVm: true } });
    using kvm = Kvm.open({ calls: kernel });
    using vm = kvm.createVm({ type: 1 });
    const ram = kvm.mapAnonymous(8 * PAGE);
    vm.createGuestMemfd(4 * PAGE).close();
    // As when standard input was closed.
    kernel.createGuestMemfd = () => 0;
    kernel.close = () => 0;
    using zeroth = vm.createGuestMemfd(4 * PAGE);
    expect(zeroth.fd).toBe(0);
    kernel.setUserMemoryRegion2 = () => -ERRNO.EINVAL;
    const whyNot = (guestMemfd: number): string => {
      const place = { slot: 0, guestPhysAddr: 0, memorySize: 8 * PAGE, userspaceAddr: ram.hva };
      try {
        vm.setUserMemoryRegion({ ...place, flags: MEM.GUEST_MEMFD, guestMemfd });
      } catch (error) {
        return (error as KvmError).explanation ?? 'no reason';
      }
      return 'accepted';
    };
    const range = 'the range [0x0, 0x8000) of the guest_memfd';
    expect(whyNot(0)).toBe(`${range} 0 reaches beyond its end: it has 0x4000 bytes`);
    expect(whyNot(-1)).toBe(
      `${range} -1 can't be bound: this VM's createGuestMemfd gave no descriptor -1 that is open`,
    );
  });

  it('shown by a region is refused when it was closed, by its name', () => {
    const { kvm, vm } = open();
    const ram = kvm.mapAnonymous(4 * PAGE);
    const memfd = vm.createGuestMemfd(4 * PAGE);
    memfd.close();
    expect(() => vm.memory.addRam(0, ram, { guestMemfd: memfd })).toThrow(
      expect.objectContaining({
        code: 'EBADF',
        syscall: 'ioctl(KVM_SET_USER_MEMORY_REGION2)',
        explanation: 'the guest_memfd is closed',
      }),
    );
    kvm.close();
  });

  it('is not said to overlap what begins where it ends', () => {
    const kernel = new EmulatedKernel({ arch: 'x86_64', x86_64: { swProtectedVm: true } });
    using kvm = Kvm.open({ calls: kernel });
    using vm = kvm.createVm({ type: 1 });
    using memfd = vm.createGuestMemfd(4 * PAGE);
    const ram = kvm.mapAnonymous(4 * PAGE);
    const add = (slot: number, page: number): void => {
      const place = { guestPhysAddr: page * PAGE, memorySize: 2 * PAGE, userspaceAddr: ram.hva };
      const pages = { guestMemfd: memfd.fd, guestMemfdOffset: page * PAGE };
      vm.setUserMemoryRegion({ slot, flags: MEM.GUEST_MEMFD, ...place, ...pages });
    };
    add(0, 2);
    // A kernel that has a reason of its own.
    kernel.setUserMemoryRegion2 = () => -22;
    const refused = (): string => {
      try {
        add(1, 0);
      } catch (error) {
        return String(error);
      }
      return 'accepted';
    };
    expect(refused()).toContain('EINVAL');
    expect(refused()).not.toContain('overlaps');
  });

  it('that was made without MMAP is for VMs with private memory', () => {
    using kvm = Kvm.open({ backend: 'emulated', arch: 'aarch64', release: '6.18' });
    using vm = kvm.createVm();
    using memfd = vm.createGuestMemfd(PAGE);
    expect(() => vm.memory.addRam(0, kvm.mapAnonymous(PAGE), { guestMemfd: memfd })).toThrowError(
      expect.objectContaining({
        code: 'EINVAL',
        explanation: expect.stringContaining('without GUEST_MEMFD_FLAG.MMAP, and this VM has no private memory'),
      }),
    );
  });

  it('has holes of whole pages only', () => {
    const { kvm, memfd } = open();
    for (const [offset, length, why] of [
      [1, PAGE, 'offset 0x1 is not a multiple of the page size, 0x1000'],
      [0, 0, 'a length of 0 is no range'],
      [0, PAGE + 1, 'length 0x1001 is not a multiple of the page size, 0x1000'],
    ] as const) {
      const isTold = expect.objectContaining({ code: 'EINVAL', explanation: why });
      expect(() => memfd.punchHole(offset, length)).toThrowError(isTold);
      expect(() => memfd.allocate(offset, length)).toThrowError(isTold);
    }
    expect(() => memfd.allocate(3 * PAGE, 2 * PAGE)).toThrowError(
      expect.objectContaining({
        code: 'EINVAL',
        explanation: '[0x3000, 0x5000) reaches beyond the guest_memfd, which has 0x4000 bytes',
      }),
    );
    memfd.punchHole(3 * PAGE, 2 * PAGE);
    memfd.close();
    expect(() => memfd.punchHole(0, PAGE)).toThrowError(expect.objectContaining({ code: 'EBADF' }));
    kvm.close();
  });

  it('that was made without MMAP says so when it is to be mapped', () => {
    const { kvm, vm } = open();
    using memfd = vm.createGuestMemfd(PAGE);
    expect(() => memfd.map()).toThrowError(
      expect.objectContaining({ code: 'ENODEV', explanation: expect.stringContaining('GUEST_MEMFD_FLAG.MMAP') }),
    );
    using mappable = vm.createGuestMemfd(PAGE, MMAP);
    expect(() => mappable.map({ align: 3 })).toThrowError(
      expect.objectContaining({ code: 'EINVAL', explanation: expect.not.stringContaining('GUEST_MEMFD_FLAG') }),
    );
    kvm.close();
  });
});

describe.each([...backends, newest].filter(hasGuestMemfd))('a guest_memfd on $name', ({ options }) => {
  const refused = (size: number, flags: number | bigint): Partial<KvmError> => {
    using kvm = Kvm.open(options);
    using vm = kvm.createVm();
    try {
      vm.createGuestMemfd(size, flags);
    } catch (error) {
      return error as KvmError;
    }
    throw new Error('it was not refused');
  };

  it('is made of whole pages', () => {
    using kvm = Kvm.open(options);
    using vm = kvm.createVm();
    using memfd = vm.createGuestMemfd(kvm.pageSize);
    expect(memfd.size).toBe(kvm.pageSize);
  });

  it.each([0, 1, 4097, 2 ** 53 - 1])('of %i bytes is refused with what would be right', (size) => {
    const { code, explanation } = refused(size, 0);
    expect([code, explanation]).toEqual([
      'EINVAL',
      expect.stringMatching(/^size 0x[0-9a-f]+ is not a multiple of the page size, 0x1000,/),
    ]);
  });

  it.each([4, 1n << 63n])('with flags %s is refused, naming those that are known', (flags) => {
    const { code, explanation } = refused(4096, flags);
    expect([code, explanation]).toEqual([
      'EINVAL',
      expect.stringMatching(/^flags 0x[48]0* have bits .* known: 0x[0-3]\)$/),
    ]);
  });
});
