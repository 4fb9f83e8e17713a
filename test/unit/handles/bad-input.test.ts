import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Kvm, type KvmError, type Mapping, type Vm } from '../../../lib/index.ts';
import { EmulatedKernel } from '../../../lib/raw.ts';
import { backends, UNIT } from './backends.ts';

const BAD_ADDRESSES: readonly [string, unknown, string][] = [
  ['negative', -1, 'ERR_OUT_OF_RANGE'],
  ['negative bigint', -1n, 'ERR_OUT_OF_RANGE'],
  ['fractional', 1.5, 'ERR_OUT_OF_RANGE'],
  ['NaN', Number.NaN, 'ERR_OUT_OF_RANGE'],
  ['infinite', Number.POSITIVE_INFINITY, 'ERR_OUT_OF_RANGE'],
  ['2^53', 2 ** 53, 'ERR_OUT_OF_RANGE'],
  ['2^64', 1n << 64n, 'ERR_OUT_OF_RANGE'],
  ['string', '0x1000', 'ERR_INVALID_ARG_TYPE'],
  ['undefined', undefined, 'ERR_INVALID_ARG_TYPE'],
  ['null', null, 'ERR_INVALID_ARG_TYPE'],
  ['object', {}, 'ERR_INVALID_ARG_TYPE'],
];

/** The calls of a user without types. */
type Untyped = Record<string, (...args: unknown[]) => unknown>;
const untyped = (value: object): Untyped => value as unknown as Untyped;

describe('the real kernel and what only the emulated one can be', () => {
  const other = process.arch === 's390x' ? 'ppc64' : 's390x';
  it.each([
    [{ arch: other }, 'options.arch'],
    [{ release: '6.1' }, 'options.release'],
    [{ pageSize: 4096 }, 'options.pageSize'],
    [{ x86_64: { smm: true } }, 'options.x86_64'],
  ] as const)('are not asked for together: %j', (options, name) => {
    const wrong = { code: 'ERR_OUT_OF_RANGE', message: expect.stringContaining(`"${name}"`) };
    expect(() => Kvm.open({ backend: 'native', ...options })).toThrow(expect.objectContaining(wrong));
  });
});

