import { expect, it } from 'vitest';
import { Kvm } from '../../../../../lib/index.ts';

it.each(['6.12', '7.2'])('a run without memory behind the prefix is EFAULT on %s', async (release) => {
  using kvm = Kvm.open({ backend: 'emulated', arch: 's390x', release });
  using vm = kvm.createVm();
  const vcpu = vm.createVcpu();
  const refused = expect.objectContaining({ code: 'EFAULT', syscall: 'ioctl(KVM_RUN)' });
  expect(() => vcpu.runSync()).toThrow(refused);
  await expect(vcpu.run()).rejects.toEqual(refused);
  // The kernel's own answer.
  expect(vcpu.calls.run(vcpu.fd, 0)).toBe(release === '7.2' ? 5 : -14);
});
