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