describe.each(backends)('bad input on $name', ({ options }) => {
  let kvm: Kvm;
  let vm: Vm;
  let ram: Mapping;

  beforeEach(() => {
    kvm = Kvm.open(options);
    vm = kvm.createVm();
    ram = kvm.mapAnonymous(UNIT);
    vm.memory.addRam(0, ram);
  });
  afterEach(() => {
    vm.close();
    kvm.close();
  });

  it.each(BAD_ADDRESSES)('an address that is %s is a typed error everywhere', (_, address, code) => {
    const memory = untyped(vm.memory);
    const error = expect.objectContaining({ code });
    for (const method of ['readU8', 'readU32', 'readU64', 'translate', 'find', 'atomicLoad']) {
      expect(() => memory[method]!(address, 4), method).toThrow(error);
    }
    expect(() => memory.writeU32!(address, 1)).toThrow(error);
    expect(() => memory.read!(address, new Uint8Array(4))).toThrow(error);
    expect(() => memory.readExact!(address, 4)).toThrow(error);
    expect(() => memory.copy!(address, 0, 8)).toThrow(error);
    expect(() => memory.copy!(0, address, 8)).toThrow(error);
    expect(() => memory.gather!([address], 4, new Uint8Array(4))).toThrow(error);
    expect(() => memory.addRam!(address, ram)).toThrow(error);
    expect(() => memory.addMmio!(address, 8, {})).toThrow(error);
    expect(() => [...(memory.slices!(address, 8) as Iterable<unknown>)]).toThrow(error);
    expect(() =>
      untyped(vm).setUserMemoryRegion!({ slot: 1, guestPhysAddr: address, memorySize: UNIT, userspaceAddr: 0 }),
    ).toThrow(error);
    expect(vm.memslots.size).toBe(1);
    expect(ram.pins).toBe(2);
  });

  it('values that do not fit are refused, and nothing is written', () => {
    const memory = untyped(vm.memory);
    const cases: readonly [string, readonly unknown[]][] = [
      ['writeU8', [-1, 256, 1.5, Number.NaN]],
      ['writeI8', [-129, 128, 0.5]],
      ['writeU16', [-1, 65536]],
      ['writeI16', [-32769, 32768]],
      ['writeU32', [-1, 2 ** 32, Number.NaN]],
      ['writeI32', [-(2 ** 31) - 1, 2 ** 31]],
      ['writeU64', [-1, 2 ** 53, -1n, 1n << 64n]],
      ['writeI64', [2 ** 53, 1n << 63n, -(1n << 63n) - 1n, 1.5]],
    ];
    for (const [method, values] of cases) {
      for (const value of values) {
        expect(() => memory[method]!(0x100, value), `${method}(${value})`).toThrow(
          expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' }),
        );
      }
      expect(() => memory[method]!(0x100, 'x')).toThrow();
    }
    expect(vm.memory.readU64(0x100)).toBe(0n);
  });

  it('sizes, handlers, buffers and capabilities of the wrong kind are typed errors', () => {
    const memory = untyped(vm.memory);
    const range = expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' });
    const type = expect.objectContaining({ code: 'ERR_INVALID_ARG_TYPE' });
    expect(() => memory.addRam!(2 * UNIT, ram, { size: -1 })).toThrow(range);
    expect(() => memory.addRam!(2 * UNIT, ram, { offset: 0.5 })).toThrow(range);
    expect(() => memory.addRam!(2 * UNIT, {})).toThrow(type);
    expect(() => memory.addMmio!(2 * UNIT, 8, null)).toThrow(type);
    expect(() => memory.read!(0, [1, 2])).toThrow(type);
    expect(() => memory.readExact!(0, -1)).toThrow(range);
    expect(() => untyped(kvm).mapAnonymous!('1')).toThrow(type);
    expect(() => untyped(kvm).mapAnonymous!(-4096)).toThrow(range);
    expect(() => untyped(kvm).checkExtension!('NO_SUCH_CAP')).toThrow(range);
    expect(() => untyped(kvm).checkExtension!('toString')).toThrow(range);
    expect(() => untyped(kvm).checkExtension!(-1)).toThrow(range);
    expect(() => untyped(kvm).checkExtension!({})).toThrow(type);
    expect(() => untyped(vm).bind!({})).toThrow(type);
    expect(() => untyped(vm).setUserMemoryRegion!(null)).toThrow(type);
    expect(kvm.checkExtension(9999)).toBe(0);
    expect(kvm.checkExtension('KVM_CAP_NR_MEMSLOTS')).toBe(kvm.checkExtension('NR_MEMSLOTS'));
  });

  it('slices beyond the mapping and empty regions are refused before the kernel is asked', () => {
    expect(() => vm.memory.addRam(2 * UNIT, ram, { size: UNIT + kvm.pageSize })).toThrow(
      expect.objectContaining({ code: 'EINVAL', explanation: expect.stringContaining('beyond the mapping') }),
    );
    expect(() => vm.memory.addRam(2 * UNIT, ram, { offset: UNIT })).toThrow(/empty/);
    expect(() => kvm.mapAnonymous(0)).toThrow(expect.objectContaining({ code: 'EINVAL', syscall: 'mmap' }));
    expect(() => kvm.mapAnonymous(UNIT, { align: 3 })).toThrow(expect.objectContaining({ code: 'EINVAL' }));
  });

  it('a type of VM that the kernel does not have is refused', () => {
    const create = () => kvm.createVm({ type: 0xffff_ffff });
    // riscv64's does not look at it.
    if (kvm.arch === 'riscv64') create().close();
    else expect(create).toThrow(expect.objectContaining({ code: 'EINVAL' }));
  });

  it('protection and advice that no kernel knows are told from parts that are none', () => {
    const why = (call: () => void): string => {
      try {
        call();
      } catch (error) {
        expect(error).toMatchObject({ code: 'EINVAL' });
        return (error as KvmError).explanation ?? '';
      }
      return 'it was done';
    };
    expect(why(() => ram.protect(0, UNIT, 8))).toBe('prot 0x8 has more than READ 0x1, WRITE 0x2 and EXEC 0x4');
    expect(why(() => ram.advise(999))).toMatch(/^advice 999 is none that this kernel knows/);
    for (const call of [() => ram.protect(1, UNIT, 8), () => ram.advise(999, 1, UNIT)]) {
      expect(why(call)).toMatch(/must be multiples of the page size/);
    }
  });

  it('everything on closed handles is EBADF and says what is closed', () => {
    const vcpu = vm.createVcpu();
    const other = kvm.mapAnonymous(UNIT);
    const space = vm.memory;
    vm.close();
    for (const call of [
      () => vm.createVcpu(),
      () => vm.checkExtension('NR_MEMSLOTS'),
      () => vm.enableCap(168, [1]),
      () => vm.io.createIrqchip(),
      () => vm.ioctl(0xaeff),
      () => vm.setUserMemoryRegion({ slot: 0, guestPhysAddr: 0, memorySize: UNIT, userspaceAddr: ram.hva }),
    ]) {
      expect(call).toThrow(expect.objectContaining({ code: 'EBADF', explanation: 'the VM is closed' }));
    }
    for (const call of [() => space.addRam(2 * UNIT, other), () => space.readU8(0)]) {
      expect(call).toThrow(expect.objectContaining({ code: 'EBADF', explanation: 'the address space is closed' }));
    }
    expect(() => vcpu.getMpState()).toThrow(
      expect.objectContaining({ code: 'EBADF', explanation: 'vCPU 0 is closed' }),
    );
    other.close();
    using second = kvm.createVm();
    expect(() => second.memory.addRam(0, other)).toThrow(
      expect.objectContaining({ code: 'EBADF', explanation: 'the mapping is closed' }),
    );
    expect(() => other.protect(0, UNIT, 0)).toThrow(expect.objectContaining({ code: 'EBADF' }));
    kvm.close();
    expect(() => kvm.createVm()).toThrow(expect.objectContaining({ code: 'EBADF', explanation: expect.any(String) }));
    expect(() => kvm.getApiVersion()).toThrow(expect.objectContaining({ code: 'EBADF' }));
  });

  it.each([true, false])(
    'parts of a closed VM are closed, whether they were looked at before (%s) or not',
    (looked) => {
      const second = kvm.createVm();
      if (looked) second.memory.addRam(0, ram);
      if (looked)
        second
          .addressSpace(0)
          .addMmio(2 * UNIT, 8, {})
          .move(3 * UNIT);
      const port = second.io.ports.add(0x60, 1, {});
      const dirty = looked ? second.dirtyPages.start() : undefined;
      second.close();
      const { memory, dirtyPages, io } = second;
      expect(dirtyPages).toBe(dirty ?? dirtyPages);
      const space = kvm.createAddressSpace();
      for (const call of [
        () => dirtyPages.start(),
        () => dirtyPages.collect(),
        () => io.ports.add(0x70, 1, {}),
        () => port.move(0x70),
        () => second.bind(space),
      ]) {
        expect(call).toThrow(expect.objectContaining({ code: 'EBADF', explanation: 'the VM is closed' }));
      }
      expect(dirtyPages.started).toBe(false);
      port.remove();
      expect([space.users, io.ports.regions]).toEqual([[], []]);
      for (const call of [
        () => memory.addMmio(0xd000_0000, 8, {}),
        () => memory.mmio.add(0xd000_0000, 8, {}),
        ...memory.mmio.regions.map((region) => () => region.move(0xd000_0000)),
      ]) {
        expect(call).toThrow(expect.objectContaining({ code: 'EBADF', explanation: 'the address space is closed' }));
      }
      expect(memory.mmio.regions.length).toBe(looked ? 1 : 0);
    },
  );
});

