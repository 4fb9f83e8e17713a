// Opens KVM in a process that lacks something, and says what it got.
import { Descriptor, Kvm, type KvmError } from '../../../../lib/index.ts';

const codeOf = (call: () => Disposable): string => {
  try {
    call()[Symbol.dispose]();
    return 'taken';
  } catch (error) {
    return (error as KvmError).code;
  }
};

const kvm = Kvm.open();
const vm = kvm.createVm();
const fds = [vm.fd, vm.createVcpu().fd, kvm.createEventFd().fd];
const duplicates = kvm.backend === 'native' ? fds.map((fd) => codeOf(() => Descriptor.duplicate(kvm.calls, fd))) : [];
const native = codeOf(() => Kvm.open({ backend: 'native' }));
console.log(JSON.stringify({ backend: kvm.backend, why: kvm.fallbackReason ?? null, native, duplicates }));
