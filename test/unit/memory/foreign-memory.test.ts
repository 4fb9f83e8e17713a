import { expect, it } from 'vitest';
import { Kvm, type KvmError, Mapping } from '../../../lib/index.ts';
import { EmulatedKernel } from '../../../lib/raw.ts';
import { addon } from '../native/real.ts';

it('memory that a kernel can not use is refused with what it could use', (test) => {
  const calls = addon(test);
  const kernel = new EmulatedKernel({ arch: 'x86_64' });
  using kvm = Kvm.open({ calls: kernel });
  using vm = kvm.createVm();
  const refusal = (mapping: Mapping) => {
    try {
      vm.memory.addRam(0, mapping);
    } catch (error) {
      const { code, syscall, size, explanation } = error as KvmError;
      return { code, syscall, size, explanation };
    }
    throw new Error('it is used');
  };
  const refused = { code: 'EXDEV', syscall: 'mmap', size: 0x10_0000 };
  using anonymous = Mapping.anonymous(calls, 0x10_0000);
  expect(refusal(anonymous)).toEqual({
    ...refused,
    explanation: "an emulated kernel can use the real kernel's memory only if it is a memfd, and this is anonymous",
  });
  using others = Mapping.memfd(new EmulatedKernel({ arch: 'x86_64' }), 0x10_0000);
  expect(refusal(others)).toEqual({
    ...refused,
    explanation:
      "an emulated kernel cannot use another's memory: make it with the same calls, or as a memfd with the addon's",
  });
  expect(vm.memslots.size).toBe(0);
});

/** An emulated kernel that says that it is the real one, whose addresses are the process's. */
const likeTheRealOne = (): EmulatedKernel =>
  Object.defineProperty(new EmulatedKernel({ arch: 'x86_64' }), 'backend', { value: 'native' });

it('memory of an emulated kernel is refused to the real one, with whose it should be', () => {
  using kvm = Kvm.open({ calls: likeTheRealOne() });
  using vm = kvm.createVm();
  for (const map of [Mapping.anonymous, Mapping.memfd]) {
    using mapping = map(new EmulatedKernel({ arch: 'x86_64' }), 0x10_0000);
    expect(() => vm.memory.addRam(0, mapping)).toThrow(
      expect.objectContaining({
        code: 'EXDEV',
        syscall: 'mmap',
        size: 0x10_0000,
        explanation: 'the real kernel cannot use memory of an emulated one: make it with the calls of the addon',
      }),
    );
  }
  expect(vm.memslots.size).toBe(0);
});

it('a memfd that is descriptor 0, since standard input was closed, is shown like others', () => {
  const real = likeTheRealOne();
  const { mmap } = real;
  real.mmap = (length, prot, _flags, _fd, ...place) => mmap.call(real, length, prot, 0x22, -1, ...place);
  real.close = () => 0;
  using memfd = Mapping.ofMemfd(real, 0, 0x10_0000);
  const kernel = new EmulatedKernel({ arch: 'x86_64' });
  const shown: number[] = [];
  const own = kernel.mmap;
  kernel.mmap = (length, prot, flags, fd, ...place) => {
    if (fd !== 0) return own.call(kernel, length, prot, flags, fd, ...place);
    shown.push(Number(length));
    return own.call(kernel, length, prot, 0x22, -1, ...place);
  };
  using kvm = Kvm.open({ calls: kernel });
  using vm = kvm.createVm();
  vm.memory.addRam(0, memfd);
  expect([shown, vm.memslots.size]).toEqual([[0x10_0000], 1]);
});

it('what an emulated kernel finds no room for, of a memfd of the real one, is not shown at an address that is none', (test) => {
  const calls = addon(test);
  const kernel = new EmulatedKernel({ arch: 'x86_64' });
  using kvm = Kvm.open({ calls: kernel });
  using vm = kvm.createVm();
  using memfd = Mapping.memfd(calls, 0x10_0000);
  const { mmap } = kernel;
  kernel.mmap = () => -12;
  expect(() => vm.memory.addRam(0, memfd)).toThrow(
    expect.objectContaining({ code: 'ENOMEM', syscall: 'mmap', size: 0x10_0000 }),
  );
  expect(vm.memslots.size).toBe(0);
  kernel.mmap = mmap;
  vm.memory.addRam(0, memfd);
  vm.memory.writeU32(8, 5);
  expect(vm.memslots.size).toBe(1);
});