describe('running out of descriptors', () => {
  it('is EMFILE, and closing one makes room', () => {
    const calls = new EmulatedKernel({ arch: 'x86_64', maxFds: 4 });
    const kvm = Kvm.open({ calls });
    const vms = [kvm.createVm(), kvm.createVm(), kvm.createVm()];
    const isFull = expect.objectContaining({ code: 'EMFILE', explanation: expect.stringContaining('ulimit -n') });
    expect(() => kvm.createVm()).toThrow(isFull);
    expect(() => kvm.createEventFd()).toThrow(isFull);
    expect(() => kvm.mapMemfd(UNIT)).toThrow(expect.objectContaining({ code: 'EMFILE', syscall: 'memfd_create' }));
    vms[0]!.close();
    expect(() => vms[1]!.createVcpu()).not.toThrow();
    expect(() => vms[1]!.createVcpu()).toThrow(expect.objectContaining({ code: 'EMFILE' }));
  });
});

describe('an address beyond the guest physical bits', () => {
  it('is refused with the highest address there is', () => {
    using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
    using vm = kvm.createVm();
    let error: KvmError | undefined;
    try {
      vm.memory.addRam(2 ** 48, kvm.mapAnonymous(UNIT));
    } catch (thrown) {
      error = thrown as KvmError;
    }
    expect(error).toMatchObject({ code: 'EINVAL', errno: -22, explanation: expect.stringContaining('0xffffffffffff') });
  });
});
