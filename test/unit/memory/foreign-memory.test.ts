import { expect, it } from 'vitest';
import { Kvm, Mapping } from '../../../lib/index.ts';
import { EmulatedKernel } from '../../../lib/raw.ts';
import { addon } from '../native/real.ts';

it('what an emulated kernel finds no room for, of a memfd of the real one, is not shown at an address that is none', (test) => {
  const calls = addon(test);
  const kernel = new EmulatedKernel({ arch: 'x86_64' });
  using kvm = Kvm.open({ calls: kernel });
  using vm = kvm.createVm();
  using memfd = Mapping.memfd(calls, 0x10_0000);
  const { mmap } = kernel;
  kernel.mmap = () => -12;
  expect(() => vm.memory.addRam(0, memfd)).toThrow(expect.objectContaining({ code: 'ENOMEM', syscall: 'mmap' }));
  expect(vm.memslots.size).toBe(0);
  kernel.mmap = mmap;
  vm.memory.addRam(0, memfd);
  vm.memory.writeU32(8, 5);
  expect(vm.memslots.size).toBe(1);
});
