import { describe, expect, it } from 'vitest';
import { Kvm, type KvmError } from '../../../lib/index.ts';
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
