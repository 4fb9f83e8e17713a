import { type AddressSpace, Kvm } from '../../../lib/index.ts';

/** An emulated VM that collects dirty pages of a space. */
export function collector(space: AddressSpace) {
  const kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
  const vm = kvm.createVm();
  vm.bind(space);
  vm.dirtyPages.start();
  return {
    /** The frames that became dirty since the last time. */
    pages: () => [...vm.dirtyPages.collect().pages()],
    [Symbol.dispose]: () => {
      vm.close();
      kvm.close();
    },
  };
}
